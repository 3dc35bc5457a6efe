"""The group of metaservers in GetStatus: the state of each, and what is wrong, in words. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from ..fs.messages.raft import Configuration
from .members_plan import name_of
from .raft.contract import Progress

DOWN_AFTER_NS = 2 * 10**9
FAR_BEHIND_ENTRIES = 10_000
_SECOND_NS = 10**9


class GroupView(NamedTuple):
    """What a leader knows of its group at a moment."""

    server: int  # its own id
    configuration: Configuration
    progress: Mapping[int, Progress]
    last_index: int  # of its log
    led_since_ns: int
    now_ns: int

    def members(self) -> list[int]:
        """All of them, those that leave as well."""
        now = self.configuration
        return list(dict.fromkeys([*now.voters, *now.voters_before, *now.learners]))

    def is_down(self, server: int) -> bool:
        """Silent for too long. A new leader gives everybody the time to answer once."""
        return server != self.server and self._silent_ns(server) > DOWN_AFTER_NS

    def _silent_ns(self, server: int) -> int:
        progress = self.progress.get(server)
        heard_ns = progress.heard_ns if progress is not None else 0
        return self.now_ns - max(heard_ns, self.led_since_ns)

    def state_of(self, server: int) -> str:
        """For ServerStatus."""
        if server == self.server:
            return "leader"
        if self.is_down(server):
            return "down"
        return "learner" if server in self.configuration.learners else "follower"

    def problems(self) -> list[str]:
        """Sentences for a person."""
        found = [sentence for server in self.members() for sentence in self._problems_of(server)]
        voters = self.configuration.voters
        up = sum(not self.is_down(server) for server in voters)
        if up < len(voters) and up - 1 < len(voters) // 2 + 1:
            found.append(
                f"{up} of {len(voters)} metaservers are up: if one more goes down, nothing can be"
                " read or changed until one of them is back"
            )
        return found

    def _problems_of(self, server: int) -> list[str]:
        hosts = {place.server: place.host for place in self.configuration.places}
        name = name_of(server, hosts.get(server, ""))
        if server == self.server:
            return []
        if self.is_down(server):
            seconds = self._silent_ns(server) // _SECOND_NS
            return [f"{name} is down: it has not been heard of for {seconds} s"]
        found = []
        progress = self.progress.get(server)
        if progress is not None and progress.needs_snapshot:
            found.append(f"{name} has fallen behind the log, and is being sent a checkpoint")
        elif progress is not None and progress.heard_ns:
            behind = self.last_index - progress.match_index
            if behind > FAR_BEHIND_ENTRIES:
                found.append(f"{name} is {behind} entries behind the leader")
        if server in self.configuration.learners:
            found.append(
                f"{name} has the log and no vote: what added it has not come to its end; repeat"
                " that, or remove it"
            )
        return found
