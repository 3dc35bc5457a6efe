"""Whether somebody who waits for a request is about to die of a signal (signal(7)), or exits."""

import signal
from collections.abc import Iterable
from pathlib import Path


def _mask(signals: Iterable[signal.Signals]) -> int:
    return sum(1 << number - 1 for number in signals)


_KILL = _mask([signal.SIGKILL])
_HARMLESS = _mask(
    [
        *(signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT),
        *(signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
    ]
)
"""Where nothing else was said, these end no process; all others do."""


def is_dying(thread: int) -> bool:
    """``thread`` as in a request: its number, 0 for one that has none on this machine. Of whom
    nothing can be known counts as dying, so that it does not hang for ever."""
    if not thread:
        return True
    try:
        status = Path(f"/proc/{thread}/status").read_text()
    except OSError:
        return True
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    pending, shared, blocked, ignored, caught = (
        int(fields[name], 16) for name in ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")
    )
    deadly = (pending | shared) & ~(blocked | ignored | caught | _HARMLESS)
    return bool(deadly | pending & _KILL)


_EXITING = 0x4
"""PF_EXITING of the kernel's task flags (<linux/sched.h>), the ninth field of proc_pid_stat(5)."""
_FLAGS_BEHIND_NAME = 6


def is_exiting(thread: int) -> bool:
    """Whether it is over, so that its files are closed by nobody who would hear of an error."""
    if not thread:
        return True
    try:
        stat = Path(f"/proc/{thread}/stat").read_text()
    except OSError:
        return True
    return bool(int(stat.rpartition(")")[2].split()[_FLAGS_BEHIND_NAME]) & _EXITING)
