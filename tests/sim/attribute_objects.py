"""What a file's mode and time are in a history when nobody interferes. Pure.

Both are one object: a single call may set both, and a stat(2) tells both at once.
"""

from typing import NamedTuple, TypeAlias

OK = "ok"


class Shown(NamedTuple):
    """As stat(2) shows them. ``None``: as before anybody set it."""

    mode: int | None = None
    mtime_s: int | None = None


class SetAttributes(NamedTuple):
    """chmod(2), utimensat(2), or both in one request; None: left as it is."""

    file: str
    mode: int | None
    mtime_s: int | None


class Show(NamedTuple):
    """stat(2) or fstat(2)."""

    file: str


ON_ATTRIBUTES = (SetAttributes, Show)
State: TypeAlias = Shown | tuple[()]


def do(state: State, what: SetAttributes | Show) -> tuple[State, object]:
    """The state afterwards, and the answer."""
    shown = Shown(*state)
    if isinstance(what, Show):
        return shown, shown
    mode = shown.mode if what.mode is None else what.mode
    mtime_s = shown.mtime_s if what.mtime_s is None else what.mtime_s
    return Shown(mode, mtime_s), OK
