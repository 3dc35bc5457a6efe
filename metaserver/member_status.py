"""GetMember and GetMetrics: one member as it sees itself and the group."""

import msgspec

from ..fs.messages.places import ServerPlace
from ..fs.messages.raft import Configuration, MemberStatus, Metrics
from ..fs.ports.clock import Clock
from .config import MetaserverConfig
from .driver import Driver
from .raft.contract import Role
from .recalls import RecallFigures
from .snapshots import SnapshotSender
from .upkeep import Upkeep

JOINING = "joining"
REMOVED = "removed"
NEVER_MS = -1


class MemberView:
    """What a member tells about itself, whether it leads or not."""

    def __init__(
        self,
        config: MetaserverConfig,
        driver: Driver,
        upkeep: Upkeep,
        sender: SnapshotSender,
        clock: Clock,
        addresses: list[str],
        pid: int,
    ) -> None:
        self.server = config.server
        self.recalls = RecallFigures()
        self._config = config
        self._driver = driver
        self._upkeep = upkeep
        self._sender = sender
        self._clock = clock
        self.pid = pid
        self._places = {place.server: place for place in config.places}
        self._places.setdefault(self.server, ServerPlace(self.server, config.host, addresses))

    def host_of(self, server: int) -> str:
        """The name of a member's machine, as far as it is known."""
        return next((p.host for p in self.configuration().places if p.server == server), "")

    def configuration(self) -> Configuration:
        """The one in force, with the addresses that this member's own file knows better."""
        now = self._driver.core.configuration
        places = [self._places.get(place.server, place) for place in now.places]
        return msgspec.structs.replace(now, places=places)

    def status(self) -> MemberStatus:
        """As it is now."""
        driver, core = self._driver, self._driver.core
        return MemberStatus(
            cluster=self._config.cluster,
            server=self.server,
            host=self._config.host,
            pid=self.pid,
            role=self._role(),
            term=core.term,
            leader=core.leader,
            commit_index=core.commit_index,
            applied_index=driver.state.totals.applied_index,
            first_index=driver.oplog.first_index,
            last_index=driver.oplog.last_index,
            checkpoint_index=self._upkeep.checkpoint_index,
            snapshot_ns=self._upkeep.checkpoint_ns,
            elections=core.elections,
            configuration=self.configuration(),
            lag=self._lag(),
            spare_bytes=driver.space.room().spare_bytes if driver.space is not None else 0,
        )

    def metrics(self) -> Metrics:
        """Of this process; docs/operations.md says what each is."""
        core, totals = self._driver.core, self._driver.state.totals
        behind = [core.next_index - 1 - found.match_index for found in core.progress().values()]
        age_ns = self._clock.wall_ns() - self._upkeep.checkpoint_ns
        values: dict[str, float] = {
            "raft_term": core.term,
            "raft_leads": core.role is Role.LEADER,
            "raft_commit_index": core.commit_index,
            "raft_applied_index": totals.applied_index,
            "raft_elections_total": core.elections,
            "raft_lag_max": max(behind, default=0),
            "log_first_index": self._driver.oplog.first_index,
            "log_last_index": self._driver.oplog.last_index,
            "log_syncs_total": self._driver.oplog.syncs,
            "entries_applied_total": self._driver.applied_count,
            "locks_held": totals.locks_held,
            "locks_waiting": totals.locks_waiting,
            **self.recalls.values(leads=core.role is Role.LEADER),
            "checkpoint_index": self._upkeep.checkpoint_index,
            "checkpoint_age_s": age_ns // 10**9 if self._upkeep.checkpoint_ns else -1,
            "snapshots_sent_total": self._sender.sent_count,
            "snapshots_installed_total": self._upkeep.installed_count,
        }
        return Metrics([(name, float(value)) for name, value in values.items()])

    def _role(self) -> str:
        core, now = self._driver.core, self._driver.core.configuration
        if self.server in now.removed:
            return REMOVED
        if core.role is not Role.LEADER and not now.voters:
            return JOINING
        return core.role.value

    def _lag(self) -> list[tuple[int, int, int]]:
        now_ns = self._clock.monotonic_ns()
        return [
            (
                server,
                progress.match_index,
                (now_ns - progress.heard_ns) // 10**6 if progress.heard_ns else NEVER_MS,
            )
            for server, progress in sorted(self._driver.core.progress().items())
        ]
