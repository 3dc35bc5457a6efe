"""The schema: every key of the state, by a prefix byte. Numbers are big endian, so that keys sort.

| key                        | value (codec.pack)                         |
|----------------------------|--------------------------------------------|
| ``T``                      | Totals                                     |
| ``i`` inode                | Inode                                      |
| ``d`` directory, name      | (inode, kind, cookie)                      |
| ``l`` directory, cookie    | (inode, name)                              |
| ``x`` inode, name          | the value of an extended attribute, raw    |
| ``b`` inode                | inline bytes, or a symlink's target, raw   |
| ``m`` inode, chunk index   | chunk handle                               |
| ``t`` inode, chunk index   | handle that a truncation took away there   |
| ``c`` chunk handle         | ChunkRecord                                |
| ``o`` inode                | an orphan: nothing, 1 if it may get a name |
| ``s`` session              | (nonce, host, pid, started_ns)             |
| ``n`` nonce                | session                                    |
| ``r`` session, slot        | SlotRecord                                 |
| ``v`` server               | (role, host, addresses)                    |
| ``g``                      | Configuration of the group of metaservers  |
| ``h w u k q j a``          | locks: see ``locks.py``                    |

The longest key is a name of 255 bytes behind 9 others; LMDB takes 511.
"""

from struct import Struct

TOTALS = b"T"
INODE = b"i"
DENTRY = b"d"
LISTING = b"l"
XATTR = b"x"
INLINE = b"b"
MAP = b"m"
DROPPED = b"t"
CHUNK = b"c"
ORPHAN = b"o"
SESSION = b"s"
NONCE = b"n"
SLOT = b"r"
SERVER = b"v"
GROUP = b"g"
HELD = b"h"
WAITING = b"w"
WAITS_OF = b"u"
LOCKED_BY = b"k"
LOCK_COUNT = b"q"
LOST = b"a"
HELD_COUNT = b"j"

NUMBER_MAX = (1 << 64) - 1
"""The largest number that a key holds."""

_one = Struct(">cQ").pack
_two = Struct(">cQQ").pack
_three = Struct(">cQQQ").pack
_lock = Struct(">cQBBBQQQ")


def numbered(prefix: bytes, number: int) -> bytes:
    """The key of the thing called ``number``; or the prefix of all keys that begin with it."""
    return _one(prefix, number)


def paired(prefix: bytes, number: int, second: int) -> bytes:
    """The key of the ``second`` thing of ``number``."""
    return _two(prefix, number, second)


def tripled(prefix: bytes, number: int, second: int, third: int) -> bytes:
    """The key of the ``third`` thing of ``second`` of ``number``."""
    return _three(prefix, number, second, third)


def lock_prefix(inode: int, *parts: int) -> bytes:
    """The beginning of the keys of held locks of an inode: of a kind, a mode, a size."""
    return _one(HELD, inode) + bytes(parts)


def lock_key(
    inode: int, kind: int, mode: int, size: int, start: int, session: int, owner: int
) -> bytes:
    """The key of one held lock. No two of one owner have the same start."""
    return _lock.pack(HELD, inode, kind, mode, size, start, session, owner)


def lock_of(key: bytes) -> tuple[int, int, int, int, int, int, int]:
    """What ``lock_key`` was made of."""
    _, inode, kind, mode, size, start, session, owner = _lock.unpack(key)
    return inode, kind, mode, size, start, session, owner


def named(prefix: bytes, number: int, name: bytes) -> bytes:
    """The key of what is called ``name`` within ``number``."""
    return _one(prefix, number) + name


def first_number(key: bytes) -> int:
    """The number that a key begins with."""
    return int.from_bytes(key[1:9], "big")


def last_number(key: bytes) -> int:
    """The number that a key ends with."""
    return int.from_bytes(key[-8:], "big")


def name_in(key: bytes) -> bytes:
    """The name that a key made by ``named`` ends with."""
    return key[9:]
