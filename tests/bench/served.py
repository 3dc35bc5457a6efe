"""Programs that serve a mount until it is unmounted, and what is measured through them."""

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tidefs.client import mounts
from tidefs.client.mount import set_read_ahead

MIB = 1 << 20


@contextlib.contextmanager
def served(*command: str | Path) -> Iterator[tuple[Path, int]]:
    """Run ``command``, which says "ready" when it has mounted: where, and its process id.

    ``POINT`` among the words stands for the mount point; it is unmounted at the end.
    """
    with tempfile.TemporaryDirectory(prefix="tidefs-bench.") as folder:
        words = [folder if word == "POINT" else str(word) for word in command]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            if process.stdout.readline().strip() != "ready":
                raise SystemExit(f"{words} did not mount")
            mount = mounts.mount_at(folder)
            assert mount is not None
            set_read_ahead(mount.device, MIB)
            yield Path(folder), process.pid
        finally:
            subprocess.run(["umount", "-l", folder], check=False)
            process.wait(timeout=30)


def cpu_ns(pid: int) -> int:
    """What all living threads of a process have run, in ns (proc(5), schedstat)."""
    return sum(
        int((task / "schedstat").read_text().split()[0])
        for task in Path(f"/proc/{pid}/task").iterdir()
    )


def forget_pages(path: Path) -> None:
    """Drop what the kernel holds of a file's bytes."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def read_mib_per_s(path: Path) -> float:
    """All of a file, 1 MiB at a time, none of it in the kernel."""
    forget_pages(path)
    buffer = memoryview(bytearray(MIB))
    with open(path, "rb", 0) as file:
        began = time.perf_counter()
        total = 0
        while count := file.readinto(buffer):
            total += count
        return total / MIB / (time.perf_counter() - began)


def write_mib_per_s(path: Path, size_bytes: int) -> float:
    """So many bytes over what is there, 1 MiB at a time."""
    noise = os.urandom(MIB)
    descriptor = os.open(path, os.O_WRONLY)
    try:
        began = time.perf_counter()
        for offset in range(0, size_bytes, MIB):
            os.pwrite(descriptor, noise, offset)
        return size_bytes / MIB / (time.perf_counter() - began)
    finally:
        os.close(descriptor)


def median(values: Sequence[float]) -> float:
    """The one in the middle."""
    return sorted(values)[len(values) // 2]
