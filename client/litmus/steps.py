"""What a mount can be asked to do in a litmus test, as data. Pure.

Each action says what it does (``words``, with the mount as the subject: "B reads x"). Doing it may
*see* something: a short text, such as ``new``, ``absent`` or ``2``, that ``classify`` judges later.
"""

from typing import NamedTuple, TypeAlias

from ...fs.limits import KIB

A, B, C, D = range(4)
"""The mounts, as tests and pictures call them."""
NAMES = "ABCD"

BLOCK_BYTES = 4 * KIB
RECORD_BYTES = 64


class File(NamedTuple):
    """One that is there before the first step: blocks that all say ``word``, made by mount A."""

    name: str
    word: str = "old"
    blocks: int = 1
    block_bytes: int = BLOCK_BYTES


class Open(NamedTuple):
    """Open a file that is there. Each mount has one open file of a name at most."""

    file: str
    to_write: bool = False
    to_append: bool = False

    @property
    def words(self) -> str:
        purpose = " to append" if self.to_append else " to write" if self.to_write else ""
        return f"opens {self.file}{purpose}"


class Close(NamedTuple):
    file: str

    @property
    def words(self) -> str:
        return f"closes {self.file}"


class Write(NamedTuple):
    """Overwrite blocks with a word, one write(2) for each."""

    file: str
    word: str
    first: int = 0
    blocks: int = 1

    @property
    def words(self) -> str:
        many = f" in {self.blocks} writes" if self.blocks > 1 else ""
        half = f" into block {self.first + 1}" if self.first else ""
        return f"writes {self.word} to {self.file}{many}{half}"


class Read(NamedTuple):
    """Sees the word that all blocks say, or ``old x3 new x5``."""

    file: str

    @property
    def words(self) -> str:
        return f"reads {self.file}"


class Peek(NamedTuple):
    """Open, read and close, as a program does that looks at a file now and then."""

    file: str

    @property
    def words(self) -> str:
        return f"opens, reads {self.file}"


class Sync(NamedTuple):
    file: str

    @property
    def words(self) -> str:
        return f"fsync of {self.file}"


class Size(NamedTuple):
    """stat(2) by name; sees the size in blocks."""

    file: str

    @property
    def words(self) -> str:
        return f"asks the size of {self.file}"


class Look(NamedTuple):
    """stat(2) by name; sees ``there`` or ``absent``."""

    name: str

    @property
    def words(self) -> str:
        return f"looks for {self.name}"


class Create(NamedTuple):
    name: str

    @property
    def words(self) -> str:
        return f"creates {self.name}"


class Publish(NamedTuple):
    """Write a new file beside it, close it, and rename it over the old one."""

    file: str
    word: str
    blocks: int

    @property
    def words(self) -> str:
        return f"writes another file, renames it to {self.file}"


class Rename(NamedTuple):
    old: str
    new: str

    @property
    def words(self) -> str:
        return f"renames {self.old} to {self.new}"


class Delete(NamedTuple):
    name: str

    @property
    def words(self) -> str:
        return f"deletes {self.name}"


class Append(NamedTuple):
    """Records with the mount's name and a number, to a file that was opened to append."""

    file: str
    records: int

    @property
    def words(self) -> str:
        return f"appends {self.records} records"


class CountRecords(NamedTuple):
    """Sees ``40 records``, all whole and different, or ``torn``."""

    file: str

    @property
    def words(self) -> str:
        return f"counts the records in {self.file}"


class AddOne(NamedTuple):
    """Read a number, and write it back plus one; sees ``0 to 1``."""

    file: str

    @property
    def words(self) -> str:
        return f"adds one to {self.file}"


class Number(NamedTuple):
    """Open, read a number, close; sees it."""

    file: str

    @property
    def words(self) -> str:
        return f"opens, reads {self.file}"


class Lock(NamedTuple):
    """flock(2), exclusive, of an open file; waits for it."""

    file: str

    @property
    def words(self) -> str:
        return f"locks {self.file}"


class TryLock(NamedTuple):
    """The same without waiting; sees ``got it`` or ``refused``."""

    file: str

    @property
    def words(self) -> str:
        return f"tries to lock {self.file}"


class Unlock(NamedTuple):
    file: str

    @property
    def words(self) -> str:
        return f"unlocks {self.file}"


class Map(NamedTuple):
    """mmap(2), shared, of a file that is open for writing."""

    file: str

    @property
    def words(self) -> str:
        return f"maps {self.file} into memory"


class Store(NamedTuple):
    """Change the first block through the mapping."""

    file: str
    word: str

    @property
    def words(self) -> str:
        return f"stores {self.word} in the mapping"


class MapSync(NamedTuple):
    file: str

    @property
    def words(self) -> str:
        return "msync of the mapping"


class Unmap(NamedTuple):
    file: str

    @property
    def words(self) -> str:
        return "unmaps it"


Action: TypeAlias = (
    Open
    | Close
    | Write
    | Read
    | Peek
    | Sync
    | Size
    | Look
    | Create
    | Publish
    | Rename
    | Delete
    | Append
    | CountRecords
    | AddOne
    | Number
    | Lock
    | TryLock
    | Unlock
    | Map
    | Store
    | MapSync
    | Unmap
)


class Step(NamedTuple):
    """Mount ``who`` does ``action``. What it sees is called ``seen`` by who judges it."""

    who: int
    action: Action
    seen: str = ""


class Until(NamedTuple):
    """Mount ``who`` looks again and again until it sees ``wanted``: how long was it stale?

    Only measured, never judged: no mode promises less than the step before it has shown.
    """

    who: int
    action: Action
    wanted: str


class Race(NamedTuple):
    """Each mount does its own steps in their order, all mounts at the same time."""

    steps: tuple[Step, ...]


class KillLeader(NamedTuple):
    """The metaserver that leads is killed (kill -9), and started again meanwhile."""


Part: TypeAlias = Step | Until | Race | KillLeader
