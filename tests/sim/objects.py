"""What the objects of a history are, when nobody interferes: names in folders, registers, and
locks (``lock_objects.py``), bytes (``byte_objects.py``) and attributes (``attribute_objects.py``)
of files. Pure.

Each file is known by a tag that nobody else gives (its owner's number), so that an answer tells
which file was meant, whatever inode it got.
"""

from typing import Any, NamedTuple, TypeAlias

from tidefs.fs.errors import Code

from . import attribute_objects, byte_objects, lock_objects
from .attribute_objects import ON_ATTRIBUTES
from .byte_objects import ON_BYTES
from .linearizability import NEVER, Model
from .lock_objects import ON_LOCKS

OK = "ok"
EXISTS, NO_ENTRY, NO_ATTRIBUTE = (
    code.name for code in (Code.EXISTS, Code.NO_ENTRY, Code.NO_ATTRIBUTE)
)
"""Refusals, by name: their numbers could be taken for tags."""

Files: TypeAlias = tuple[tuple[str, int], ...]
"""The names of all folders, sorted: (folder/name, tag)."""


class Create(NamedTuple):
    """open(2) with O_CREAT and O_EXCL."""

    name: str
    tag: int


class Unlink(NamedTuple):
    name: str


class Rename(NamedTuple):
    name: str
    new_name: str
    noreplace: bool = False
    exchange: bool = False


class Link(NamedTuple):
    """linkat(2) of the file with this tag, which was looked up before."""

    tag: int
    new_name: str


class Look(NamedTuple):
    """lstat(2): the tag."""

    name: str


class Stat(NamedTuple):
    """lstat(2): the tag, and how many names the file has."""

    name: str


class List(NamedTuple):
    """All names in one folder, with tags, sorted."""

    folder: str


class Write(NamedTuple):
    """setxattr(2); ``only``: EXISTS when there is a value (CREATE), or NO_ATTRIBUTE when there is
    none (REPLACE)."""

    register: str
    value: int
    only: str | None = None


class Clear(NamedTuple):
    """removexattr(2)."""

    register: str


class Read(NamedTuple):
    """getxattr(2)."""

    register: str


ON_NAMES = (Create, Unlink, Rename, Link, Look, Stat, List)
LOOKS = (
    *(Look, Stat, List, Read, lock_objects.Holders),
    *(byte_objects.Get, byte_objects.Size, attribute_objects.Show),
)
"""They change nothing."""


def tree() -> Model:
    """All of them together: all folders are one object, as renames go between them."""
    return Model((), _step, _object_of, only_looks)


def only_looks(what: object) -> bool:
    """Whether it never changes anything."""
    return isinstance(what.what if isinstance(what, byte_objects.AtUnit) else what, LOOKS)


def _object_of(what: object) -> tuple[object, ...]:
    if isinstance(what, ON_NAMES):
        return ("names",)
    if isinstance(what, ON_LOCKS):
        return "lock", what.lock
    if isinstance(what, ON_BYTES):
        return "bytes", *byte_objects.place(what)
    if isinstance(what, ON_ATTRIBUTES):
        return "attributes", what.file
    return "register", what.register  # type: ignore[attr-defined]


def _step(state: Any, what: object, answer: object) -> Any:
    if isinstance(what, ON_LOCKS):
        locks, right = lock_objects.do(state, what, answer)
        return locks if answer is NEVER or lock_objects.matches(right, answer) else None
    after, expected = do(state, what)
    return after if answer is NEVER or answer == expected else None


def do(state: Any, what: object) -> tuple[Any, object]:
    """The state afterwards, and the answer."""
    if isinstance(what, ON_BYTES):
        return byte_objects.do(state, what)
    if isinstance(what, ON_ATTRIBUTES):
        return attribute_objects.do(state, what)
    if isinstance(what, ON_NAMES):
        return _do_with_names(dict(state), what)
    return _do_with_register(state, what)


def _do_with_names(files: dict[str, int], what: object) -> tuple[Files, object]:
    answer: object = OK
    match what:
        case Create(name, tag):
            if name in files:
                answer = EXISTS
            else:
                files[name] = tag
        case Unlink(name):
            answer = OK if files.pop(name, None) is not None else NO_ENTRY
        case Rename():
            answer = _rename(files, what)
        case Link(tag, new_name):
            answer = _link(files, tag, new_name)
        case Look(name):
            answer = files.get(name, NO_ENTRY)
        case Stat(name):
            names = [each for each, tag in files.items() if tag == files.get(name)]
            answer = (files[name], len(names)) if names else NO_ENTRY
        case List(folder):
            answer = tuple(sorted(each for each in files.items() if _folder(each[0]) == folder))
    return tuple(sorted(files.items())), answer


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _rename(files: dict[str, int], what: Rename) -> object:
    name, new_name = what.name, what.new_name
    if name not in files or (what.exchange and new_name not in files):
        return NO_ENTRY
    if what.noreplace and new_name in files:
        return EXISTS
    if what.exchange:
        files[name], files[new_name] = files[new_name], files[name]
    elif files[name] != files.get(new_name):  # of two names of one file both stay: rename(2)
        files[new_name] = files.pop(name)
    return OK


def _link(files: dict[str, int], tag: int, new_name: str) -> object:
    if tag not in files.values():
        return NO_ENTRY  # it lost its last name
    if new_name in files:
        return EXISTS
    files[new_name] = tag
    return OK


def _do_with_register(state: Files, what: object) -> tuple[Files, object]:
    """A register's state is () or ((its name, its value),)."""
    match what:
        case Read():
            return state, state[0][1] if state else NO_ATTRIBUTE
        case Clear():
            return (), OK if state else NO_ATTRIBUTE
        case Write(register, value, only):
            if only is EXISTS and state:
                return state, EXISTS
            if only is NO_ATTRIBUTE and not state:
                return state, NO_ATTRIBUTE
            return ((register, value),), OK
    raise AssertionError(what)
