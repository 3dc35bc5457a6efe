"""POSIX access lists: the attribute's format, and how a list and a file's mode follow each other.

acl(5) has the rules, linux/posix_acl_xattr.h the format: a version, then an entry of tag,
permissions and id each, little endian, in the order of ``Tag``. Pure.

The permission bits of the mode always say the same as the list: those of the owner and of others
are entries of it, and those of the group are its mask, or where it has none, the owning group's
entry. A list of only these three entries says nothing beyond the mode, and is not kept.
"""

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from .codec import Buffer
from .errors import Code, TideError

ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"
NAMES = (ACCESS, DEFAULT)

PERMISSIONS = 0o777
SET_USER_ID = 0o4000
SET_GROUP_ID = 0o2000
GROUP_EXECUTE = 0o010

_VERSION = 2  # POSIX_ACL_XATTR_VERSION
_NO_ID = 0xFFFFFFFF  # ACL_UNDEFINED_ID
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_RWX = 7


class Tag(IntEnum):
    """Whom an entry is about: linux/posix_acl.h's numbers, in the order that a list has."""

    USER_OBJ = 0x01
    USER = 0x02
    GROUP_OBJ = 0x04
    GROUP = 0x08
    MASK = 0x10
    OTHER = 0x20


_NAMED = (Tag.USER, Tag.GROUP)
_ONCE = (Tag.USER_OBJ, Tag.GROUP_OBJ, Tag.OTHER)


class AclEntry(NamedTuple):
    """One line. ``id`` is that of a named user or group."""

    tag: Tag
    permissions: int  # r 4, w 2, x 1
    id: int = _NO_ID


Acl: TypeAlias = tuple[AclEntry, ...]


class Born(NamedTuple):
    """What a new inode begins with; None: no such list."""

    mode: int
    access: Acl | None
    default: Acl | None


# --- the format ------------------------------------------------------------------------------


def decode(value: Buffer) -> Acl:
    """The list in an extended attribute; INVALID, in words, when it is none. May be empty."""
    if len(value) < _HEADER.size or (len(value) - _HEADER.size) % _ENTRY.size:
        raise _invalid(f"{len(value)} bytes are no whole number of entries")
    (version,) = _HEADER.unpack_from(value)
    if version != _VERSION:
        raise _invalid(f"its version is {version}, not {_VERSION}")
    acl = tuple(_entry(*fields) for fields in _ENTRY.iter_unpack(memoryview(value)[4:]))
    if acl:
        _check(acl)
    return acl


def encode(acl: Acl) -> bytes:
    """The value of the extended attribute."""
    return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in acl)


def _entry(tag: int, permissions: int, number: int) -> AclEntry:
    if tag not in Tag.__members__.values():
        raise _invalid(f"tag {tag:#x} is unknown")
    if permissions & ~_RWX:
        raise _invalid(f"permissions {permissions:#o} are more than rwx")
    if tag not in _NAMED:
        return AclEntry(Tag(tag), permissions)
    if number == _NO_ID:
        raise _invalid("a named user or group has no id")
    return AclEntry(Tag(tag), permissions, number)


def _check(acl: Acl) -> None:
    """acl_valid(3)."""
    tags = [entry.tag for entry in acl]
    if tags != sorted(tags):
        raise _invalid("its entries are not in order")
    for tag in _ONCE:
        if tags.count(tag) != 1:
            raise _invalid(f"it has {tags.count(tag)} entries {tag.name}, not one")
    named = [(entry.tag, entry.id) for entry in acl if entry.tag in _NAMED]
    if len(set(named)) < len(named):
        raise _invalid("a user or group is named twice")
    if tags.count(Tag.MASK) > 1 or (named and Tag.MASK not in tags):
        raise _invalid("it names users or groups, and has not one mask")


def _invalid(why: str) -> TideError:
    return TideError(Code.INVALID, f"no access list: {why}")


# --- lists and modes -------------------------------------------------------------------------


def mode_bits(acl: Acl) -> int:
    """The nine permission bits that say the same as the list, as far as they can."""
    (owner,) = _permissions(acl, Tag.USER_OBJ)
    (group,) = _permissions(acl, Tag.MASK) or _permissions(acl, Tag.GROUP_OBJ)
    (other,) = _permissions(acl, Tag.OTHER)
    return owner << 6 | group << 3 | other


def is_minimal(acl: Acl) -> bool:
    """Whether it says nothing that the mode does not say."""
    return len(acl) == len(_ONCE)


def with_mode(acl: Acl, mode: int) -> Acl:
    """The list after chmod(2)."""
    bits = {Tag.USER_OBJ: mode >> 6, Tag.OTHER: mode, _group_class(acl): mode >> 3}
    return tuple(
        entry._replace(permissions=bits[entry.tag] & _RWX) if entry.tag in bits else entry
        for entry in acl
    )


def born(mode: int, umask: int, inherited: Acl | None, *, is_directory: bool) -> Born:
    """What an inode made with ``mode`` begins with in a directory whose default is ``inherited``.

    acl(5), "Object creation and default ACLs": either the umask takes bits away, or the default
    list does, and then the mode takes from the list what it does not ask for.
    """
    if not inherited:
        return Born(mode & ~(umask & PERMISSIONS), None, None)
    access = with_mode(inherited, mode & mode_bits(inherited))
    return Born(
        (mode & ~PERMISSIONS) | mode_bits(access),
        None if is_minimal(access) else access,
        inherited if is_directory else None,
    )


def without_privileges(mode: int) -> int:
    """The mode after a write or a change of owner (chown(2)): without set-user-id, and without
    set-group-id, unless that one's meaning is mandatory locking (no group execute)."""
    if mode & GROUP_EXECUTE:
        mode &= ~SET_GROUP_ID
    return mode & ~SET_USER_ID


def _group_class(acl: Acl) -> Tag:
    """Whose permissions the middle three bits of the mode are."""
    return Tag.MASK if _permissions(acl, Tag.MASK) else Tag.GROUP_OBJ


def _permissions(acl: Sequence[AclEntry], tag: Tag) -> list[int]:
    return [entry.permissions for entry in acl if entry.tag is tag]
