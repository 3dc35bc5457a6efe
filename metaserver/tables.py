"""Everything an operation works on: the tables of the state, over one key-value store."""

from ..fs.codec import pack, unpack
from . import keys
from .chunks import Chunks
from .inline import InlineBytes
from .inodes import Inodes
from .kv import KeyValue
from .locks import Locks
from .namespace import Names
from .records import Totals
from .servers import Servers
from .sessions import Sessions
from .xattrs import Xattrs


class Tables:
    """The tables. They keep nothing in memory but the totals."""

    def __init__(self, kv: KeyValue) -> None:
        packed = kv.get(keys.TOTALS)
        self.kv = kv
        self.totals = Totals() if packed is None else Totals(*unpack(packed))
        self.inodes = Inodes(kv, self.totals)
        self.names = Names(kv)
        self.xattrs = Xattrs(kv)
        self.inline = InlineBytes(kv, self.inodes)
        self.chunks = Chunks(kv, self.inodes, self.totals)
        self.sessions = Sessions(kv)
        self.servers = Servers(kv)
        self.locks = Locks(kv, self.totals)

    def put_totals(self) -> None:
        """Write the totals: the last thing that each entry does."""
        self.kv.put(keys.TOTALS, pack(self.totals))


def applied_index_in(packed: bytes | None) -> int:
    """Of the totals as they are stored."""
    return 0 if packed is None else Totals(*unpack(packed)).applied_index
