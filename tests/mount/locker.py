"""A process that locks files as it is told, for tests between mounts.

    python locker.py

Reads Python expressions, one a line, and answers each with a line: ``= repr`` of its value, or
``! NAME`` of the errno. A signal (SIGUSR1) interrupts what waits.
"""

import errno
import fcntl
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable

FLOCK64 = struct.Struct("hhqqi4x")
OFD_GETLK, OFD_SETLK, OFD_SETLKW = 36, 37, 38
KINDS = {"r": fcntl.F_RDLCK, "w": fcntl.F_WRLCK, "u": fcntl.F_UNLCK}
NAMES = {number: name for name, number in KINDS.items()}

files: dict[str, int] = {}


def open_(path: str, name: str = "file", flags: int = os.O_RDWR | os.O_CREAT) -> None:
    files[name] = os.open(path, flags, 0o666)


def close(name: str = "file") -> None:
    os.close(files.pop(name))


def dup(name: str, other: str) -> None:
    files[other] = os.dup(files[name])


def _ask(
    command: int, kind: str, start: int, length: int, name: str
) -> tuple[str, int, int, int] | None:
    """``length`` 0: to the end of all files."""
    asked = FLOCK64.pack(KINDS[kind], os.SEEK_SET, start, length, 0)
    answer = fcntl.fcntl(files[name], command, asked)
    found, _, begin, size, pid = FLOCK64.unpack(answer)
    return None if found == fcntl.F_UNLCK else (NAMES[found], begin, size, pid)


def lock(kind: str, start: int = 0, length: int = 0, name: str = "file") -> None:
    _ask(fcntl.F_SETLK, kind, start, length, name)


def lockw(kind: str, start: int = 0, length: int = 0, name: str = "file") -> None:
    _ask(fcntl.F_SETLKW, kind, start, length, name)


def getlk(
    kind: str, start: int = 0, length: int = 0, name: str = "file"
) -> tuple[str, int, int, int] | None:
    return _ask(fcntl.F_GETLK, kind, start, length, name)


def ofd(kind: str, start: int = 0, length: int = 0, name: str = "file") -> None:
    _ask(OFD_SETLK, kind, start, length, name)


def flock(kind: str, name: str = "file") -> None:
    modes = {"r": fcntl.LOCK_SH, "w": fcntl.LOCK_EX, "u": fcntl.LOCK_UN}
    fcntl.flock(files[name], modes[kind] | fcntl.LOCK_NB)


def flockw(kind: str, name: str = "file") -> None:
    fcntl.flock(files[name], {"r": fcntl.LOCK_SH, "w": fcntl.LOCK_EX}[kind])


def read(length: int = 1 << 20, at: int = 0, name: str = "file") -> bytes:
    return os.pread(files[name], length, at)


def write(data: bytes, at: int = 0, name: str = "file") -> int:
    return os.pwrite(files[name], data, at)


def append(data: bytes, name: str = "file") -> int:
    return os.write(files[name], data)


def sync(name: str = "file") -> None:
    os.fsync(files[name])


def token(name: str = "file") -> int:
    return int(os.getxattr(files[name], "user.tidefs.fence"))


def in_child(work: Callable[[], object]) -> str:
    """What a child of a fork answers, with the same open files; it ends then."""
    here, there = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(there, _answer(work).encode())
        os._exit(0)
    os.close(there)
    text = os.read(here, 1 << 16).decode()
    os.close(here)
    os.waitpid(pid, 0)
    return text


def exec_and_hold(name: str = "file") -> None:
    """Become another program, which keeps the file open until its standard input ends."""
    os.set_inheritable(files[name], True)
    sys.stdout.write("= None\n")
    sys.stdout.flush()
    os.execv("/bin/cat", ["cat"])


def spawn_and_leave(name: str = "file") -> int:
    """A program that has the file open too; its pid."""
    process = subprocess.Popen(["sleep", "1000"], pass_fds=[files[name]])
    return process.pid


def thread_unlocks(kind: str) -> None:
    """Another thread of this process gives all back."""
    worker = threading.Thread(target=lock, args=(kind,))
    worker.start()
    worker.join()


def count(kind: str, times: int) -> None:
    """Add to the number in the file, each time under a lock."""
    for _ in range(times):
        lockw("w") if kind == "fcntl" else flockw("w")
        number = int.from_bytes(read(8), "little")
        write((number + 1).to_bytes(8, "little"))
        lock("u") if kind == "fcntl" else flock("u")


def _answer(work: Callable[[], object]) -> str:
    try:
        return f"= {work()!r}"
    except OSError as error:
        return f"! {errno.errorcode[error.errno or 0]}"


def main() -> None:
    # So that a signal ends what waits, instead of having it begun again.
    def interrupted(number: int, _: object) -> None:
        raise InterruptedError(errno.EINTR, f"signal {number}")

    signal.signal(signal.SIGUSR1, interrupted)
    for line in sys.stdin:
        code = compile(line.strip(), "order", "eval")
        sys.stdout.write(_answer(lambda code=code: eval(code)) + "\n")  # type: ignore[misc]
        sys.stdout.flush()


if __name__ == "__main__":
    main()
