"""For tests of POSIX on real mounts: other users, access lists as bytes, calls of the C library."""

import ctypes
import errno
import json
import os

from tidefs.fs import acl
from tidefs.fs.acl import AclEntry, Tag

ACCESS, DEFAULT = acl.ACCESS.decode(), acl.DEFAULT.decode()

_library = ctypes.CDLL(None, use_errno=True)


def a_list(**entries):
    """``a_list(USER_OBJ=7, USER=(5, 1001), ...)`` as the kernel has it."""
    made = [
        AclEntry(Tag[name], *value) if isinstance(value, tuple) else AclEntry(Tag[name], value)
        for name, value in entries.items()
    ]
    return acl.encode(tuple(sorted(made, key=lambda entry: entry.tag)))


def failed(call, *arguments, **more):
    """The name of the errno with which a call fails; empty when it does not."""
    try:
        call(*arguments, **more)
    except OSError as error:
        return errno.errorcode[error.errno]
    return ""


def as_user(uid, gid, work, groups=()):
    """What ``work`` returns, done by a process of that user; the name of its errno if it fails."""
    answer, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(list(groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            said = work()
        except OSError as error:
            said = errno.errorcode[error.errno]
        except BaseException as error:
            said = repr(error)
        os.write(told, json.dumps(said).encode())
        os._exit(0)
    os.close(told)
    with open(answer, "rb") as file:
        said = file.read()
    os.waitpid(pid, 0)
    return json.loads(said)


def mode_of(path):
    """Permission bits."""
    return os.lstat(path).st_mode & 0o7777


def write(path, data=b"x", mode=0o666):
    """Make or empty a file and write to it."""
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode), "wb") as file:
        file.write(data)


AT_FDCWD, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = -100, 0x400, 0x1000


def _called(result):
    return errno.errorcode[ctypes.get_errno()] if result < 0 else ""


def link_open_file(descriptor, path, *, by_proc=False):
    """linkat(2) in its two ways; as ``failed``."""
    old = b"/proc/self/fd/%d" % descriptor if by_proc else b""
    where, flags = (AT_FDCWD, AT_SYMLINK_FOLLOW) if by_proc else (descriptor, AT_EMPTY_PATH)
    return _called(_library.linkat(where, old, AT_FDCWD, os.fsencode(path), flags))


def rename(old, new, flags):
    """renameat2(2); as ``failed``."""
    return _called(
        _library.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)
    )


def getxattr(path, name, room_bytes):
    """How many bytes it has; as ``failed``."""
    room = ctypes.create_string_buffer(max(room_bytes, 1))
    size = _library.getxattr(os.fsencode(path), name.encode(), room, room_bytes)
    return _called(size) or size


def listxattr(path, room_bytes):
    """How many bytes the names have; as ``failed``."""
    room = ctypes.create_string_buffer(max(room_bytes, 1))
    size = _library.listxattr(os.fsencode(path), room, room_bytes)
    return _called(size) or size
