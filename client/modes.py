"""The table of caching modes: what each one trusts, and when it tells the servers.

A mode is one row. The caches and the vfs read its fields and never its name, so a new mode is a
new row and not a new code path. `docs/semantics.md` says in words what each row promises.
"""

from enum import Enum
from typing import NamedTuple

from ..fs.errors import Code, TideError
from ..fs.limits import NFS_TRUST_MAX_MS, NFS_TRUST_MIN_MS


class Ground(Enum):
    """Why something cached may be believed."""

    NEVER = "never"
    UNTIL = "until a time"
    PROMISED = "until recalled, and while the session lives"


class Trust(NamedTuple):
    """A ground, and for UNTIL its bounds. Between them the trust in a thing is as long as the
    thing was left unchanged: what changed lately will change soon (RFC 1813 section 4.13)."""

    ground: Ground
    min_ms: int = 0
    max_ms: int = 0

    def for_age(self, unchanged_ms: int) -> int:
        """Milliseconds to trust what has not changed for ``unchanged_ms`` (may be negative)."""
        if self.ground is not Ground.UNTIL:
            return 0
        return min(max(unchanged_ms, self.min_ms), self.max_ms)


class Mode(NamedTuple):
    """One row."""

    name: str
    model: str
    fresh: str
    """For people: what makes sure that the newest is seen."""
    attributes: Trust
    entries: Trust
    """Names, present or absent, as long as their directory's attributes are trusted."""
    cache_data: bool
    """Bytes that were read are kept until an open, or newer attributes, show another version."""
    keep_kernel_cache: bool
    """The kernel may keep its pages at an open that finds the version it knows."""
    direct_io: bool
    """The kernel keeps no pages at all, and every read(2) and write(2) comes here."""
    write_through: bool
    """A write is committed before it returns; else at close, fsync, or when much is dirty."""
    flush_at_close: bool
    promises: bool = False
    """The servers promise what they tell, and recall it before it changes. Each read(2) is of one
    promised version, and each write(2) under an exclusive promise."""


_NFS_TRUST = Trust(Ground.UNTIL, NFS_TRUST_MIN_MS, NFS_TRUST_MAX_MS)

MODES: dict[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode(
            name="uncached",
            model="remote access",
            fresh="always: each call asks the servers",
            attributes=Trust(Ground.NEVER),
            entries=Trust(Ground.NEVER),
            cache_data=False,
            keep_kernel_cache=False,
            direct_io=True,
            write_through=True,
            flush_at_close=True,
        ),
        Mode(
            name="nfs",
            model="remote access, cached",
            fresh="open(2), which asks the server; stat(2) within seconds, at the latest after 60",
            attributes=_NFS_TRUST,
            entries=_NFS_TRUST,
            cache_data=True,
            keep_kernel_cache=True,
            direct_io=False,
            write_through=False,
            flush_at_close=True,
        ),
        Mode(
            name="strict",
            model="sequential",
            fresh="always: nothing changes before what is believed here is recalled",
            attributes=Trust(Ground.PROMISED),
            entries=Trust(Ground.PROMISED),
            cache_data=True,
            keep_kernel_cache=False,
            direct_io=True,
            write_through=True,
            flush_at_close=True,
            promises=True,
        ),
    )
}

DEFAULT_MODE = "nfs"


def mode_named(name: str) -> Mode:
    """The row called ``name``; INVALID lists the names there are."""
    mode = MODES.get(name)
    if mode is None:
        raise TideError(Code.INVALID, f"mode {name!r} is unknown; use one of {', '.join(MODES)}")
    return mode
