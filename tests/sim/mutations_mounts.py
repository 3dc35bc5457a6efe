"""Mounts that work on the same files, broken on purpose: see ``mutations.py``."""

from typing import Any

from tidefs.client.answers import settled
from tidefs.client.attributes_cache import AttributesCache
from tidefs.client.inodes import File
from tidefs.client.reading import Reader
from tidefs.client.vfs_attributes import AttributeOperations
from tidefs.client.vfs_files import FileOperations
from tidefs.client.vfs_promises import PromiseOperations
from tidefs.fs.codec import Buffer
from tidefs.fs.limits import CACHE_BLOCK_BYTES
from tidefs.fs.rpc import Peer
from tidefs.metaserver.awaited import Awaited
from tidefs.metaserver.consent import Consent, UnderWay
from tidefs.metaserver.recalls import Recalls

from .mutation import Mutation, all_of, nothing, nothing_soon, patching
from .mutations_locks import TWO

FOR_EVER_NS = 1 << 62

# --- a mode that believes nothing --------------------------------------------------------------


def _reads_its_cache(_read_through: Any) -> Any:
    async def read_through(self: Reader, file: File, offset: int, length: int) -> Buffer:
        return await settled(self.read(file, offset, length, CACHE_BLOCK_BYTES))

    return read_through


def _writes_later(_write_through: Any) -> Any:
    """It is committed some seconds later, or when the file is closed."""

    async def write_later(self: FileOperations, file: File, offset: int, data: Buffer) -> int:
        return self._write_now(file, offset, data)

    return write_later


def _shows_its_own(read_through: Any) -> Any:
    """What is written here and not committed is seen here, and by nobody else."""

    async def read_own(self: Reader, file: File, offset: int, length: int) -> Buffer:
        found = bytearray(await read_through(self, file, offset, length))
        end = offset + len(found)
        for start, stop in file.changes.pinned_ranges().within(offset, end):
            found[start - offset : stop - offset] = file.get(start, stop)
        return found

    return read_own


def _believes_attributes(_getattr: Any) -> Any:
    def believed(self: AttributeOperations, inode: int, handle: int | None) -> Any:
        cached = self.attributes.get(inode)
        return _getattr(self, inode, handle) if cached is None else self.known_of(cached)

    return believed


# --- a mode with promises ----------------------------------------------------------------------


def _lease_for_ever(begin: Any) -> Any:
    def begin_for_ever(self: AttributesCache, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        self._lease_until_ns = lambda: FOR_EVER_NS

    return begin_for_ever


def _consents(_is_free: Any) -> Any:
    return lambda self, under_way: True


def _recalls_late(end: Any) -> Any:
    """Others are told of a change once it is done."""

    def recall_and_end(self: Consent, under_way: UnderWay) -> None:
        self._recalls.send(self._promises.take(under_way.session, under_way.inodes))
        end(self, under_way)

    return recall_and_end


def _forgets_who_goes(gone: Any) -> Any:
    """Who is not connected is thought to believe nothing."""

    def gone_and_over(self: Recalls, peer: Peer) -> None:
        session = self.session_on(peer)
        gone(self, peer)
        if session:
            self.end(session)

    return gone_and_over


def _awaits_nobody(_promised_to_others: Any) -> Any:
    return lambda self, session: False


# --- which runs show it ------------------------------------------------------------------------

MOUNTS = {**TWO, "mode": "uncached", "steps": 40, "think_max_s": 0.05}
BYTES = {**MOUNTS, "byte_witnesses": 4}
ATTRIBUTES = {**MOUNTS, "attribute_witnesses": 4}
STRICT = {**MOUNTS, "mode": "strict", "name_witnesses": 3, "byte_witnesses": 3}
STRICT_BYTES = {**BYTES, "mode": "strict"}
CUT_OFF = {"faults": ("strand_client",), "think_max_s": 1.0, "pause_max_s": 2.0}
LOSING_LEADERS = {"members": 3, "faults": ("kill_leader", "cut_leader"), "think_max_s": 0.3}

BROKEN_MOUNTS: dict[str, Mutation] = {
    "reads-its-cache": Mutation(
        patched=patching(Reader, "read_through", _reads_its_cache), options=BYTES
    ),
    "writes-later": Mutation(
        patched=patching(FileOperations, "_write_through", _writes_later), options=BYTES
    ),
    "shows-its-own": Mutation(
        patched=patching(Reader, "read_through", _shows_its_own),
        options={**BYTES, "faults": ("weather", "slow_disk"), "pause_max_s": 0.3},
    ),
    "believes-attributes": Mutation(
        patched=patching(AttributeOperations, "getattr", _believes_attributes), options=ATTRIBUTES
    ),
    "ignores-recalls": Mutation(
        patched=patching(PromiseOperations, "recalled", nothing), options=STRICT
    ),
    "lets-go-while-it-reads": Mutation(
        patched=patching(PromiseOperations, "_let_go", nothing_soon), options=STRICT_BYTES
    ),
    "believes-after-its-lease": Mutation(
        patched=patching(AttributesCache, "__init__", _lease_for_ever),
        options={**STRICT, **CUT_OFF},
    ),
    "keeps-promises": Mutation(
        patched=patching(PromiseOperations, "promises_end", nothing),
        options={**STRICT, "faults": ("reset", "reset", "partition"), "think_max_s": 0.3},
    ),
    "writes-without-claim": Mutation(
        patched=patching(PromiseOperations, "claim", nothing_soon), options=STRICT_BYTES
    ),
    "recalls-nothing": Mutation(patched=patching(Consent, "is_free", _consents), options=STRICT),
    "recalls-late": Mutation(
        patched=all_of(
            patching(Consent, "is_free", _consents), patching(Consent, "end", _recalls_late)
        ),
        options={**STRICT, "faults": ("weather",), "pause_max_s": 0.3, "think_max_s": 0.01},
    ),
    "forgets-who-goes": Mutation(
        patched=patching(Recalls, "gone", _forgets_who_goes), options={**STRICT, **CUT_OFF}
    ),
    "awaits-nobody": Mutation(
        patched=patching(Awaited, "promised_to_others", _awaits_nobody),
        options={**STRICT, **LOSING_LEADERS},
    ),
}
