"""From a data folder to a log and a state that belong together: what to trust, what to replay.

The working copy of the state is used when this machine has not been restarted since it was opened;
else the newest good checkpoint. Either way the log has the last word, with one exception: a
checkpoint that was received from the leader, and not yet installed, because this member's log had
fallen too far behind or went another way.
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
    stores: Stores


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
        applied_index = State(store.kv).totals.applied_index if store else 0
        oplog = await _open_log(
            disk, cluster, found, store is not None, applied_index, segment_bytes
        )
        if found and found[0].manifest.received:
            found[0], store = await _finish_installing(stores, checkpoints, found[0], store, oplog)
            applied_index = State(store.kv).totals.applied_index if store else 0
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
    newest_index = found[0].manifest.index if found else 0
    return Recovered(oplog, store, state, checkpoints, newest_index, stores)


async def _open_log(
    disk: Disk,
    cluster: str,
    found: list[Checkpoint],
    trusted: bool,
    applied_index: int,
    segment_bytes: int,
) -> Log:
    """``applied_index``: of the working copy that is ``trusted``."""
    indexes = [checkpoint.manifest.index for checkpoint in found]
    if found and found[0].manifest.received:
        # Its log may be dropped half already.
        return await Log.open(disk, cluster, segment_bytes=segment_bytes)
    known_index = applied_index if trusted else max(indexes, default=0)
    settled_index = applied_index if trusted else min(indexes, default=0)
    return await Log.open(
        disk,
        cluster,
        applied_index=known_index,
        settled_index=settled_index,
        segment_bytes=segment_bytes,
    )


# --- a checkpoint from the leader ------------------------------------------------------------


async def _finish_installing(
    stores: Stores,
    checkpoints: Checkpoints,
    checkpoint: Checkpoint,
    store: Store | None,
    oplog: Log,
) -> tuple[Checkpoint, Store | None]:
    """Do what a crash left undone. The working copy may be that of the checkpoint already."""
    index, term = checkpoint.manifest.index, checkpoint.manifest.term
    if oplog.first_index > index + 1 or oplog.terms.at(index) == term:
        return await checkpoints.settle(checkpoint, index, term, received=False), store
    log.info("installing the checkpoint in %s that was received", checkpoint.folder)
    if store is None or State(store.kv).totals.applied_index < index:
        await checkpoints.verify(checkpoint)
        copy = await stores.open_copy(checkpoint.state_path)
        if store is not None:
            store.close()
        store = copy
    return await begin_anew(checkpoints, checkpoint, State(store.kv), oplog), store


async def begin_anew(
    checkpoints: Checkpoints, checkpoint: Checkpoint, state: State, oplog: Log
) -> Checkpoint:
    """Let the log begin behind ``state``, which is that of a received checkpoint.

    A crash at any moment leaves a checkpoint that is marked as received, so recovery does it
    again; the mark goes when all is done.
    """
    index, term = state.totals.applied_index, state.totals.applied_term
    checkpoint = await checkpoints.settle(checkpoint, index, term, received=True)
    if oplog.terms.at(index) != term:
        await oplog.reset(index, term)
    return await checkpoints.settle(checkpoint, index, term, received=False)


# --- the state -------------------------------------------------------------------------------


def _check_reach(state: State, oplog: Log) -> None:
    """The state must not know more than the log."""
    applied_index = state.totals.applied_index
    if applied_index > oplog.last_index:
        raise TideError(
            Code.CORRUPT,
            f"the state has applied the log up to {applied_index}, but the log ends at"
            f" {oplog.last_index}: records that were acknowledged are missing from the log folder."
            " Restore it from a copy, or, when the rest of its group is well, have a new member"
            " take its place: tidefs cluster replace. Nothing was changed",
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
