"""The servers that were admitted to the cluster, and the group of those that lead it in turn."""

from collections.abc import Iterator

from ..fs.codec import decode, pack, unpack
from ..fs.messages.raft import Configuration
from . import keys
from .kv import KeyValue
from .records import ServerRecord


class Servers:
    """All servers, by id."""

    def __init__(self, kv: KeyValue) -> None:
        self._kv = kv

    def put(self, record: ServerRecord) -> None:
        packed = pack((record.role, record.host, record.addresses))
        self._kv.put(keys.numbered(keys.SERVER, record.server), packed)

    def put_group(self, configuration: Configuration) -> None:
        self._kv.put(keys.GROUP, pack(configuration))

    def group(self) -> Configuration | None:
        """Of the metaservers; None before the first was in the log."""
        packed = self._kv.get(keys.GROUP)
        return None if packed is None else decode(Configuration, packed)

    def all(self) -> Iterator[ServerRecord]:
        """Every server, by id."""
        for key, packed in self._kv.scan(keys.SERVER):
            yield ServerRecord(keys.last_number(key), *unpack(packed))
