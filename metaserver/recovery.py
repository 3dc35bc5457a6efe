"""From a data folder to a log and a state that belong together: what to trust, what to replay.

The working copy of the state is used when this machine has not been restarted since it was opened;
else the newest good checkpoint. Either way the log has the last word.
"""

import logging
from typing import NamedTuple

from ..fs.errors import Code, TideError
from ..fs.limits import LOG_SEGMENT_BYTES
from ..fs.ports.disk import Disk
from .checkpoint import Checkpoint, Checkpoints
from .oplog import Log
from .state import State
from .store import Store, Stores

log = logging.getLogger(__name__)


class Recovered(NamedTuple):
    """Log and state; entries behind the state's applied index are still to be replayed."""

    oplog: Log
    store: Store
    state: State
    checkpoints: Checkpoints
    checkpoint_index: int  # of the newest checkpoint, 0: there is none


async def recover(
    disk: Disk, stores: Stores, cluster: str, *, segment_bytes: int = LOG_SEGMENT_BYTES
) -> Recovered:
    """Open what the folder holds; an empty folder gives an empty log and state.

    CORRUPT, naming what and where, when log and state do not fit together or the log is damaged.
    """
    checkpoints = Checkpoints(disk, cluster)
    found = await checkpoints.found()
    store = await stores.open_trusted()
    try:
        newest_index = found[0].manifest.index if found else 0
        applied_index = State(store.kv).totals.applied_index if store else newest_index
        oplog = await Log.open(
            disk, cluster, applied_index=applied_index, segment_bytes=segment_bytes
        )
        if store is not None and applied_index + 1 < oplog.first_index:
            log.warning(
                "the working copy ends at %d and the log begins at %d: taking a checkpoint",
                applied_index,
                oplog.first_index,
            )
            store.close()
            store = None
        if store is None:
            store = await _restore(stores, checkpoints, found, oplog)
        state = State(store.kv)
        _check_reach(state, oplog)
    except BaseException:
        if store is not None:
            store.close()
        raise
    return Recovered(oplog, store, state, checkpoints, newest_index)


def _check_reach(state: State, oplog: Log) -> None:
    """The state must not know more than the log."""
    applied_index = state.totals.applied_index
    if applied_index > oplog.last_index:
        raise TideError(
            Code.CORRUPT,
            f"the state has applied the log up to {applied_index}, but the log ends at"
            f" {oplog.last_index}: records that were acknowledged are missing from the log folder."
            " Restore it from a copy; nothing was changed",
        )
    log.info(
        "recovered: state at %d, log %d to %d", applied_index, oplog.first_index, oplog.last_index
    )


async def _restore(
    stores: Stores, checkpoints: Checkpoints, found: list[Checkpoint], oplog: Log
) -> Store:
    """The newest checkpoint that is good and that the log goes on from, or nothing at all."""
    for checkpoint in found:
        if checkpoint.manifest.index + 1 < oplog.first_index:
            break
        try:
            await checkpoints.verify(checkpoint)
        except TideError as error:
            log.warning("the checkpoint in %s is left out: %s", checkpoint.folder, error)
            continue
        return await stores.open_copy(checkpoint.state_path)
    if oplog.first_index > 1:
        raise TideError(
            Code.CORRUPT,
            f"the log begins at record {oplog.first_index} and there is no good checkpoint that "
            "holds what came before. Restore the checkpoints folder from a copy",
        )
    return await stores.open_empty()
