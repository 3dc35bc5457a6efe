"""Where things are: servers with their addresses, chunks with their replicas."""

from .base import Message


class ServerPlace(Message):
    """A server and how to reach it: ``unix:/path`` or ``tcp:host:port``, the best one first."""

    server: int
    host: str  # the machine's name; an ``unix:`` address is good only on the same one
    addresses: list[str]


class ChunkPlace(Message):
    """One chunk of a file. ``replicas[0]`` is the primary; the order of the rest is the chain."""

    index: int  # of the chunk within the file
    handle: int
    version: int
    replicas: list[ServerPlace]
    fresh: bool  # reserved, not yet committed: may not exist on any chunkserver yet
