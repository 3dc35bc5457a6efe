"""Mounting without libfuse: gives /dev/fuse, opened and mounted on a directory.

Root mounts by mount(2), with the options of the kernel's Documentation/filesystems/fuse.rst. An
ordinary user has it done by fusermount3, a set-user-id program, which passes the opened device
back over a socket (SCM_RIGHTS; fuse(8) and libfuse's lib/mount.c say how it is asked).
"""

import ctypes
import errno
import os
import socket
import stat
import subprocess

from ...fs.errors import Code, TideError
from .. import mounts
from ..options import AccessTimes, MountOptions

DEVICE = "/dev/fuse"
COMMUNICATION = "_FUSE_COMMFD"
"""The environment variable that tells fusermount3 its end of the socket."""

# mount(2), sys/mount.h
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_NOATIME = 1 << 10
MS_NODIRATIME = 1 << 11
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24

_ATIME_FLAGS = {
    AccessTimes.NEVER: MS_NOATIME,
    AccessTimes.RELATIVE: MS_RELATIME,
    AccessTimes.ALWAYS: MS_STRICTATIME,
}


def attach(point: str, name: str, options: MountOptions) -> int:
    """A descriptor of /dev/fuse (non-blocking, close-on-exec) that is mounted on ``point``.

    ``name`` is what a list of mounts shows. NOT_PERMITTED with the kernel's or fusermount3's
    reason; NOT_SUPPORTED when this machine lacks something.
    """
    check_rights(options)
    if os.geteuid() == 0:
        return _attach_as_root(point, name, options)
    return _attach_as_user(point, name, options)


def check_rights(options: MountOptions) -> None:
    """NOT_PERMITTED when this user may not have what ``options`` ask for."""
    if os.geteuid() == 0:
        return
    for word, wanted in (("suid", options.suid), ("dev", options.devices)):
        if wanted:
            raise TideError(Code.NOT_PERMITTED, f"-o {word}: only root may mount with that")


def open_to_others(options: MountOptions) -> bool:
    """Whether users beside the one who mounts may use it."""
    return os.geteuid() == 0 if options.allow_other is None else options.allow_other


def flags_of(options: MountOptions) -> int:
    """The ``mountflags`` of mount(2)."""
    flags = _ATIME_FLAGS[options.access_times]
    for flag, wanted in (
        (MS_RDONLY, options.read_only),
        (MS_NOSUID, not options.suid),
        (MS_NODEV, not options.devices),
        (MS_NOEXEC, not options.programs),
        (MS_NODIRATIME, not options.directory_access_times),
    ):
        if wanted:
            flags |= flag
    return flags


def words_of(name: str, options: MountOptions) -> list[str]:
    """The same and more, as libfuse and fusermount3 take it behind ``-o``.

    They know no word for relatime and strictatime, which the kernel does not look at anyhow.
    """
    source = mounts.source_of(name).replace("\\", "\\\\").replace(",", "\\,")
    words = [f"fsname={source}", "subtype=tidefs", "default_permissions"]
    for word, wanted in (
        ("allow_other", open_to_others(options)),
        ("ro", options.read_only),
        ("suid", options.suid),
        ("dev", options.devices),
        ("noexec", not options.programs),
        ("noatime", options.access_times is AccessTimes.NEVER),
    ):
        if wanted:
            words.append(word)
    return words


def _attach_as_root(point: str, name: str, options: MountOptions) -> int:
    try:
        device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise TideError(Code.NOT_SUPPORTED, f"{DEVICE}: {error.strerror}") from None
    try:
        data = [
            f"fd={device}",
            f"rootmode={stat.S_IFMT(os.stat(point).st_mode):o}",
            f"user_id={os.geteuid()}",
            f"group_id={os.getegid()}",
            "default_permissions",
        ]
        if open_to_others(options):
            data.append("allow_other")
        _mount(mounts.source_of(name), point, mounts.TYPE, flags_of(options), ",".join(data))
    except OSError as error:
        os.close(device)
        raise _refused(point, _in_words(error)) from None
    return device


def _mount(source: str, point: str, kind: str, flags: int, data: str) -> None:
    """mount(2); OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.mount(
        os.fsencode(source),
        os.fsencode(point),
        kind.encode(),
        ctypes.c_ulong(flags),
        data.encode(),
    )
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), point)


def _in_words(error: OSError) -> str:
    if error.errno == errno.EPERM:
        return "root lacks the right to mount here (a container needs --cap-add SYS_ADMIN)"
    if error.errno == errno.ENODEV:
        return "the kernel has no FUSE: modprobe fuse"
    return error.strerror or str(error)


def _attach_as_user(point: str, name: str, options: MountOptions) -> int:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        with theirs:
            try:
                process = subprocess.Popen(
                    [mounts.FUSERMOUNT, "-o", ",".join(words_of(name, options)), "--", point],
                    env={**os.environ, COMMUNICATION: str(theirs.fileno())},
                    stdin=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    pass_fds=[theirs.fileno()],
                    text=True,
                )
            except FileNotFoundError:
                raise TideError(
                    Code.NOT_SUPPORTED,
                    f"{mounts.FUSERMOUNT} is missing: install fuse3, or mount as root",
                ) from None
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        _, said = process.communicate()
    if not descriptors:
        raise _refused(point, said.strip() or f"{mounts.FUSERMOUNT} gives no reason")
    os.set_inheritable(descriptors[0], False)
    os.set_blocking(descriptors[0], False)
    return descriptors[0]


def _refused(point: str, reason: str) -> TideError:
    return TideError(Code.NOT_PERMITTED, f"{point} cannot be mounted: {reason}")
