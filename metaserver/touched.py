"""What a request has to do with which inodes: what it changes, asks about, and is told of. Pure.

Who changes an inode, or keeps changes of it to himself, must know all that others were promised,
so this errs on the side of too many. The number of an inode that is not there does no harm.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from ..fs.limits import NAME_MAX_BYTES
from ..fs.messages import locks, meta
from ..fs.messages.base import Message, Request
from .state import State

Inodes: TypeAlias = tuple[int, ...]
Names: TypeAlias = tuple[tuple[int, bytes], ...]

NONE: Inodes = ()


def touched(state: State, change: meta.Change[Any]) -> Inodes:
    """The inodes that are there and that ``change`` may change, as the state is now: attributes
    (but for atime, which may be old under a promise), names, bytes, extended attributes."""
    found = TOUCHED[type(change)](state, change)
    return found if len(found) < 2 else tuple(dict.fromkeys(found))


def moved(change: meta.Change[Any]) -> Names:
    """The names, each with its directory, of which ``change`` may change what they lead to."""
    move = MOVED.get(type(change))
    return () if move is None else move(change)


def follows_names(change: meta.Change[Any]) -> bool:
    """Whether what ``change`` touches, or its reply tells of, hangs on what a name of ``moved``
    leads to when it is carried out."""
    return isinstance(change, _FOLLOWING) or (
        isinstance(change, meta.Create) and not change.exclusive
    )


def asked(state: State, request: Request[Any]) -> Inodes:
    """The inodes that ``request`` asks about, and does not change; see ``told`` for what comes to
    light only with the reply."""
    ask = ASKED.get(type(request))
    return NONE if ask is None else ask(state, request)


def told(reply: Message) -> Inodes:
    """The inodes of which a reply that can be ``promised`` tells."""
    tell = TOLD.get(type(reply))
    return NONE if tell is None else tell(reply)


# --- changes -------------------------------------------------------------------------------------


def _nothing(state: State, request: Request[Any]) -> Inodes:
    return NONE


def _inode(state: State, request: Any) -> Inodes:
    return (request.inode,)


def _parent(state: State, request: Any) -> Inodes:
    return (request.parent,)


def _named(state: State, parent: int, name: bytes) -> Inodes:
    inode = state.named(parent, name) if len(name) <= NAME_MAX_BYTES else 0
    return (inode,) if inode else NONE


def _link(state: State, request: meta.Link) -> Inodes:
    return (request.inode, request.parent)


def _removal(state: State, request: meta.Unlink | meta.RemoveDirectory) -> Inodes:
    return (request.parent, *_named(state, request.parent, request.name))


def _rename(state: State, request: meta.Rename) -> Inodes:
    """Also what is displaced, or comes the other way."""
    return (
        request.parent,
        request.new_parent,
        *_named(state, request.parent, request.name),
        *_named(state, request.new_parent, request.new_name),
    )


TOUCHED: dict[type[meta.Change[Any]], Callable[[State, Any], Inodes]] = {
    meta.Create: _parent,
    meta.MakeDirectory: _parent,
    meta.MakeSymlink: _parent,
    meta.CreateUnnamed: _nothing,
    meta.Link: _link,
    meta.Unlink: _removal,
    meta.RemoveDirectory: _removal,
    meta.Rename: _rename,
    meta.SetAttributes: _inode,
    meta.SetXattr: _inode,
    meta.RemoveXattr: _inode,
    meta.Commit: _inode,
    meta.Punch: _inode,
    meta.NoteReadings: _nothing,
    locks.SetLock: _nothing,
    locks.Unlock: _nothing,
    locks.Withdraw: _nothing,
}
"""Of every Change that there is. An open with O_TRUNC is a SetAttributes."""


def _its_name(change: Any) -> Names:
    return ((change.parent, change.name),)


def _both_names(change: meta.Rename) -> Names:
    return ((change.parent, change.name), (change.new_parent, change.new_name))


MOVED: dict[type[meta.Change[Any]], Callable[[Any], Names]] = {
    meta.Create: _its_name,
    meta.MakeDirectory: _its_name,
    meta.MakeSymlink: _its_name,
    meta.Link: _its_name,
    meta.Unlink: _its_name,
    meta.RemoveDirectory: _its_name,
    meta.Rename: _both_names,
}

_FOLLOWING = (meta.Unlink, meta.RemoveDirectory, meta.Rename)


# --- questions, also those that a change is beside -----------------------------------------------


def _found_by_create(state: State, request: meta.Create) -> Inodes:
    """A file that is there already is what the reply tells of."""
    return _named(state, request.parent, request.name)


ASKED: dict[type[Request[Any]], Callable[[State, Any], Inodes]] = {
    meta.Lookup: _parent,
    meta.GetAttributes: _inode,
    meta.ReadLink: _inode,
    meta.ReadDirectory: _inode,
    meta.ListXattrs: _inode,
    meta.GetXattr: _inode,
    meta.GetContent: _inode,
    meta.Open: _inode,
    meta.GetLayout: _inode,
    meta.GetExtents: _inode,
    meta.Create: _found_by_create,
    meta.CreateUnnamed: _parent,  # whose group and access list the file inherits
    locks.SetLock: _inode,
    locks.Withdraw: _inode,
}


# --- replies -------------------------------------------------------------------------------------


def _of_entry(reply: meta.Entry) -> Inodes:
    return (reply.attributes.inode, reply.parent.inode)


def _of_one(reply: meta.Node | meta.Content) -> Inodes:
    return (reply.attributes.inode,)


def _of_listing(reply: meta.Listing) -> Inodes:
    return (reply.directory.inode, *(entry.attributes.inode for entry in reply.entries))


TOLD: dict[type[Message], Callable[[Any], Inodes]] = {
    meta.Entry: _of_entry,
    meta.Node: _of_one,
    meta.Content: _of_one,
    meta.Listing: _of_listing,
}
