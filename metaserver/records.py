"""What the state remembers beside inodes, as its readers see it."""

from typing import NamedTuple

import msgspec

from ..fs.codec import convert
from ..fs.errors import Code, TideError
from ..fs.messages.base import METHODS, Message, reply_type


class ChunkRecord(Message):
    """One chunk. ``cut``: bytes from there on are to be dropped at the next grant; -1: none.

    ``cut_version``: what was written at this version or an older one may have been cut off.
    """

    inode: int
    index: int
    version: int
    cut: int
    cut_version: int


class FileChunk(Message):
    """One chunk as a part of its file."""

    index: int
    handle: int
    version: int
    cut: int


class SessionRecord(NamedTuple):
    """One living session. ``promises``: it may hold some, which a new leader does not know."""

    session: int
    nonce: bytes
    host: str
    pid: int
    started_ns: int
    promises: bool = False


class ServerRecord(NamedTuple):
    """A server that was admitted to the cluster."""

    server: int
    role: str
    host: str
    addresses: list[str]


class SlotRecord(NamedTuple):
    """The last mutation of a slot, and its answer: ``fields`` of the reply, or an error."""

    sequence: int
    method: int
    fields: list[object] | None
    code: int
    detail: str

    def answer(self) -> Message | TideError:
        """The stored reply, as it was given the first time."""
        if self.fields is None:
            return TideError(Code(self.code), self.detail)
        reply: Message = convert(reply_type(METHODS[self.method]), self.fields)
        return reply


class Totals(msgspec.Struct):
    """The few numbers that are one of a kind; written with every entry."""

    applied_index: int = 0
    applied_term: int = 0
    time_ns: int = 0
    """Of the last entry."""
    cluster: str = ""
    """Empty until the cluster was formatted."""
    replicas: int = 0
    """How many copies of a chunk are wanted."""
    next_inode: int = 1
    next_handle: int = 1
    """Handles below it may be in use; none at or above it is."""
    inodes: int = 0
    """Orphans count until they are reaped."""
    stored_bytes: int = 0
    chunks: int = 0
    locks_held: int = 0
    locks_waiting: int = 0
