"""Requests that are answered from the state as it is, at once. Pure."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ..fs.codec import Buffer
from ..fs.messages import locks, meta, names
from ..fs.messages.base import Message, Request
from .locks_views import list_locks, lock_in_the_way, session_locks
from .state import State


class Answer(NamedTuple):
    """A reply, and the raw bytes that go with it."""

    message: Message
    payload: Buffer = b""


def _lookup(state: State, request: meta.Lookup) -> Answer:
    return Answer(state.lookup(request.parent, request.name))


def _get_attributes(state: State, request: meta.GetAttributes) -> Answer:
    return Answer(meta.Node(state.attributes(request.inode)))


def _read_link(state: State, request: meta.ReadLink) -> Answer:
    return Answer(meta.Target(state.read_link(request.inode)))


def _read_directory(state: State, request: meta.ReadDirectory) -> Answer:
    return Answer(state.listing(request.inode, request.cookie, request.count_max))


def _list_xattrs(state: State, request: meta.ListXattrs) -> Answer:
    return Answer(meta.Names(state.xattr_names(request.inode)))


def _get_xattr(state: State, request: meta.GetXattr) -> Answer:
    return Answer(meta.Value(state.xattr(request.inode, request.name)))


def _get_content(state: State, request: meta.GetContent) -> Answer:
    return content(state, request.inode, request.known_data_version)


def _get_extents(state: State, request: meta.GetExtents) -> Answer:
    return Answer(state.extents(request.inode, request.offset))


def content(state: State, inode: int, known_data_version: int) -> Answer:
    """A file at its opening; its inline bytes, unless they are known."""
    attributes, inline = state.content(inode)
    known = attributes.data_version == known_data_version
    payload = b"" if inline is None or known else inline
    return Answer(meta.Content(attributes, inline is not None), payload)


def _get_session_locks(state: State, request: locks.GetSessionLocks) -> Answer:
    return Answer(session_locks(state.tables, request.session))


def _test_lock(state: State, request: locks.TestLock) -> Answer:
    return Answer(lock_in_the_way(state.tables, request))


def _list_locks(state: State, request: locks.ListLocks) -> Answer:
    return Answer(list_locks(state.tables, request.inode, request.after, request.count_max))


def _find_names(state: State, request: names.FindNames) -> Answer:
    return Answer(state.find_names(request))


READS: dict[type[Request[Any]], Callable[[State, Any], Answer]] = {
    meta.Lookup: _lookup,
    meta.GetAttributes: _get_attributes,
    meta.ReadLink: _read_link,
    meta.ReadDirectory: _read_directory,
    meta.ListXattrs: _list_xattrs,
    meta.GetXattr: _get_xattr,
    meta.GetContent: _get_content,
    meta.GetExtents: _get_extents,
    names.FindNames: _find_names,
    locks.GetSessionLocks: _get_session_locks,
    locks.TestLock: _test_lock,
    locks.ListLocks: _list_locks,
}
