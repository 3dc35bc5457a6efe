"""The mount point: whether this machine can mount, and whether that place is free.

What a client that crashed left there is taken away, so that the next mount takes its place.
"""

import errno
import logging
import os
import shutil
import stat
import subprocess

import trio

from ..fs.errors import Code, TideError
from . import mounts, notes
from .unmounting import detach

log = logging.getLogger(__name__)

FUSE_DEVICE = "/dev/fuse"
STALE_CHECK_S = 5.0


def check_machine() -> None:
    """NOT_SUPPORTED when this machine cannot mount anything, with the remedy."""
    try:
        mode = os.stat(FUSE_DEVICE).st_mode
    except OSError as error:
        raise TideError(
            Code.NOT_SUPPORTED,
            f"{FUSE_DEVICE}: {error.strerror}; load the kernel module (modprobe fuse), or give the"
            " container the device (--device /dev/fuse --cap-add SYS_ADMIN)",
        ) from None
    if not stat.S_ISCHR(mode):
        raise TideError(Code.NOT_SUPPORTED, f"{FUSE_DEVICE} is not a device")
    if os.geteuid() == 0:
        return
    if shutil.which(mounts.FUSERMOUNT) is None:
        raise TideError(
            Code.NOT_SUPPORTED, f"{mounts.FUSERMOUNT} is missing: install fuse3, or mount as root"
        )


async def free_point(path: str) -> str:
    """The absolute path of a mount point that can be used now.

    What a crashed client left there is taken away first. NO_ENTRY, NOT_A_DIRECTORY, ACCESS_DENIED;
    BUSY when something is mounted there.
    """
    point, mount = mounts.find(path)
    while mount is not None and mount.ours and await _is_stale(mount):
        log.warning("%s is the mount of a client that is gone: it is replaced", point)
        detach(point, lazy=True)
        point, mount = mounts.find(path)
    if mount is not None:
        name = mount.source.removeprefix(mounts.SOURCE_PREFIX)
        remedy = f"tidefs umount {point}" if mount.ours else f"umount {point}"
        raise TideError(
            Code.BUSY, f"{name} ({mount.type}) is mounted on {point}; first do: {remedy}"
        )
    try:
        if not stat.S_ISDIR(os.stat(point).st_mode):
            raise TideError(Code.NOT_A_DIRECTORY, f"mount point {point}")
    except FileNotFoundError:
        raise TideError(Code.NO_ENTRY, f"mount point {point} (make it first: mkdir)") from None
    except OSError as error:
        raise TideError(Code.ACCESS_DENIED, f"mount point {point}: {error.strerror}") from None
    return point


async def _is_stale(mount: mounts.Mount) -> bool:
    """Whether its process is gone: then the kernel has cut the connection."""
    if notes.note_of(mount) is not None:
        return False

    with trio.move_on_after(STALE_CHECK_S):
        return await trio.to_thread.run_sync(_is_cut, mount, abandon_on_cancel=True)
    return False


def _is_cut(mount: mounts.Mount) -> bool:
    """Whether the kernel refuses what is never answered from its caches."""
    if os.geteuid() == 0 and mount.owner != 0:
        return _is_cut_for_owner(mount)
    try:
        os.statvfs(mount.point)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def _is_cut_for_owner(mount: mounts.Mount) -> bool:
    """Root is not let into another user's mount, and not told whether it is served either."""
    try:
        asked = subprocess.run(
            ["stat", "--file-system", "--", mount.point],
            user=mount.owner,
            group=mount.group,
            extra_groups=[],
            env={"PATH": os.defpath, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
            timeout=STALE_CHECK_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return os.strerror(errno.ENOTCONN) in asked.stderr
