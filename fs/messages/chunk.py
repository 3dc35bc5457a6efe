"""Client, metaserver and chunkservers about the bytes.

A write walks the chain: the client sends it to the primary, the primary gives it the next serial
number and hands it on to the next in ``chain`` while writing itself, and so on; the
acknowledgement walks back (GFS section 3.2's data flow, chain replication's order). A replica
takes a write only at its own version and only with the serial that follows its last one.
"""

from .base import Done, Message, Request, method
from .places import ServerPlace


class ChunkData(Message):
    """Payload: the bytes. Shorter than asked for where the chunk ends; the rest are zeros.

    ``lost``: the newest version at which a crash may have taken bytes of this replica; a copy of
    it lacks the same.
    """

    version: int
    lost: int = 0


@method(0x0201)
class ReadChunk(Request[ChunkData]):
    """Bytes of a chunk, checked against their checksums.

    STALE_VERSION when this replica is older than ``version`` (a newer one may answer), NO_CHUNK
    when it has none, BAD_CHECKSUM when the stored bytes are damaged: ask another replica.
    """

    handle: int
    version: int
    offset: int
    length: int


class Written(Message):
    """Every replica of the chain has the bytes in its page cache; ``serial`` orders them."""

    serial: int


@method(0x0202)
class WriteChunk(Request[Written]):
    """Payload: the bytes to write at ``offset``. ``serial`` 0: from a client, to the primary.

    ``create``: the chunk is fresh, make it when there is none. ``fence`` is the highest token of
    the locks that the writer's session holds on the file (0: none): FENCED when this replica has
    seen a higher one at this version; the detail ends in that one, behind its last colon. At an
    older version FENCED tells, instead of STALE_VERSION, that the lock is another's by now. The
    frame header's (session, sequence) lets the primary recognise a repetition. REPLICA_FAILED
    names in its detail, as hexadecimal ids behind the last colon, the servers that failed.
    """

    handle: int
    version: int
    offset: int
    create: bool
    serial: int
    chain: list[ServerPlace]
    fence: int = 0


@method(0x0203)
class SyncChunk(Request[Done]):
    """On this replica, everything written to the chunk so far is on stable storage when this
    returns. The client asks each replica.

    ``since`` is the version at which the oldest of the bytes in question were written (0: none in
    particular). OUT_OF_ORDER when the machine crashed since then and may have lost some of them:
    what NFSv3's write verifier is for (RFC 1813 section 3.3.21).
    """

    handle: int
    version: int
    since: int = 0


class Cloned(Message):
    """``digest`` is equal on all servers whose clones have equal bytes. They need not: somebody may
    write to the source meanwhile, and then the clone is of no use."""

    digest: int


@method(0x0204)
class CloneChunk(Request[Cloned]):
    """Make the fresh chunk ``handle`` with the first ``length`` bytes of another one
    (copy_file_range(2)): from this server's own disk, if it is one of ``sources``, or else from
    another of them. What is there of ``handle`` at ``version`` is replaced; on stable storage when
    this returns. Never send it twice at one version: one that is late would undo what was written.
    NO_CHUNK, STALE_VERSION, BAD_CHECKSUM: of the source."""

    handle: int
    version: int
    source_handle: int
    source_version: int
    length: int
    sources: list[ServerPlace]


# --- metaserver to chunkserver -----------------------------------------------------------------


@method(0x0220)
class SetVersion(Request[Done]):
    """Take ``version`` for a chunk, durably: the write grant. ``cut`` (or -1): also drop the bytes
    from there on. STALE_VERSION when this replica is older than ``version_min`` or newer than
    ``version``, NO_CHUNK when there is none."""

    handle: int
    version_min: int
    version: int
    cut: int


@method(0x0221)
class DeleteChunks(Request[Done]):
    """These chunks are garbage, or stale, up to the version named."""

    chunks: list[tuple[int, int]]  # handle, version_max


@method(0x0222)
class CopyChunk(Request[Done]):
    """Fetch a chunk at ``version`` from one of the sources and keep it: repair. An older replica
    that is there stays until the new one is complete."""

    handle: int
    version: int
    sources: list[ServerPlace]


# --- chunkserver to metaserver -----------------------------------------------------------------


class Registered(Message):
    """The leader of ``term`` knows this chunkserver now, and may give it orders."""

    heartbeat_ms: int
    term: int


@method(0x0240)
class Register(Request[Registered]):
    """A chunkserver is up. Its chunks follow in ReportChunks."""

    place: ServerPlace
    pid: int
    total_bytes: int
    free_bytes: int


class ChunkReport(Message):
    """One replica. Not ``clean``: the machine crashed while it had un-synced writes."""

    handle: int
    version: int
    clean: bool


@method(0x0241)
class ReportChunks(Request[Done]):
    """A piece of the list of all chunks held; ``last`` with the last piece."""

    chunks: list[ChunkReport]
    last: bool


@method(0x0242)
class Heartbeat(Request[Done]):
    """Alive, with this much room."""

    total_bytes: int
    free_bytes: int


@method(0x0243)
class ReportBad(Request[Done]):
    """A replica of mine is damaged in the block at ``offset``, found at a read or a scrub."""

    handle: int
    version: int
    offset: int
