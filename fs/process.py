"""What every process of ours does as one: have its folder alone, end at a signal, say that it is
ready, and use memory in a way that fits long lives and large buffers."""

import contextlib
import ctypes
import fcntl
import gc
import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from .errors import Code, TideError
from .identity import LOCK

log = logging.getLogger(__name__)

# mallopt(3)
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
KEPT_BLOCK_BYTES = 16 << 20
KEPT_TOTAL_BYTES = 128 << 20

COLLECT_AFTER = (50_000, 20, 100)
"""gc.set_threshold: a cache of many small objects that live on is walked in vain at each turn of
the default (700, 10, 10); that was a quarter of the client's CPU in creating files."""


@contextmanager
def locked(folder: str, role: str) -> Iterator[None]:
    """Have the data folder, made if it is missing, for this process alone. BUSY when another one
    has it."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        path = os.path.join(folder, LOCK)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise TideError(
            Code.FOREIGN_FOLDER, f"{folder} cannot be used ({error.strerror}): name another folder"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TideError(
                Code.BUSY, f"{folder} is in use by another {role}: end that one first"
            ) from None
        yield
    finally:
        os.close(descriptor)


async def stop_at_signal(
    stop: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """The first SIGTERM or SIGINT calls ``stop``; a second one ends the process where it stands."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            log.info("ending: %s", signal.Signals(number).name)
            stop()
            return


def tell_ready(path: str, addresses: list[str]) -> None:
    """Let whoever started this process know that it listens: write the file, if one is named."""
    if path:
        new = Path(path + ".new")
        new.write_text(json.dumps({"pid": os.getpid(), "addresses": addresses}) + "\n")
        new.rename(path)


def use_memory_freely() -> None:
    """Have the C library keep freed blocks: each payload arrives in a fresh buffer of up to 4 MiB,
    and to map, fault in and unmap it costs more than to copy it. And collect garbage less often."""
    gc.set_threshold(*COLLECT_AFTER)
    with contextlib.suppress(AttributeError, OSError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_TOTAL_BYTES)
