"""What campaigns start as processes of their own: one on each mount, told apart by their names.

    python worker.py counter (flock|fcntl) FILE COUNT
    python worker.py sqlite DATABASE COUNT NAME
    python worker.py holder FILE

Exit code 0 when all was done; what went wrong stands on standard error.
"""

import fcntl
import os
import sqlite3
import sys

COUNTER_BYTES = 8
BUSY_TIMEOUT_S = 120.0


def counter(kind: str, path: str, count: str) -> None:
    """Add 1 to the number in a file, ``count`` times, each time under an exclusive lock."""
    take = fcntl.flock if kind == "flock" else fcntl.lockf
    descriptor = os.open(path, os.O_RDWR)
    for _ in range(int(count)):
        take(descriptor, fcntl.LOCK_EX)
        number = int.from_bytes(os.pread(descriptor, COUNTER_BYTES, 0), "little")
        os.pwrite(descriptor, (number + 1).to_bytes(COUNTER_BYTES, "little"), 0)
        take(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def sqlite(path: str, count: str, name: str) -> None:
    """``count`` transactions: a row each, and 1 moved from the account of one to the other's."""
    database = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    for number in range(int(count)):
        database.execute("begin immediate")
        database.execute("insert into work values (?, ?)", (name, number))
        (left,) = database.execute("select value from accounts where name = 'left'").fetchone()
        (right,) = database.execute("select value from accounts where name = 'right'").fetchone()
        step = 1 if name == "one" else -1
        database.execute("update accounts set value = ? where name = 'left'", (left - step,))
        database.execute("update accounts set value = ? where name = 'right'", (right + step,))
        database.execute("commit")
    database.close()


def holder(path: str) -> None:
    """Do what standard input says, a word a line; answer each with ``ok`` or an errno's name."""
    descriptor = os.open(path, os.O_RDWR)
    for line in sys.stdin:
        word, *arguments = line.split()
        try:
            answer = _obey(descriptor, word, arguments)
        except OSError as error:
            answer = os.strerror(error.errno or 0)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _obey(descriptor: int, word: str, arguments: list[str]) -> str:
    if word == "flock":
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    elif word == "unlock":
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    elif word == "write":
        text, length = arguments
        os.pwrite(descriptor, text.encode() * int(length), 0)
    elif word == "sync":
        os.fsync(descriptor)
    elif word == "read":
        return repr(os.pread(descriptor, int(arguments[0]), 0))
    elif word == "token":
        return os.getxattr(descriptor, "user.tidefs.fence").decode()
    else:
        raise ValueError(word)
    return "ok"


if __name__ == "__main__":
    {"counter": counter, "sqlite": sqlite, "holder": holder}[sys.argv[1]](*sys.argv[2:])
