"""The lock table against a model that knows every byte: whatever is asked, in whatever order."""

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from tidefs.fs.errors import TideError
from tidefs.fs.limits import LOCK_END
from tidefs.fs.messages.locks import LockKind, SetLock, Unlock, Withdraw
from tidefs.fs.messages.meta import Unlink
from tidefs.metaserver.check import check
from tidefs.metaserver.effects import LocksGranted
from tidefs.metaserver.entries import EndSession, Reap

from .lock_model import LAST, Cell, LockModel, RefusedError, Wish, cells_of

STARTS = st.sampled_from([0, 1, 1, 2, 3, LAST])
LENGTHS = st.sampled_from([1, 1, 2, 3, LOCK_END])
KINDS = st.sampled_from([LockKind.RANGE] * 6 + [LockKind.WHOLE] * 2 + [LockKind.APPEND])
OFTEN = st.sampled_from([True, True, True, False])
SELDOM = st.sampled_from([False] * 7 + [True])


def answered(reply):
    if isinstance(reply, TideError):
        return reply.code
    return ("held", reply.token, reply.after_loss) if reply.token else ("waits", reply.ticket)


class LocksMachine(RuleBasedStateMachine):
    """Three sessions with two owners each, two files."""

    new_cluster = None
    one_wait_each = False
    """Whether an owner asks for nothing while it waits: a process with one thread."""

    def __init__(self):
        super().__init__()
        self.cluster = self.new_cluster()
        self.model = LockModel()
        self.nonces = 0
        self.sequence = 0
        self.sessions = [self.new_session() for _ in range(3)]
        self.names = 0
        self.name_of = {}
        self.inodes = [self.new_file() for _ in range(2)]

    def new_session(self):
        self.nonces += 1
        return self.cluster.session(b"%016d" % self.nonces)

    def new_file(self):
        self.names += 1
        inode = self.cluster.file(b"%d" % self.names)
        self.name_of[inode] = b"%d" % self.names
        return inode

    def apply(self, request, session):
        self.sequence += 1
        self.model.begin(self.cluster.index + 1)
        self.refusal = None
        try:
            fields = [getattr(request, name) for name in request.__struct_fields__]
            self.cluster.state.precheck(request.METHOD, fields, b"", session)
        except TideError as error:
            self.refusal = error.code
        before = self.cluster.everything()
        reply = self.cluster.apply(request, session=session, slot=0, sequence=self.sequence)
        if self.refusal is not None:
            assert reply.code == self.refusal, "what is refused early is refused by apply"
            assert self.cluster.everything() == before, "and leaves no trace"
        return reply

    def told(self):
        """Everybody who was granted what he waited for is told so; nobody else."""
        told = [
            (effect.session, *grant)
            for effect in self.cluster.effects
            if isinstance(effect, LocksGranted)
            for grant in effect.grants
        ]
        assert sorted(told) == sorted(self.model.granted)

    @rule(
        session=st.integers(0, 2),
        owner=st.integers(0, 1),
        inode=st.integers(0, 1),
        kind=KINDS,
        exclusive=st.booleans(),
        start=STARTS,
        length=LENGTHS,
        wait=OFTEN,
    )
    def set_lock(self, session, owner, inode, kind, exclusive, start, length, wait):
        session, inode = self.sessions[session], self.inodes[inode]
        owner += 2 * kind  # one number never means two owners of different kinds here
        end = start + length if start + length <= LAST else LOCK_END
        if kind is not LockKind.RANGE:
            start, end = 0, LOCK_END
        exclusive = exclusive or kind is LockKind.APPEND
        wish = Wish((inode, kind), (session, owner), exclusive, cells_of(start, end))
        if self.one_wait_each and any(one.who == wish.who for one in self.model.queue):
            return
        request = SetLock(inode, kind, owner, exclusive, start, end, wait, 42)
        reply = self.apply(request, session)
        try:
            wanted = self.model.set_lock(wish, wait=wait)
        except RefusedError as refused:
            wanted = refused.code
        assert answered(reply) == wanted
        self.told()

    @rule(data=st.data(), start=STARTS, length=LENGTHS, all_of_it=OFTEN)
    def unlock(self, data, start, length, all_of_it):
        """Of somebody who holds something there, as a rule."""
        held = sorted(at for at, cells in self.model.held.items() if cells)
        held.append(((self.inodes[0], LockKind.RANGE), (self.sessions[0], 2)))
        (inode, kind), (session, owner) = data.draw(st.sampled_from(held))
        if self.one_wait_each and any(
            one.who == (kind, session, owner) for one in self.model.queue
        ):
            return
        end = start + length if start + length <= LAST else LOCK_END
        if kind is not LockKind.RANGE or all_of_it:
            start, end = 0, LOCK_END
        reply = self.apply(Unlock(inode, kind, owner, start, end), session)
        assert not isinstance(reply, TideError)
        self.model.unlock((inode, kind), (session, owner), cells_of(start, end))
        self.told()

    @rule(data=st.data(), session=st.integers(0, 2))
    def withdraw(self, data, session):
        wishes = [(one.place[0], one.ticket, one.owner[0]) for one in self.model.queue]
        wishes += [
            (place[0], cell.ticket, owner[0])
            for (place, owner), cells in self.model.held.items()
            for cell in cells.values()
        ]
        inode, ticket, of = data.draw(st.sampled_from([*wishes, (self.inodes[0], 3, 0)]))
        session = data.draw(st.sampled_from([of, of, of, self.sessions[session]]))
        if session not in self.sessions:
            return
        reply = self.apply(Withdraw(inode, ticket), session)
        tokens = self.model.withdraw(inode, session, ticket)
        assert reply.ticket == 0
        assert reply.token in tokens if tokens else reply.token == 0
        self.told()

    @rule(session=st.integers(0, 2), expired=st.booleans(), really=SELDOM)
    def end_session(self, session, expired, really):
        if not really:
            return
        self.model.begin(self.cluster.index + 1)
        ended = self.sessions[session]
        self.cluster.do(EndSession(ended, expired))
        self.model.end_session(ended, expired=expired)
        self.told()
        self.sessions[session] = self.new_session()

    @rule(at=st.integers(0, 1), really=SELDOM)
    def unlink_and_reap(self, at, really):
        if not really:
            return
        inode = self.inodes[at]
        self.cluster.do(Unlink(1, self.name_of[inode]))
        self.cluster.do(Reap([inode]))
        self.model.reap(inode)
        self.inodes[at] = self.new_file()

    @invariant()
    def same(self):
        held = {}
        for lock in self.cluster.state.tables.locks.all_held():
            cell = Cell(lock.exclusive, lock.token, lock.ticket, lock.after_loss)
            at = (lock.inode, lock.kind), (lock.session, lock.owner)
            for number in cells_of(lock.start, lock.end):
                assert number not in held.setdefault(at, {})
                held[at][number] = cell
        assert held == {at: cells for at, cells in self.model.held.items() if cells}
        waiting = {
            Wish(
                (lock.inode, lock.kind),
                (lock.session, lock.owner),
                lock.exclusive,
                cells_of(lock.start, lock.end),
                lock.ticket,
            )
            for lock in self.cluster.state.tables.locks.all_waiting()
        }
        assert waiting == {*self.model.queue}
        assert {*self.cluster.state.tables.locks.all_lost()} == self.model.lost

    @invariant()
    def sound(self):
        assert not self.model.together()
        assert check(self.cluster.state) == []
        if self.one_wait_each:
            ranges = {who for who in self.model.circles() if who[0] is LockKind.RANGE}
            assert not ranges, "a circle that nobody will ever leave"

    def teardown(self):
        self.cluster.check_twin()


class ProcessesMachine(LocksMachine):
    """Owners with one thread each: then no circle may ever be left."""

    one_wait_each = True


def run(machine, new_cluster):
    machine.new_cluster = new_cluster
    wanted = settings(max_examples=100, stateful_step_count=50, deadline=None)
    run_state_machine_as_test(machine, settings=wanted)


@pytest.mark.timeout(600)  # for the search of a short example, when there is one
def test_any_owners(new_cluster):
    run(LocksMachine, new_cluster)


@pytest.mark.timeout(600)
def test_processes_with_one_thread_each(new_cluster):
    run(ProcessesMachine, new_cluster)
