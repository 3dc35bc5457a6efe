"""Sessions, and the table of past replies that makes a mutation happen exactly once.

A slot is NFSv4.1's (RFC 8881 section 2.10.6): one mutation in flight, its last reply kept.
"""

from collections.abc import Iterator

from ..fs.codec import pack, unpack
from ..fs.errors import TideError
from ..fs.limits import SESSION_SLOTS
from ..fs.messages.base import Message
from . import keys
from .kv import KeyValue
from .records import SessionRecord, SlotRecord


class Sessions:
    """All living sessions, with their slots."""

    def __init__(self, kv: KeyValue) -> None:
        self._kv = kv

    def get(self, session: int) -> SessionRecord | None:
        """The session, or None when it ended or never was."""
        if not 0 < session <= keys.NUMBER_MAX:
            return None
        packed = self._kv.get(keys.numbered(keys.SESSION, session))
        return None if packed is None else SessionRecord(session, *unpack(packed))

    def find(self, nonce: bytes) -> int:
        """The living session that was opened with ``nonce``, 0: none."""
        packed = self._kv.get(keys.NONCE + nonce)
        return 0 if packed is None else int(unpack(packed))

    def add(self, record: SessionRecord) -> None:
        packed = pack(record[1:])
        self._kv.put(keys.numbered(keys.SESSION, record.session), packed)
        self._kv.put(keys.NONCE + record.nonce, pack(record.session))

    def drop(self, record: SessionRecord) -> None:
        """Forget a session and its slots."""
        self._kv.delete(keys.numbered(keys.SESSION, record.session))
        self._kv.delete(keys.NONCE + record.nonce)
        for key, _ in list(self._kv.scan(keys.numbered(keys.SLOT, record.session))):
            self._kv.delete(key)

    def all(self) -> Iterator[SessionRecord]:
        """Every living session, the oldest first."""
        for key, packed in self._kv.scan(keys.SESSION):
            yield SessionRecord(keys.last_number(key), *unpack(packed))

    def slot(self, session: int, slot: int) -> SlotRecord | None:
        """The last mutation of a slot, or None when there was none."""
        if not 0 < session <= keys.NUMBER_MAX or not 0 <= slot < SESSION_SLOTS:
            return None
        packed = self._kv.get(keys.paired(keys.SLOT, session, slot))
        return None if packed is None else SlotRecord(*unpack(packed))

    def remember(
        self, session: int, slot: int, sequence: int, method: int, reply: Message | TideError
    ) -> None:
        """Keep a mutation's answer, in the place of the one before."""
        if isinstance(reply, TideError):
            packed = pack((sequence, method, None, int(reply.code), reply.detail))
        else:
            packed = pack((sequence, method, reply, 0, ""))
        self._kv.put(keys.paired(keys.SLOT, session, slot), packed)

    def all_slots(self) -> Iterator[int]:
        """The session of every slot record."""
        for key, _ in self._kv.scan(keys.SLOT):
            yield int.from_bytes(key[1:9], "big")

    def all_nonces(self) -> Iterator[tuple[bytes, int]]:
        """Every (nonce, session)."""
        for key, packed in self._kv.scan(keys.NONCE):
            yield key[1:], unpack(packed)
