"""Products broken on purpose, to see that the simulator sees it.

The product's files are as they are: an acknowledgement is given too early through the ports, or a
method is replaced for as long as a run lasts.
"""

from typing import Any

from tidefs.fs.messages.raft import RequestVote
from tidefs.metaserver.driver import Driver
from tidefs.metaserver.keys import SLOT
from tidefs.metaserver.kv_memory import MemoryKeyValue
from tidefs.metaserver.raft.contract import HardState
from tidefs.metaserver.raft.core import Member
from tidefs.metaserver.store_memory import MemoryStore

from .cluster import Lies
from .mutation import Mutation, patching
from .mutations_locks import BROKEN_LOCKS
from .mutations_mounts import BROKEN_MOUNTS
from .options import Patience
from .watched_disk import NEVER, Lie


def late_below(folders: str | tuple[str, ...], delay_s: float) -> Lie:
    """Syncs of files in these folders are done so long after they returned."""
    return lambda path: delay_s if path.startswith(folders) else 0.0


# --- consensus, broken -------------------------------------------------------------------------


def _votes_twice(asked: Any) -> Any:
    """Whom it gave its vote in this term is forgotten as soon as somebody else asks."""

    def asked_for_vote(self: Member, sender: int, message: RequestVote) -> None:
        if not message.pre and message.term == self.term and self._leading is None:
            self._hard_state = HardState(self.term, 0)
            self._leader = 0
        asked(self, sender, message)

    return asked_for_vote


def _commits_old_terms(_commit_agreed: Any) -> Any:
    """What a majority has is committed, of whatever term it is (Raft figure 8)."""

    def commit_agreed(self: Member) -> None:
        assert self._leading is not None
        agreed = self._leading.agreed_index()
        if agreed > self._commit_index:
            self._commit(agreed)
            self._leading_committed()

    return commit_agreed


def _reads_without_lease(_confirm: Any) -> Any:
    async def confirm(self: Driver) -> None:
        """Whatever it knows is good enough."""

    return confirm


def _forgets_replies(copy_to: Any) -> Any:
    """The table of slots is not in the snapshot."""

    async def copy_without_slots(self: MemoryStore, path: str) -> None:
        kept = MemoryKeyValue()
        for key, value in self.kv.scan(b""):
            if not key.startswith(SLOT):
                kept.put(key, value)
        await copy_to(MemoryStore(self._disk, kept), path)

    return copy_without_slots


NO_LOCKS = {"lock_callers": 0, "lockers": 0, "counters": 0, "appenders": 0}
GROUP = {"members": 3, "callers": 3, "clients": 0, "applications": 0, "rivals": 0} | {
    "chunkservers": 0,
    **NO_LOCKS,
}
"""Nothing but metaservers and who asks them."""

MUTATIONS: dict[str, Mutation] = {
    "metaserver-replies-early": Mutation(Lies(metaserver=late_below("log/", 0.02))),
    "metaserver-never-syncs": Mutation(Lies(metaserver=late_below("log/", NEVER))),
    "chunkserver-replies-early": Mutation(Lies(chunkserver=late_below("chunks/", 10.0))),
    "client-closes-early": Mutation(Lies(close_publishes_late=True)),
    "votes-twice": Mutation(
        patched=patching(Member, "_asked_for_vote", _votes_twice),
        options=GROUP | {"faults": ("kill_leader", "crash_metaservers", "weather")},
    ),
    "commits-old-terms": Mutation(
        patched=patching(Member, "_commit_agreed", _commits_old_terms),
        options=GROUP
        | {"pause_max_s": 0.2, "patience": Patience(150, 600)}
        | {"faults": ("crash_new_leader", "crash_new_leader", "kill_leader")},
    ),
    "votes-before-sync": Mutation(
        Lies(metaserver=late_below("hard_state", NEVER)),
        options=GROUP
        | {"pause_max_s": 0.3}
        | {"faults": ("kill_leader", "crash_after_promise", "crash_leader", "cut_leader")},
    ),
    "reads-without-lease": Mutation(
        patched=patching(Driver, "confirm", _reads_without_lease),
        options=GROUP | {"faults": ("cut_leader", "split_members", "pause")},
    ),
    "forgets-replies": Mutation(
        patched=patching(MemoryStore, "copy_to", _forgets_replies),
        options=GROUP | {"faults": ("crash_metaserver", "crash_leader", "weather")},
    ),
    **BROKEN_LOCKS,
    **BROKEN_MOUNTS,
}
