"""The table of promises: by example, and beside a naive one."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tidefs.metaserver.marks import NOBODY, Marks
from tidefs.metaserver.promises import GENERATION, Promises

A, B, C = 10, 20, 30


def taken(recalls):
    return {recalled.session: recalled.inodes for recalled in recalls}


# --- marks ---------------------------------------------------------------------------------------


def test_marks_are_counted():
    marks = Marks()
    marks.add(A, [1, 2])
    marks.add(A, [1])
    marks.remove(A, [1])
    assert marks.by_others(B, 1)
    assert not marks.by_others(A, 1)
    marks.add(B, [1])
    assert marks.by_others(A, 1)
    marks.remove(A, [1, 2])
    assert not marks.by_others(B, 1)
    marks.remove(B, [1])
    assert not marks


def test_to_nobody_everybody_is_another():
    marks = Marks()
    marks.add(A, [1])
    assert marks.by_others(NOBODY, 1)
    marks.remove(A, [1])
    marks.add(NOBODY, [1])
    assert marks.by_others(A, 1)


# --- promises ------------------------------------------------------------------------------------


def test_what_is_taken_out_is_in_the_way_until_it_is_over():
    table = Promises()
    assert table.promise(A, (1, 2))
    assert table.promise(B, (1,))
    assert not table.is_in_the_way(A, (2,)), "its own"
    assert table.is_in_the_way(A, (1,))
    recalls = table.take(A, (1, 2))
    assert taken(recalls) == {B: (1,)}
    assert table.holders(1) == [A]
    assert table.is_in_the_way(A, (1,))
    assert table.out(A, (1, 2)) == recalls
    assert table.out(B, (1, 2)) == []
    over = []
    recalls[0].then(over.append)
    table.over(recalls[0])
    table.over(recalls[0])
    assert over == recalls
    assert not table.is_in_the_way(A, (1,))
    assert (table.count, table.waiting) == (2, 0)


def test_what_is_promised_behind_a_recall_is_a_new_promise():
    table = Promises()
    table.promise(A, (1,))
    (first,) = table.take(B, (1,))
    assert table.promise(A, (1,))
    table.over(first)
    assert table.holders(1) == [A]
    assert taken(table.take(B, (1,))) == {A: (1,)}


def test_nobody_is_promised_what_another_changes_or_claims():
    table = Promises()
    for marks in (table.changing, table.claiming):
        marks.add(A, [1])
        assert not table.promise(B, (2, 1))
        assert table.holders(2) == [], "all or none"
        assert table.promise(A, (1,)), "its own change is no surprise"
        marks.remove(A, [1])
    assert table.promise(B, (2, 1))


def test_what_is_held_alone_is_held_alone():
    table = Promises()
    table.promise(A, (1, 2))
    assert not table.has_exclusive
    table.claim(A, 1)
    assert not table.promise(B, (1,))
    assert table.promise(B, (2,))
    assert table.promise(A, (1,)), "as before"
    assert table.is_kept_from(B, (2, 1))
    assert table.is_kept_from(NOBODY, (1,))
    assert not table.is_kept_from(A, (1,))
    assert taken(table.take_exclusive(B, (1, 2))) == {A: (1,)}
    assert table.is_kept_from(B, (1,)), "until it is over"
    assert table.out_exclusive(B, (1,)) == table.out(B, (1,))
    assert table.out_exclusive(B, (2,)) == []
    assert table.promise(B, (1,))
    table.over(table.out(B, (1,))[0])
    assert not table.has_exclusive


def test_shared_ones_that_are_out_keep_nobody_from_reading():
    table = Promises()
    table.promise(A, (1, 2))
    table.claim(A, 1)
    table.take(B, (1, 2))
    assert table.is_kept_from(B, (1,))
    assert not table.is_kept_from(B, (2,))


def test_a_session_takes_all_with_it():
    table = Promises()
    table.promise(A, (1, 2, 3))
    table.claim(A, 3)
    table.promise(B, (1,))
    over = []
    for recalled in table.take(C, (2, 3)):
        recalled.then(over.append)
    table.end(A)
    assert len(over) == 1
    assert (table.count, table.waiting, table.has_exclusive) == (1, 0, False)
    assert not table.is_in_the_way(C, (2, 3))
    table.end(A)
    table.end(B)
    assert table.count == 0


def test_what_is_gone_is_forgotten():
    table = Promises()
    table.promise(A, (1, 2))
    table.promise(B, (1,))
    table.forget([1, 7])
    assert (table.count, table.holders(1), table.holders(2)) == (1, [], [A])


def test_the_oldest_shared_ones_make_room():
    table = Promises(most=3 * GENERATION)
    for session in (A, B, C):
        table.promise(session, range(session * 1000, session * 1000 + GENERATION))
    assert table.lacks_room(1)
    table.claim(A, A * 1000)
    found = taken(table.oldest(GENERATION))
    assert found == {A: tuple(range(A * 1000 + 1, A * 1000 + GENERATION)), B: (B * 1000,)}
    assert not table.lacks_room(GENERATION)
    assert table.lacks_room(GENERATION + 1)
    table.promise(A, (A * 1000 + 1,))
    found = taken(table.oldest(2 * GENERATION))
    assert [len(found[session]) for session in (B, C, A)] == [GENERATION - 1, GENERATION, 1]


# --- beside a naive one --------------------------------------------------------------------------

SESSIONS = st.sampled_from([A, B, C])
INODES = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
INODE = st.integers(1, 4)


class Machine(RuleBasedStateMachine):
    """The naive table is a list of (session, inode) that are held, and one of what is out."""

    def __init__(self):
        super().__init__()
        self.table = Promises()
        self.held = []
        self.exclusive = set()
        self.out = []  # (Recalled, its (session, inode) with whether it was exclusive)
        self.marks = []
        self.over = []

    def others(self, session, inodes):
        return [pair for pair in self.held if pair[0] != session and pair[1] in inodes]

    def is_marked(self, session, inodes):
        return any(by != session and inode in inodes for _, by, inode in self.marks)

    def note_taken(self, recalls, expected):
        pairs = [(one.session, inode) for one in recalls for inode in one.inodes]
        assert sorted(pairs) == sorted(expected)
        assert len({one.session for one in recalls}) == len(recalls)
        for one in recalls:
            assert one.exclusive == {i for i in one.inodes if (one.session, i) in self.exclusive}
            one.then(self.over.append)
            self.out.append(one)
        self.held = [pair for pair in self.held if pair not in pairs]
        self.exclusive -= set(pairs)

    @rule(session=SESSIONS, inodes=INODES)
    def promise(self, session, inodes):
        kept = any(by != session and inode in inodes for by, inode in self.exclusive)
        may = not kept and not self.is_marked(session, inodes)
        assert self.table.promise(session, inodes) == may
        for inode in inodes if may else ():
            if (session, inode) not in self.held:
                self.held.append((session, inode))

    @rule(session=SESSIONS, inode=INODE)
    def claim(self, session, inode):
        in_the_way = self.others(session, (inode,)) or any(
            one.session != session and inode in one.inodes for one in self.out
        )
        assert self.table.is_in_the_way(session, (inode,)) == bool(in_the_way)
        changed = any(by != session and at == inode for kind, by, at in self.marks if kind == 0)
        if not in_the_way and not changed:
            self.table.claim(session, inode)
            self.exclusive.add((session, inode))
            if (session, inode) not in self.held:
                self.held.append((session, inode))

    @rule(session=SESSIONS, inodes=INODES)
    def take(self, session, inodes):
        self.note_taken(self.table.take(session, inodes), self.others(session, inodes))

    @rule(session=SESSIONS, inodes=INODES)
    def take_exclusive(self, session, inodes):
        expected = [pair for pair in self.others(session, inodes) if pair in self.exclusive]
        self.note_taken(self.table.take_exclusive(session, inodes), expected)

    @rule(count=st.integers(1, 4))
    def take_oldest(self, count):
        shared = [pair for pair in self.held if pair not in self.exclusive]
        recalls = self.table.oldest(count)
        found = [(one.session, inode) for one in recalls for inode in one.inodes]
        assert len(found) == min(count, len(shared))
        assert set(found) <= set(shared)
        self.note_taken(recalls, found)

    @precondition(lambda self: self.out)
    @rule(which=st.integers(0, 9))
    def answer(self, which):
        one = self.out.pop(which % len(self.out))
        self.table.over(one)
        assert self.over.pop() is one

    @rule(session=SESSIONS)
    def end(self, session):
        ended = [one for one in self.out if one.session == session]
        self.table.end(session)
        assert self.over == ended
        self.over.clear()
        self.out = [one for one in self.out if one.session != session]
        self.held = [pair for pair in self.held if pair[0] != session]
        self.exclusive = {pair for pair in self.exclusive if pair[0] != session}

    @rule(inode=INODE)
    def forget(self, inode):
        self.table.forget([inode])
        self.held = [pair for pair in self.held if pair[1] != inode]
        self.exclusive = {pair for pair in self.exclusive if pair[1] != inode}

    @rule(kind=st.integers(0, 1), session=SESSIONS, inode=INODE)
    def mark(self, kind, session, inode):
        (self.table.changing, self.table.claiming)[kind].add(session, (inode,))
        self.marks.append((kind, session, inode))

    @precondition(lambda self: self.marks)
    @rule(which=st.integers(0, 9))
    def unmark(self, which):
        kind, session, inode = self.marks.pop(which % len(self.marks))
        (self.table.changing, self.table.claiming)[kind].remove(session, (inode,))

    @invariant()
    def same(self):
        assert self.table.count == len(self.held)
        assert self.table.waiting == len(self.out)
        out_exclusive = [one for one in self.out if one.exclusive]
        assert self.table.has_exclusive == bool(self.exclusive or out_exclusive)
        for inode in range(1, 5):
            assert self.table.holders(inode) == sorted(s for s, i in self.held if i == inode)
            for session in (A, B, C, NOBODY):
                others = [one for one in self.out if one.session != session]
                found = [one for one in others if inode in one.inodes]
                assert self.table.out(session, (inode,)) == found
                kept = [one for one in others if inode in one.exclusive]
                assert self.table.out_exclusive(session, (inode,)) == kept
                alone = any(i == inode and s != session for s, i in self.exclusive)
                assert self.table.is_kept_from(session, (inode,)) == bool(alone or kept)
                in_the_way = bool(found or self.others(session, (inode,)))
                assert self.table.is_in_the_way(session, (inode,)) == in_the_way


def test_the_table_is_as_a_naive_one():
    run_state_machine_as_test(Machine, settings=settings(stateful_step_count=40))
