"""From what a data folder holds to a member of the group that runs: its core and its driver."""

import logging

from ..fs.errors import Code, TideError
from ..fs.limits import CLOCK_DRIFT_MS, CLOCK_DRIFT_PARTS
from ..fs.messages.raft import Configuration
from ..fs.ports import Ports
from .config import MetaserverConfig
from .driver import Driver
from .hard_state import HardStateFile
from .raft.contract import Begin, HardState, Timing
from .raft.core import Member
from .recovery import Recovered
from .space import SpaceGuard

log = logging.getLogger(__name__)

MS_NS = 10**6


async def start_driver(
    config: MetaserverConfig, ports: Ports, recovered: Recovered, founders: Configuration
) -> Driver:
    """A driver that is ready to ``run``; it takes over what was recovered, also when this fails.

    ``founders``: what ``open_folder`` tells, in force as long as neither state nor log know of
    another configuration. CORRUPT when term and vote are not what they were.
    """
    try:
        hard_state = await HardStateFile.open(ports.disk)
        try:
            begin = await _begin(config, ports, recovered, hard_state, founders)
            driver = Driver(Member(begin), recovered, hard_state, ports.clock, begin.timing)
        except BaseException:
            hard_state.close()
            raise
    except BaseException:
        recovered.store.close()
        recovered.oplog.close()
        raise
    driver.space = SpaceGuard(ports.disk, ports.clock, config.data)
    return driver


async def _begin(
    config: MetaserverConfig,
    ports: Ports,
    recovered: Recovered,
    hard_state: HardStateFile,
    founders: Configuration,
) -> Begin:
    group = recovered.state.tables.servers.group()
    applied_index = recovered.state.totals.applied_index
    begin = Begin(
        server=config.server,
        hard_state=hard_state.state,
        terms=recovered.oplog.terms,
        applied_index=applied_index,
        configuration=group or founders,
        later=[pair for pair in recovered.oplog.configurations if pair[0] > applied_index],
        timing=timing_of(config),
        now_ns=ports.clock.monotonic_ns(),
        below=ports.randomness.below,
        logged=group is not None,
    )
    found = await _checked(hard_state, recovered.oplog.last_term, begin)
    return begin._replace(hard_state=found)


async def _checked(file: HardStateFile, last_term: int, begin: Begin) -> HardState:
    """The log knows terms too: those of a hard state that is older were promised and forgotten.

    Alone in its group, a member promised nobody anything, and goes on behind the log's term.
    """
    if last_term <= file.state.term:
        return file.state
    known = [begin.configuration, *(configuration for _, configuration in begin.later)]
    if any([*one.voters, *one.voters_before] != [begin.server] for one in known):
        raise TideError(
            Code.CORRUPT,
            f"hard_state is of term {file.state.term}, but the log has records of term {last_term}:"
            " it was lost, or is an old copy, and this server could vote twice. When the rest of"
            " the group is well, have a new member take its place: tidefs cluster replace",
        )
    log.warning("hard_state is older than the log: going on behind term %d", last_term)
    found = HardState(last_term, 0)
    await file.store(found)
    return found


def timing_of(config: MetaserverConfig) -> Timing:
    """What consensus is told of patience."""
    return Timing(
        heartbeat_ns=config.raft_heartbeat * MS_NS,
        election_min_ns=config.election_timeout * MS_NS,
        drift_parts=CLOCK_DRIFT_PARTS,
        drift_ns=CLOCK_DRIFT_MS * MS_NS,
    )
