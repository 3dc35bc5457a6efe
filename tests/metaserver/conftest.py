"""A state to try things on: formatted, with one session, checked after every test."""

import pytest
from tidefs.fs.attributes import Kind
from tidefs.fs.codec import pack, unpack
from tidefs.fs.errors import TideError
from tidefs.fs.messages.meta import Create, MakeDirectory
from tidefs.metaserver.check import check
from tidefs.metaserver.entries import Entry, FormatCluster, StartSession
from tidefs.metaserver.kv_memory import MemoryKeyValue
from tidefs.metaserver.state import State

SECOND = 1_000_000_000


class Cluster:
    """A state, and the leader that stamps entries for it. One second passes with each entry."""

    def __init__(self):
        self.state = State(MemoryKeyValue())
        self.index = 0
        self.sequence = 0
        self.effects = []
        self.log = []
        self.apply(FormatCluster("test", 3, 0o755, 10, 20))

    @property
    def now(self):
        return (1_000 + self.index) * SECOND

    def apply(self, request, payload=b"", *, session=0, slot=0, sequence=0):
        """Apply a request as the next entry; its reply, error or not."""
        self.index += 1
        fields = unpack(pack(request))
        return self.apply_entry(
            Entry(
                self.index,
                1,
                self.now,
                session,
                slot,
                sequence,
                request.METHOD,
                fields,
                payload,
            )
        )

    def apply_entry(self, entry):
        self.log.append(entry)
        self._compare_with_precheck(entry)
        applied = self.state.apply(entry)
        if self.expected is not None and entry.session == 0:
            assert isinstance(applied.reply, TideError), "the precheck refused it"
            assert applied.reply.args == self.expected.args
        elif entry.session == 0:
            assert not isinstance(applied.reply, TideError), "the precheck let it pass"
        self.effects = applied.effects
        return applied.reply

    def _compare_with_precheck(self, entry):
        before = self.state.digest()
        self.expected = None
        try:
            self.state.precheck(entry.method, entry.fields, entry.payload)
        except TideError as error:
            self.expected = error
        assert self.state.digest() == before, "a precheck changes nothing"

    def do(self, request, payload=b""):
        """Apply what must succeed."""
        reply = self.apply(request, payload)
        if isinstance(reply, TideError):
            raise reply
        return reply

    def refused(self, request, payload=b""):
        """Apply what must fail; the code. The state is as before, but for its applied index."""
        before = self.everything()
        reply = self.apply(request, payload)
        assert isinstance(reply, TideError), reply
        assert self.effects == []
        assert self.everything() == before
        assert str(reply)
        return reply.code

    def everything(self):
        """All pairs of the store but the totals' and the slots'."""
        return [pair for pair in self.state.tables.kv.scan(b"") if pair[0][:1] not in (b"T", b"r")]

    def session(self, nonce=b"n" * 16):
        return self.do(StartSession(nonce, "host", 7)).session

    def file(self, name=b"file", parent=1, mode=0o644):
        return self.do(Create(parent, name, Kind.FILE, mode, 1, 2, 0, True, False)).attributes.inode

    def directory(self, name=b"dir", parent=1, mode=0o755):
        return self.do(MakeDirectory(parent, name, mode, 1, 2)).attributes.inode

    def check_twin(self):
        """The same entries, applied by another member, give the same bytes."""
        twin = State(MemoryKeyValue())
        for entry in self.log:
            twin.apply(entry)
        assert twin.digest() == self.state.digest()


@pytest.fixture
def new_cluster():
    """What makes one, for tests that need many."""
    return Cluster


@pytest.fixture
def cluster():
    made = Cluster()
    yield made
    assert check(made.state) == []
    made.check_twin()
