"""kill -9 of the metaserver that leads a cluster of this machine; it is started again meanwhile."""

import os
import signal
import threading
from contextlib import suppress

from ..fs.errors import TideError
from ..fs.ports.clock import Clock
from .ask import Asker, asking
from .cluster import Cluster, open_cluster
from .exits import Exit, Failure
from .folder import Say, locked
from .members import Lookout
from .processes import pid_of_server, wait_for_end
from .target import lookout_of

KILL_EVERY_MS = 4_000
"""Now and then: not sooner after the one before, so that a step may also meet a healthy group."""
END_MAX_MS = 10_000


class NoKills:
    """Nothing happens to the servers."""

    def kill_leader(self) -> None:
        """Whoever wants that has to ask for it on the command line."""
        raise AssertionError("nobody may be killed")

    def now_and_then(self) -> bool:
        """Never."""
        return False


class LeaderKills:
    """Kills, and starts again in a thread, so that the next step meets a group without a leader."""

    def __init__(self, cluster: Cluster, clock: Clock, say: Say) -> None:
        self._cluster = cluster
        self._clock = clock
        self._say = say
        self._last_ns = clock.monotonic_ns()
        self._start: threading.Thread | None = None
        self._trouble: Failure | TideError | None = None
        self.count = 0

    def now_and_then(self) -> bool:
        """Kill the leader if the last time is long enough ago; whether it was done."""
        if self._clock.monotonic_ns() - self._last_ns < KILL_EVERY_MS * 1_000_000:
            return False
        self.kill_leader()
        return True

    def kill_leader(self) -> None:
        """Failure: nobody leads, or the one killed before did not start again."""
        self.wait()
        name, pid = self._leader()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_for_end([pid], END_MAX_MS)
        self.count += 1
        self._start = threading.Thread(target=self._bring_back, args=[name])
        self._start.start()
        self._last_ns = self._clock.monotonic_ns()

    def wait(self) -> None:
        """Until whoever was killed runs again; Failure when it does not."""
        if self._start is not None:
            self._start.join()
            self._start = None
        if self._trouble is not None:
            raise self._trouble

    def _leader(self) -> tuple[str, int]:
        """Name and process id, asked of the members themselves."""

        async def ask(asker: Asker) -> int:
            lookout: Lookout = lookout_of(self._cluster, asker)
            leader = (await lookout.wait_leader()).leader
            assert leader is not None
            return leader.server

        server = asking(self._cluster.file.cluster, ask)
        for member in self._cluster.file.members:
            if member.server == server:
                pid = pid_of_server(member.role, self._cluster.home(member))
                if pid is not None:
                    return member.name, pid
        raise Failure(
            Exit.WRONG,
            f"the leader is no process of {self._cluster.folder}: `tidefs cluster status` says who",
        )

    def _bring_back(self, name: str) -> None:
        folder = self._cluster.folder
        try:
            with locked(folder, self._say):
                open_cluster(folder).start(lambda text: None, only=[name])
        except (Failure, TideError) as error:
            self._trouble = error
