"""The replicated state machine: entries in, replies and effects out; and the reads.

Pure and deterministic: two members that applied the same entries hold the same bytes.
"""

from collections.abc import Iterator

from ..fs.attributes import Attributes
from ..fs.codec import Buffer
from ..fs.messages import meta
from .effects import Applied
from .entries import Entry
from .kv import KeyValue
from .records import ChunkRecord, FileChunk, ServerRecord, SessionRecord, SlotRecord, Totals


class State:
    """All that the cluster has agreed on, in a key-value store."""

    totals: Totals
    """Applied index and term, cluster id, copies wanted, counters. To read, not to change."""

    def __init__(self, kv: KeyValue) -> None:
        """Over what ``kv`` holds; nothing is written before the first entry is applied."""
        raise NotImplementedError

    # --- changes

    def apply(self, entry: Entry) -> Applied:
        """Carry out the entry that follows the last one (asserted: index is applied_index + 1).

        Never raises for anything a client could send: the error is the reply.
        """
        raise NotImplementedError

    def precheck(self, method: int, fields: list[object], payload: Buffer = b"") -> None:
        """Raise what ``apply`` would answer as an error on the state as it is; changes nothing."""
        raise NotImplementedError

    def digest(self) -> int:
        """A checksum of everything: equal on members that applied the same entries."""
        raise NotImplementedError

    # --- the name space (TideError where there is nothing of the kind: see each request)

    def lookup(self, parent: int, name: bytes) -> meta.Entry:
        raise NotImplementedError

    def attributes(self, inode: int) -> Attributes:
        raise NotImplementedError

    def read_link(self, inode: int) -> bytes:
        raise NotImplementedError

    def listing(self, inode: int, cookie: int, count_max: int) -> meta.Listing:
        raise NotImplementedError

    def xattr_names(self, inode: int) -> list[bytes]:
        raise NotImplementedError

    def xattr(self, inode: int, name: bytes) -> bytes:
        raise NotImplementedError

    def content(self, inode: int) -> tuple[Attributes, bytes | None]:
        """A file's attributes and, when it has no chunks, its stored bytes (zeros follow up to
        its size). IS_A_DIRECTORY or INVALID when it is no file."""
        raise NotImplementedError

    # --- chunks

    def chunks(self, inode: int, first: int, count: int) -> list[FileChunk]:
        """The chunks that exist among ``first`` to ``first + count - 1``, by index."""
        raise NotImplementedError

    def dropped_handle(self, inode: int, index: int) -> int:
        """The handle last truncated away at this index, 0: none. Never hand out one as low."""
        raise NotImplementedError

    def chunk(self, handle: int) -> ChunkRecord | None:
        raise NotImplementedError

    def all_chunks(self) -> Iterator[tuple[int, ChunkRecord]]:
        """Every (handle, chunk), by handle."""
        raise NotImplementedError

    # --- sessions and servers

    def sessions(self) -> list[SessionRecord]:
        raise NotImplementedError

    def session(self, session: int) -> SessionRecord | None:
        raise NotImplementedError

    def slot(self, session: int, slot: int) -> SlotRecord | None:
        """The last logged mutation of a slot; ``.answer()`` is its reply."""
        raise NotImplementedError

    def orphans(self) -> list[int]:
        """Inodes without a name that wait to be reaped."""
        raise NotImplementedError

    def is_orphan(self, inode: int) -> bool:
        raise NotImplementedError

    def servers(self) -> list[ServerRecord]:
        raise NotImplementedError
