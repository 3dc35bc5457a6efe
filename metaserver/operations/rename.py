"""Rename: rename(2) and renameat2(2), atomic."""

from ...fs import acl
from ...fs.attributes import Kind
from ...fs.codec import Buffer
from ...fs.errors import Code, TideError
from ...fs.ids import ROOT
from ...fs.messages.base import Message
from ...fs.messages.meta import Rename, RenameDone, RenameFlags
from ..inodes import Inode
from ..moment import Moment
from ..namespace import Dentry, show
from ..tables import Tables
from .checks import check_name, check_room_for_link, taken
from .table import Perform, operation

_FLAGS = int(RenameFlags.NOREPLACE | RenameFlags.EXCHANGE | RenameFlags.WHITEOUT)


class _Place:
    """A name in a directory, and what it leads to."""

    def __init__(self, tables: Tables, directory: Inode, name: bytes) -> None:
        self.directory = directory
        self.name = name
        self.dentry: Dentry | None = tables.names.find(directory, name)
        self.inode = None if self.dentry is None else tables.inodes.require(self.dentry.inode)

    def required(self) -> tuple[Dentry, Inode]:
        """What must be there; NO_ENTRY when it is not."""
        if self.dentry is None or self.inode is None:
            raise TideError(Code.NO_ENTRY, str(self))
        return self.dentry, self.inode

    def __str__(self) -> str:
        return f"{show(self.name)} in directory {self.directory.number}"


@operation(Rename)
def rename(tables: Tables, request: Rename, payload: Buffer) -> Perform:
    """NOREPLACE: EXISTS when the new name is taken. EXCHANGE: both must be there. WHITEOUT: the
    old name leads to a character device 0:0 afterwards, for overlay file systems."""
    check_name(request.name)
    check_name(request.new_name)
    flags = request.flags
    if flags & ~_FLAGS or (flags & RenameFlags.EXCHANGE and flags != RenameFlags.EXCHANGE):
        raise TideError(Code.INVALID, f"rename flags {flags:#x}")
    directory = tables.inodes.living_directory(request.parent)
    new_directory = directory
    if request.new_parent != request.parent:
        new_directory = tables.inodes.living_directory(request.new_parent)
    old = _Place(tables, directory, request.name)
    new = _Place(tables, new_directory, request.new_name)
    _, moved = old.required()
    if flags & RenameFlags.NOREPLACE and new.inode is not None:
        raise taken(new_directory, request.new_name)
    if flags == RenameFlags.EXCHANGE:
        new.required()
    if new.inode is not None and new.inode.number == moved.number:
        # POSIX rename: two names of one file both stay.
        same = moved.attributes()
        nothing = RenameDone(same, directory.attributes(), new_directory.attributes(), same)
        return lambda moment: nothing
    if flags == RenameFlags.EXCHANGE:
        return _exchange(tables, old, new)
    return _move(tables, old, new, whiteout=bool(flags & RenameFlags.WHITEOUT))


def _move(tables: Tables, old: _Place, new: _Place, *, whiteout: bool) -> Perform:
    old_dentry, moved = old.required()
    new_dentry, displaced = new.dentry, new.inode
    _refuse_own_descendant(tables, moved, new.directory)
    if displaced is not None:
        _check_replaceable(moved, displaced, new)
    _check_room_for_parent(old, new, moved, displaced)

    def perform(moment: Moment) -> Message:
        left = _make_whiteout(tables, old, moved, moment) if whiteout else None
        if left is not None:
            tables.names.replace(old.directory, old.name, old_dentry, left, moment.time_ns)
        else:
            tables.names.remove(old.directory, old.name, old_dentry, moment.time_ns)
        if new_dentry is not None and displaced is not None:
            tables.names.replace(new.directory, new.name, new_dentry, moved, moment.time_ns)
            tables.inodes.lose_name(displaced, moment)
        else:
            tables.names.add(new.directory, new.name, moved, moment.time_ns)
        moved.changed(moment.time_ns)
        return _put_all(tables, old, new, moved, displaced, left)

    return perform


def _make_whiteout(tables: Tables, old: _Place, moved: Inode, moment: Moment) -> Inode:
    """What stays behind belongs to whom the moved one belongs to; nobody may open it."""
    gid = old.directory.gid if old.directory.mode & acl.SET_GROUP_ID else moved.gid
    left = tables.inodes.new(Kind.CHARACTER_DEVICE, 0, moved.uid, gid, moment.time_ns)
    left.links = 1
    return left


def _exchange(tables: Tables, old: _Place, new: _Place) -> Perform:
    old_dentry, moved = old.required()
    new_dentry, other = new.required()
    _refuse_own_descendant(tables, moved, new.directory)
    _refuse_own_descendant(tables, other, old.directory)
    _check_room_for_parent(old, new, moved, other)
    _check_room_for_parent(new, old, other, moved)

    def perform(moment: Moment) -> Message:
        tables.names.replace(old.directory, old.name, old_dentry, other, moment.time_ns)
        tables.names.replace(new.directory, new.name, new_dentry, moved, moment.time_ns)
        moved.changed(moment.time_ns)
        other.changed(moment.time_ns)
        return _put_all(tables, old, new, moved, other)

    return perform


def _put_all(
    tables: Tables,
    old: _Place,
    new: _Place,
    moved: Inode,
    displaced: Inode | None,
    left: Inode | None = None,
) -> RenameDone:
    tables.inodes.put(moved)
    if left is not None:
        tables.inodes.put(left)
    if displaced is not None:
        tables.inodes.put(displaced)
    tables.inodes.put(old.directory)
    if new.directory is not old.directory:
        tables.inodes.put(new.directory)
    return RenameDone(
        moved.attributes(),
        old.directory.attributes(),
        new.directory.attributes(),
        None if displaced is None else displaced.attributes(),
        None if left is None else left.attributes(),
    )


def _check_replaceable(moved: Inode, displaced: Inode, new: _Place) -> None:
    """A directory replaces only an empty directory, anything else only a non-directory."""
    if moved.kind is not Kind.DIRECTORY:
        if displaced.kind is Kind.DIRECTORY:
            raise TideError(Code.IS_A_DIRECTORY, str(new))
    elif displaced.kind is not Kind.DIRECTORY:
        raise TideError(Code.NOT_A_DIRECTORY, str(new))
    elif displaced.size:
        raise TideError(Code.NOT_EMPTY, f"{new} has {displaced.size} entries")


def _check_room_for_parent(old: _Place, new: _Place, moved: Inode, leaving: Inode | None) -> None:
    """A directory that comes from elsewhere, in no other's place, is one more link to its new
    parent."""
    if moved.kind is not Kind.DIRECTORY or old.directory is new.directory:
        return
    if leaving is None or leaving.kind is not Kind.DIRECTORY:
        check_room_for_link(new.directory)


def _refuse_own_descendant(tables: Tables, moved: Inode, new_directory: Inode) -> None:
    """INVALID when ``new_directory`` is ``moved`` or lies below it."""
    if moved.kind is not Kind.DIRECTORY:
        return
    number = new_directory.number
    while number != ROOT:
        if number == moved.number:
            raise TideError(
                Code.INVALID, f"directory {moved.number} cannot move into itself or below"
            )
        number = tables.inodes.require(number).parent
