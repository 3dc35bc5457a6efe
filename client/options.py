"""The ``-o`` options of a mount, from text. Pure."""

from collections.abc import Callable, Iterable
from enum import StrEnum
from itertools import combinations
from typing import Any, NamedTuple

from ..fs.errors import Code, TideError
from ..fs.limits import (
    CACHE_BYTES,
    DIRTY_MAX_BYTES,
    KERNEL_READ_AHEAD_BYTES,
    SOFT_TIMEOUT_MS,
)
from ..fs.quantities import format_size, parse_duration, parse_size
from .modes import DEFAULT_MODE, Mode, mode_named


class DriverName(StrEnum):
    """What speaks with the kernel: our own code, or libfuse through pyfuse3."""

    KERNEL = "kernel"
    PYFUSE3 = "pyfuse3"


class AccessTimes(StrEnum):
    """When reading changes a file's atime: mount(8)'s words."""

    NEVER = "noatime"
    RELATIVE = "relatime"
    ALWAYS = "strictatime"


class MountOptions(NamedTuple):
    """What a user may choose for one mount."""

    mode: Mode = mode_named(DEFAULT_MODE)
    timeout_ms: int | None = None
    """How long a request may take on a soft mount; None: hard, it waits for ever."""
    cache_bytes: int = CACHE_BYTES
    read_ahead_bytes: int = KERNEL_READ_AHEAD_BYTES
    """How far the kernel reads ahead. Only root can set it."""
    read_only: bool = False
    allow_other: bool | None = None
    """Whether other users may use the mount; None: if root mounts it."""
    driver: DriverName | None = None
    """None: the first that works, in the order of DriverName."""
    suid: bool = False
    """Whether set-user-id programs and file capabilities give rights. Only root may ask for it."""
    devices: bool = False
    """Whether device files open devices. Only root may ask for it."""
    programs: bool = True
    """Whether programs may be started from it."""
    access_times: AccessTimes = AccessTimes.RELATIVE
    directory_access_times: bool = True


class _Option(NamedTuple):
    """One word: what it sets, from its value (None: it has none), and a line of help."""

    field: str
    parse: Callable[[str], Any] | None
    constant: Any
    help: str


