"""The mounts of this machine, from the kernel's list (/proc/self/mountinfo): find ours.

Nothing here looks *into* a mount: one whose servers are away would not answer.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TYPE = "fuse.tidefs"
SOURCE_PREFIX = "tidefs:"
FUSERMOUNT = "fusermount3"


class Mount(NamedTuple):
    """One mount of the kernel's list. ``device`` is its st_dev as ``major:minor``, ``owner``
    and ``group`` who mounted it, as far as FUSE says so."""

    point: str
    type: str
    source: str
    device: str
    owner: int = 0
    group: int = 0

    @property
    def ours(self) -> bool:
        return self.type == TYPE


def mounts() -> list[Mount]:
    """Everything that is mounted, in the order of mounting (proc(5): mountinfo)."""
    return list(_parse(Path("/proc/self/mountinfo").read_text(errors="surrogateescape")))


def mount_at(point: str) -> Mount | None:
    """What is mounted on ``point`` (an absolute path), the topmost; None when nothing is."""
    return next((mount for mount in reversed(mounts()) if mount.point == point), None)


def find(path: str) -> tuple[str, Mount | None]:
    """The mount point that a person means by ``path``, and what is mounted there.

    The last name is not resolved unless it must be: asking a mount whose servers are away, or
    whose process is gone, would hang or fail.
    """
    parent, name = os.path.split(os.path.abspath(path))
    point = os.path.join(os.path.realpath(parent), name)
    mount = mount_at(point)
    if mount is None:
        point = os.path.realpath(point)
        mount = mount_at(point)
    return point, mount


def _parse(text: str) -> Iterator[Mount]:
    for line in text.splitlines():
        front, _, back = line.partition(" - ")
        fields, (kind, source, *options) = front.split(" "), back.split(" ")
        source = _unescape(source)
        if kind == TYPE:
            source = _read_source(source)
        yield Mount(_unescape(fields[4]), kind, source, fields[2], *_owner(options[-1]))


def _owner(options: str) -> tuple[int, int]:
    found = re.search(r"(?:^|,)user_id=(\d+),group_id=(\d+)", options)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def source_of(name: str) -> str:
    """What the kernel's list shows as the source of one of our mounts: ASCII, for libfuse."""
    return SOURCE_PREFIX + name.encode("unicode_escape").decode("ascii")


def _read_source(text: str) -> str:
    try:
        return text.encode("ascii").decode("unicode_escape")
    except UnicodeError:
        return text  # not made by us


def _unescape(text: str) -> str:
    raw = re.sub(
        rb"\\([0-7]{3})",
        lambda found: bytes([int(found[1], 8)]),
        text.encode(errors="surrogateescape"),
    )
    return os.fsdecode(raw)
