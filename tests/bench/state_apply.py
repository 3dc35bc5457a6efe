"""How long the state machine takes for an entry, on the in-memory store: microseconds each."""

import sys
import time

from tidefs.fs.attributes import Kind
from tidefs.fs.codec import pack, unpack
from tidefs.fs.messages.base import Request
from tidefs.fs.messages.meta import Commit, Create, Patch, Rename, SetAttributes, Unlink
from tidefs.metaserver.entries import Entry, FormatCluster, StartSession
from tidefs.metaserver.kv_memory import MemoryKeyValue
from tidefs.metaserver.state import State


class Bench:
    """A formatted state with one session."""

    def __init__(self) -> None:
        self.state = State(MemoryKeyValue())
        self.index = 0
        self.session = 0
        self.run("format", [(FormatCluster("bench", 1, 0o755, 0, 0), b"")], say=False)
        self.run("session", [(StartSession(bytes(16), "here", 1), b"")], say=False)
        self.session = 2

    def run(self, what: str, requests: list[tuple[Request, bytes]], say: bool = True) -> None:
        """Apply the requests, each as one entry, and print what one took."""
        entries = []
        for request, payload in requests:
            self.index += 1
            fields = unpack(pack(request))
            method = request.METHOD
            session, now = self.session, 10**18 + self.index
            entry = Entry(self.index, 1, now, session, 0, self.index, method, fields, payload)
            entries.append(entry)
        start = time.perf_counter()
        for entry in entries:
            applied = self.state.apply(entry)
            assert not isinstance(applied.reply, Exception), applied.reply
        taken = time.perf_counter() - start
        if say:
            sys.stdout.write(f"{what:24} {taken / len(entries) * 1e6:8.1f} us\n")

    def precheck(self, what: str, requests: list[Request]) -> None:
        """The same for the leader's check before it proposes."""
        prepared = [(request.METHOD, unpack(pack(request))) for request in requests]
        start = time.perf_counter()
        for method, fields in prepared:
            self.state.precheck(method, fields)
        taken = time.perf_counter() - start
        sys.stdout.write(f"{what:24} {taken / len(prepared) * 1e6:8.1f} us\n")


def main(count: int) -> None:
    """Create, fill, rename, set attributes of and unlink ``count`` files in one directory."""
    bench = Bench()
    names = [f"file{number:07}".encode() for number in range(count)]
    creates = [Create(1, name, Kind.FILE, 0o644, 0, 0, 0, True, True) for name in names]
    bench.precheck("precheck create", creates)
    bench.run("create", [(create, b"") for create in creates])
    inodes = range(2, 2 + count)
    content = bytes(1000)
    bench.run(
        "commit 1000 bytes inline",
        [(Commit(i, 1000, None, [Patch(0, 1000)], [], 0, False), content) for i in inodes],
    )
    bench.run("set attributes", [(SetAttributes(i, mtime_ns=7), b"") for i in inodes])
    bench.run("rename", [(Rename(1, name, 1, name + b".new", 0), b"") for name in names])
    bench.run("unlink", [(Unlink(1, name + b".new"), b"") for name in names])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
