"""Names of things: numbers that are unique for ever, told apart by the type checker."""

from typing import NewType

InodeNumber = NewType("InodeNumber", int)
"""64 bits, counted up from 1 (the root) and never used twice: a number that is gone stays gone."""

ChunkHandle = NewType("ChunkHandle", int)
"""64 bits, counted up and never used twice (GFS section 2.3)."""

ChunkVersion = NewType("ChunkVersion", int)
"""``term << 32 | counter``: unique for each grant, so that two leaders never grant the same one."""

ServerId = NewType("ServerId", int)
"""63 random bits that a server draws when its folder is formatted."""

SessionId = NewType("SessionId", int)
"""The log index of the entry that opened the session: also unique for ever."""

ROOT = InodeNumber(1)
NO_SESSION = SessionId(0)


def server_name(server: ServerId) -> str:
    """How a server is called in messages to people: 16 hex digits."""
    return f"{server:016x}"


def version_of(term: int, counter: int) -> ChunkVersion:
    """The chunk version that the leader of ``term`` grants as its ``counter``-th."""
    assert 0 < term < 1 << 31, term
    assert 0 <= counter < 1 << 32, counter
    return ChunkVersion(term << 32 | counter)
