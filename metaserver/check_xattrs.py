"""The file-system check of extended attributes and access lists. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping

from ..fs import acl
from ..fs.attributes import Kind
from ..fs.errors import TideError
from .inodes import UNCOUNTED, Inode
from .tables import Tables


def check_xattrs(tables: Tables, inodes: Mapping[int, Inode]) -> Iterator[str]:
    """Every finding, in words."""
    counted = Counter(tables.xattrs.owners())
    for number in counted.keys() - inodes.keys():
        yield f"extended attributes of inode {number}: it is gone"
    for number, inode in inodes.items():
        if inode.xattrs not in (counted[number], UNCOUNTED):
            yield f"inode {number} counts {inode.xattrs} of {counted[number]} extended attributes"
        for name in acl.NAMES if counted[number] else ():
            value = tables.xattrs.get(number, name)
            if value is not None:
                yield from _access_list(inode, name, value)


def _access_list(inode: Inode, name: bytes, value: bytes) -> Iterator[str]:
    what = f"{name.decode()} of inode {inode.number}"
    try:
        found = acl.decode(value)
    except TideError as error:
        yield f"{what}: {error.detail}"
        return
    if name == acl.DEFAULT:
        if inode.kind is not Kind.DIRECTORY:
            yield f"{what}: it is a {inode.kind.name}"
    elif inode.kind is Kind.SYMLINK:
        yield f"{what}: it is a symbolic link"
    elif acl.mode_bits(found) != inode.mode & acl.PERMISSIONS:
        yield f"{what} says {acl.mode_bits(found):#o}, its mode {inode.mode:#o}"
    if not found or (name == acl.ACCESS and acl.is_minimal(found)):
        yield f"{what} says nothing"
