"""What a metaserver wants of its group: changes made, reads confirmed, members changed.

All of it is done by the loop in ``loop.py``; nothing here touches the core but through that.
"""

from collections.abc import Callable, Sequence
from typing import Any

import trio

from ..fs.codec import Buffer
from ..fs.errors import Code, TideError
from ..fs.ids import ServerId, server_name
from ..fs.messages.base import Message, Request
from ..fs.messages.places import ServerPlace
from .checkpoint import Checkpoint
from .loop import Loop
from .oplog import Log
from .proposing import OWN, DoneCallback, Origin, Proposal
from .raft.contract import Core, Envelope
from .state import State
from .store import Store

RETRY_READ_MS = 20


class Driver(Loop):
    """The part of one member in its group, as the rest of the metaserver knows it."""

    # --- what is known -----------------------------------------------------------------------

    @property
    def term(self) -> int:
        return self._core.term

    @property
    def core(self) -> Core:
        """To look at, never to call what changes it."""
        return self._core

    @property
    def oplog(self) -> Log:
        """To look at."""
        return self._log

    @property
    def state(self) -> State:
        """As far as it is applied. A new object after a snapshot was installed."""
        return self._applier.state

    @property
    def applied_count(self) -> int:
        """Entries that were applied since the start."""
        return self._applier.applied_count

    @property
    def store(self) -> Store:
        """That of the state."""
        return self._applier.store

    @property
    def send(self) -> Callable[[Sequence[Envelope]], None]:
        """Gets the messages for other members, Appends with their records. Must not block."""
        return self._feeder.send

    @send.setter
    def send(self, send: Callable[[Sequence[Envelope]], None]) -> None:
        self._feeder.send = send

    def lease_holds(self) -> bool:
        """Whether nobody else can lead, and the state has all that is committed, so that it answers
        strong reads: a follower may have shown already what is committed and not yet applied here.
        """
        return (
            self._clock.monotonic_ns() < self._core.lease_until_ns
            and self._applier.applied_index >= self._core.commit_index
            and self._applier.state.totals.applied_term == self._core.term
        )

    # --- proposing ---------------------------------------------------------------------------

    def propose(
        self,
        request: Request[Any],
        done: DoneCallback,
        *,
        payload: Buffer = b"",
        origin: Origin = OWN,
    ) -> None:
        """Put a change into the log; ``done`` is called once, in the driver's task.

        NO_SPACE is raised at once when the disk has no room for it. ``done`` gets NOT_LEADER when
        another member leads, or leads before it is known what becomes of the change: who sends it
        again, to that one, with the same origin, gets the answer.
        """
        if self.space is not None:
            self.space.check(request)
        self._proposals.waiting.append(Proposal(request, payload, origin, done))
        self._wake.set()

    async def perform(self, request: Request[Any]) -> Message:
        """Propose a change of the leader's own, and wait for its reply."""
        finished = trio.Event()
        outcome: list[Message | TideError] = []

        def done(reply: Message | TideError, index: int) -> None:
            outcome.append(reply)
            finished.set()

        self.propose(request, done)
        await finished.wait()
        if isinstance(outcome[0], TideError):
            raise outcome[0]
        return outcome[0]

    # --- messages, and what else is asked of the core ----------------------------------------

    def deliver(self, envelope: Envelope) -> None:
        """A message from another member came in."""
        self._inbox.append(envelope)
        self._wake.set()

    async def _call(self, call: Callable[[int], None]) -> None:
        """Have ``call`` done in the driver's task; its TideError is raised here."""
        finished = trio.Event()
        failed: list[TideError] = []

        def perform(now_ns: int) -> None:
            try:
                call(now_ns)
            except TideError as error:
                failed.append(error)
            finished.set()

        self._calls.append(perform)
        self._wake.set()
        await finished.wait()
        if failed:
            raise failed[0]

    async def change_members(
        self, voters: Sequence[int], learners: Sequence[int], places: Sequence[ServerPlace]
    ) -> None:
        """As ``Core.change_members``; returns when it is committed, and joint no more.

        NOT_LEADER also when it is not known what becomes of it.
        """
        await self._call(lambda now_ns: self._core.change_members(voters, learners, places, now_ns))
        term = self._core.term
        await self.until(lambda: self._is_settled() or self._core.term != term or not self.leads())
        now = self._core.configuration
        if not self._is_settled() or sorted(now.voters) != sorted(voters):
            raise self._not_leader()

    def _is_settled(self) -> bool:
        """Whether no change of members is under way."""
        return (
            not self._core.configuration.voters_before
            and self._log.last_members_index <= self._core.commit_index
        )

    async def transfer(self, server: int) -> None:
        """Have another voter lead, 0: whoever has most of the log. Returns when it does.

        UNAVAILABLE when it does not within the time of an election.
        """
        server = server or self._most_advanced()
        await self._call(lambda now_ns: self._core.transfer(server, now_ns))
        with trio.move_on_after(2 * self._patience_s):
            await self.until(lambda: self._core.leader == server)
            return
        name = server_name(ServerId(server))
        raise TideError(
            Code.UNAVAILABLE,
            f"metaserver {name} has not taken over; look at its status, and try again",
        )

    def _most_advanced(self) -> int:
        """The other voter that has most of the log. NOT_LEADER, INVALID when there is none."""
        if not self.leads():
            raise self._not_leader()
        voters = self._core.configuration.voters
        found = {one: known for one, known in self._core.progress().items() if one in voters}
        if not found:
            raise TideError(Code.INVALID, "there is no other voter in the group to lead it")
        return max(found, key=lambda one: found[one].match_index)

    # --- waiting -----------------------------------------------------------------------------

    async def wait_leading(self) -> int:
        """Until this member leads and its state has all that earlier leaders answered: the term."""
        await self.until(self._is_serving)
        return self._term

    async def wait_not_leading(self, term: int) -> None:
        """Until this member does not lead that term (any more)."""
        await self.until(lambda: self._term != term)

    async def confirm(self) -> None:
        """Returns when a strong read may be answered from ``state``: at once with the lease, else
        when consensus has told what must be applied before. Any member may ask.

        NOT_LEADER or UNAVAILABLE when that could not be had in the time of an election.
        """
        if self.lease_holds():
            return
        with trio.move_on_after(self._patience_s):
            while True:
                question = self._reads.join()
                self._wake.set()
                await question.answered.wait()
                if question.good:
                    return
                await trio.sleep(RETRY_READ_MS / 1000)
        if self._core.leader and not self.leads():
            raise self._not_leader()
        raise TideError(
            Code.UNAVAILABLE, "no majority of the metaservers can be reached from this one"
        )

    def _is_serving(self) -> bool:
        return self._term > 0 and self._applier.state.totals.applied_term == self._term

    # --- around it ---------------------------------------------------------------------------

    async def install(self, checkpoint: Checkpoint) -> None:
        """Let a checkpoint that was received take the place of state and log. Nothing happens when
        this member knows as much already."""
        manifest = checkpoint.manifest
        if self._core.wants_snapshot(manifest.index, manifest.term):
            store = await self._stores.open_copy(checkpoint.state_path)
            installed = trio.Event()
            self._snapshots.append((checkpoint, store, installed))
            self._wake.set()
            await installed.wait()
        else:
            await self._checkpoints.settle(
                checkpoint, manifest.index, manifest.term, received=False
            )

    def drop_log_before(self, index: int) -> None:
        """Records before ``index`` are in a checkpoint, and may go."""
        self._log_needed_from = index
        self._wake.set()

    def commit(self) -> None:
        """Let the working copy keep what was applied. A failure loses nothing: the log has it."""
        self._applier.commit()

    def close(self) -> None:
        """Give everything back, when ``run`` has ended."""
        self._applier.commit()
        self._applier.store.close()
        self._log.close()
        self._hard_state.close()
