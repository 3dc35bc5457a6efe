"""Applications at work on a mount: unpacking, fio with verify, and a loop over names."""

import contextlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from stage import CampaignError, Stage, compare, local_copy, run, say, top_of

PROGRAMS = frozenset({"tar", "fio", "names"})
NAMES_S = 5


class Load:
    """Applications at work on a mount, until told to stop; the first complaint ends it all.

    Each program is started again as soon as it has ended, so that all of them run nearly always.
    """

    def __init__(self, point: Path, tarball: Path) -> None:
        self.point = point
        self._tarball = tarball
        self._pristine = local_copy(tarball)
        self._stop = threading.Event()
        self._complaints: list[str] = []
        self._running: set[str] = set()
        self._done = dict.fromkeys(sorted(PROGRAMS), 0)
        works = {"tar": self._unpack, "fio": self._fio, "names": self._names}
        self._threads = [
            threading.Thread(target=self._repeat, args=one, name=one[0]) for one in works.items()
        ]

    @property
    def complaints(self) -> list[str]:
        """What went wrong so far."""
        return list(self._complaints)

    @property
    def at_work(self) -> frozenset[str]:
        """Those of PROGRAMS that run at this moment."""
        return frozenset(self._running)

    def check(self) -> None:
        """CampaignError when anything went wrong so far."""
        if self._complaints:
            raise CampaignError("\n".join(self._complaints))

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Let each program end by itself, then compare. CampaignError when anything went wrong."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        try:
            self.check()
            say(", ".join(f"{name}: {count} times" for name, count in self._done.items()))
            self._compare()
        finally:
            shutil.rmtree(self._pristine.parent, ignore_errors=True)

    def _compare(self) -> None:
        """Only now: what comparing would notice at once, it notices after all that happened."""
        top = top_of(self._tarball)
        for number in range(self._done["tar"]):
            count = compare(self._pristine, self._unpacked(number) / top)
            say(f"tree {number + 1} that was unpacked: {count} entries identical")

    def _repeat(self, name: str, work: Callable[[int], None]) -> None:
        try:
            while not self._stop.is_set() or not self._done[name]:
                work(self._done[name])
                self._done[name] += 1
        except (CampaignError, OSError, subprocess.SubprocessError) as error:
            self._complaints.append(f"{name}: {error}")

    def _run(self, name: str, folder: Path, *command: str | Path) -> None:
        self._running.add(name)
        try:
            run(*command, cwd=folder)
        finally:
            self._running.discard(name)

    def _unpacked(self, number: int) -> Path:
        return self.point / f"unpacked-{number}"

    def _unpack(self, number: int) -> None:
        folder = self._unpacked(number)
        folder.mkdir()
        self._run("tar", folder, "tar", "-xf", self._tarball)

    def _fio(self, number: int) -> None:
        folder = self.point / f"fio-{number}"
        folder.mkdir()
        self._run(
            *("fio", folder, "fio", "--name=verify", f"--directory={folder}", "--rw=randrw"),
            *("--bsrange=4k-64k", "--size=64m", "--ioengine=psync", "--verify=crc32c"),
            *("--verify_fatal=1", "--do_verify=1", f"--randseed={number}", "--fallocate=none"),
        )
        shutil.rmtree(folder)

    def _names(self, number: int) -> None:
        folder = self.point / f"names-{number}"
        folder.mkdir()
        loop = Path(__file__).with_name("names.py")
        self._run("names", folder.parent, sys.executable, loop, folder, str(NAMES_S))
        folder.rmdir()


@contextlib.contextmanager
def under_load(cluster: Stage, tarball: Path) -> Iterator[Load]:
    """Applications work on a mount meanwhile."""
    load = Load(cluster.mount(), tarball.absolute())
    load.start()
    try:
        yield load
    finally:
        load.finish()
