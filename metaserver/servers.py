"""The servers that were admitted to the cluster: whom to expect after a restart."""

from collections.abc import Iterator

from ..fs.codec import pack, unpack
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

    def all(self) -> Iterator[ServerRecord]:
        """Every server, by id."""
        for key, packed in self._kv.scan(keys.SERVER):
            yield ServerRecord(keys.last_number(key), *unpack(packed))