def _at_least(smallest_bytes: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        size_bytes = parse_size(text)
        if size_bytes < smallest_bytes:
            raise TideError(Code.INVALID, f"{text!r} is less than {format_size(smallest_bytes)}")
        return size_bytes

    return parse


def _positive_duration(text: str) -> int:
    duration_ms = parse_duration(text)
    if not duration_ms:
        raise TideError(Code.INVALID, f"{text!r} leaves no time for an answer")
    return duration_ms


def _driver_named(text: str) -> DriverName:
    try:
        return DriverName(text)
    except ValueError:
        raise TideError(
            Code.INVALID, f"there is no such driver; there are {', '.join(DriverName)}"
        ) from None


OPTIONS: dict[str, _Option] = {
    "mode": _Option("mode", mode_named, None, "what is promised to whom (tidefs mount --mode)"),
    "hard": _Option("timeout_ms", None, None, "wait for unreachable servers for ever (default)"),
    "soft": _Option(
        "timeout_ms", None, SOFT_TIMEOUT_MS, "give up with ETIMEDOUT after timeout=, or 60s"
    ),
    "timeout": _Option(
        "timeout_ms", _positive_duration, None, "how long a soft mount waits, such as 30s"
    ),
    "cache": _Option(
        "cache_bytes", _at_least(DIRTY_MAX_BYTES), None, "memory for cached bytes, such as 1GiB"
    ),
    "read_ahead": _Option(
        "read_ahead_bytes", _at_least(0), None, "how far the kernel reads ahead (root only)"
    ),
    "ro": _Option("read_only", None, True, "nothing can be changed"),
    "rw": _Option("read_only", None, False, "the contrary (default)"),
    "allow_other": _Option("allow_other", None, True, "for all users (default for root)"),
    "allow_self": _Option("allow_other", None, False, "only for the user who mounts"),
    "driver": _Option(
        "driver", _driver_named, None, "kernel (default where it works), or pyfuse3 (libfuse)"
    ),
    "nosuid": _Option("suid", None, False, "set-user-id programs give no rights (default)"),
    "suid": _Option("suid", None, True, "they do (root only)"),
    "nodev": _Option("devices", None, False, "device files open nothing (default)"),
    "dev": _Option("devices", None, True, "they open devices (root only)"),
    "allow_suid": _Option("suid", None, True, "suid, where mount(8) keeps that word to itself"),
    "allow_dev": _Option("devices", None, True, "the same for dev"),
    "exec": _Option("programs", None, True, "programs may be started (default)"),
    "noexec": _Option("programs", None, False, "no program may be started"),
    "relatime": _Option(
        "access_times", None, AccessTimes.RELATIVE, "atime is kept where it tells something"
    ),
    "atime": _Option("access_times", None, AccessTimes.RELATIVE, "the same (default)"),
    "noatime": _Option("access_times", None, AccessTimes.NEVER, "reading changes no atime"),
    "strictatime": _Option("access_times", None, AccessTimes.ALWAYS, "each reading does"),
    "diratime": _Option("directory_access_times", None, True, "also of directories (default)"),
    "nodiratime": _Option("directory_access_times", None, False, "never of directories"),
}

_TOGETHER = {"soft", "timeout"}
"""They set the same thing, the second one more exactly."""


def parse_options(texts: Iterable[str], *, mode: str | None = None) -> MountOptions:
    """``texts`` are comma-separated words, as after ``-o``. ``mode`` is the ``--mode`` option.

    INVALID names the word that is wrong, why, and what there is.
    """
    words = [word.strip() for text in texts for word in text.split(",") if word.strip()]
    given: dict[str, str] = {} if mode is None else {"mode": mode}
    for word in words:
        name, _, value = word.partition("=")
        option = OPTIONS.get(name)
        if option is None:
            raise TideError(
                Code.INVALID, f"-o {word}: there is no such option; there are {', '.join(OPTIONS)}"
            )
        if bool(value) != (option.parse is not None):
            form = f"{name}=VALUE" if option.parse is not None else name
            raise TideError(Code.INVALID, f"-o {word}: it is written {form} ({option.help})")
        if given.get(name, value) != value:
            raise TideError(Code.INVALID, f"-o {word}: {name} was also given as {given[name]!r}")
        given[name] = value
    for one, other in combinations(given, 2):
        if _contradict(one, other):
            raise TideError(Code.INVALID, f"-o {one},{other}: one excludes the other")
    if "timeout" in given and "soft" not in given:
        raise TideError(Code.INVALID, "-o timeout: it is for soft mounts, add soft")
    # "timeout" stands behind "soft" in the table, so that it wins.
    fields: dict[str, Any] = {}
    for name, option in OPTIONS.items():
        if name in given:
            fields[option.field] = _value(name, option, given[name])
    return MountOptions(**fields)


def _contradict(one: str, other: str) -> bool:
    first, second = OPTIONS[one], OPTIONS[other]
    if first.field != second.field or {one, other} == _TOGETHER:
        return False
    return bool(first.parse or second.parse) or first.constant != second.constant


def _value(name: str, option: _Option, text: str) -> Any:
    if option.parse is None:
        return option.constant
    try:
        return option.parse(text)
    except TideError as error:
        raise TideError(error.code, f"-o {name}={text}: {error.detail}") from None


def help_text() -> str:
    """All options, a line each."""
    forms = {
        name: name if option.parse is None else f"{name}=VALUE" for name, option in OPTIONS.items()
    }
    width = max(map(len, forms.values()))
    return "\n".join(f"{forms[name]:<{width}}  {OPTIONS[name].help}" for name in OPTIONS)
