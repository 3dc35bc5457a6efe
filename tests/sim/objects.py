"""What the objects of a history are, when nobody interferes: names in folders, registers, and
locks (``lock_objects.py``). Pure.

Each file is known by a tag that nobody else gives (its owner's number), so that an answer tells
which file was meant, whatever inode it got.
"""

from typing import Any, NamedTuple, TypeAlias

from tidefs.fs.errors import Code

from . import lock_objects
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


class Look(NamedTuple):
    """lstat(2): the tag."""

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


ON_NAMES = (Create, Unlink, Rename, Look, List)


def tree() -> Model:
    """All of them together: all folders are one object, as renames go between them."""
    looks = Look | List | Read | lock_objects.Holders
    return Model((), _step, _object_of, lambda what: isinstance(what, looks))


def _object_of(what: object) -> tuple[str, str]:
    if isinstance(what, ON_NAMES):
        return "names", ""
    if isinstance(what, ON_LOCKS):
        return "lock", what.lock
    return "register", what.register  # type: ignore[attr-defined]


def _step(state: Any, what: object, answer: object) -> Any:
    if isinstance(what, ON_LOCKS):
        locks, right = lock_objects.do(state, what, answer)
        return locks if answer is NEVER or lock_objects.matches(right, answer) else None
    after, expected = do(state, what)
    return after if answer is NEVER or answer == expected else None


def do(state: Files, what: object) -> tuple[Files, object]:
    """The state afterwards, and the answer."""
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
        case Look(name):
            answer = files.get(name, NO_ENTRY)
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
    elif name != new_name:
        files[new_name] = files.pop(name)
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
