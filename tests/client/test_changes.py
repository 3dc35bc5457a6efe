"""The way of changed bytes: none is lost, none is counted wrong, whatever fails."""

from hypothesis import given
from hypothesis import strategies as st
from tidefs.client.changes import Account, Changes
from tidefs.client.intervals import IntervalSet

SIZE = 30
ranges = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).filter(
    lambda pair: pair[0] < pair[1]
)
steps = st.one_of(
    st.tuples(
        st.sampled_from(["write", "take", "arrived", "failed", "redo", "drop"]),
        ranges,
    ),
    st.tuples(st.sampled_from(["begin_commit", "commit_done", "commit_failed"]), st.none()),
)


class Model:
    """For each byte: the newest value, and which values are where."""

    def __init__(self):
        self.account = Account()
        self.changes = Changes(self.account)
        self.value = [0] * SIZE
        self.pushing = {}
        self.stored = {}  # on chunkservers
        self.committed = [0] * SIZE
        self.in_commit = {}
        self.counter = 0

    def write(self, start, end):
        self.counter += 1
        self.changes.write(start, end)
        self.value[start:end] = [self.counter] * (end - start)

    def take(self, start, end):
        for begin, stop in self.changes.dirty.within(start, end):
            for first, last in IntervalSet(self.changes.pushing).gaps(begin, stop):
                self.changes.take(first, last)
                self.pushing |= {at: self.value[at] for at in range(first, last)}

    def arrived(self, start, end):
        for begin, stop in self.changes.pushing.within(start, end):
            self.changes.arrived(begin, stop)
            for at in range(begin, stop):
                self.stored[at] = self.pushing.pop(at)

    def failed(self, start, end):
        for begin, stop in self.changes.pushing.within(start, end):
            self.changes.failed(begin, stop)
            for at in range(begin, stop):
                del self.pushing[at]

    def redo(self, start, end):
        """Whatever of this was stored and not committed is gone."""
        self.changes.redo(start, end)
        for at in range(start, end):
            self.stored.pop(at, None)
            self.in_commit.pop(at, None)

    def drop(self, start, end):
        self.changes.drop(start, end)
        for at in range(start, end):
            for where in (self.pushing, self.stored, self.in_commit):
                where.pop(at, None)
            self.value[at] = self.committed[at]

    def begin_commit(self):
        if not self.changes.committing:
            self.changes.begin_commit()
            self.in_commit, self.stored = self.stored, {}

    def commit_done(self):
        self.changes.commit_done()
        for at, value in self.in_commit.items():
            self.committed[at] = value
        self.in_commit = {}

    def commit_failed(self):
        self.changes.commit_failed()
        self.stored = self.in_commit | self.stored
        self.in_commit = {}

    def check(self):
        changes = self.changes
        assert self.account.bytes == changes.bytes
        for at in range(SIZE):
            pinned = changes.pinned(at, at + 1)
            assert pinned or self.value[at] == self.committed[at], "a change was forgotten"
            if not changes.dirty.covers(at, at + 1) and pinned:
                newest = self.pushing.get(at, self.stored.get(at, self.in_commit.get(at)))
                assert newest == self.value[at], "an old value passes for the new one"
        assert changes.end == changes.pinned_ranges().end
        assert bool(changes) == bool(changes.pinned_ranges())


@given(st.lists(steps, max_size=30))
def test_no_byte_is_lost(script):
    model = Model()
    for name, pair in script:
        getattr(model, name)(*(pair or ()))
        model.check()


def test_what_is_done_again_is_counted():
    changes = Changes(Account())
    changes.write(0, 10)
    changes.take(0, 10)
    changes.arrived(0, 10)
    assert changes.redone == 0
    changes.redo(5, 20)
    assert changes.redone == 1
    assert list(changes.dirty) == [(5, 10)]
