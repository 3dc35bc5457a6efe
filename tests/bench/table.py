"""What work on a directory costs, beside the same work on a local one, as a Markdown table.

    tests/bench/table.py DIR [--label X] [--local DIR2] [--remount COMMAND] [--quick] ...

Both directories are measured in the same run, in turns, because the figures of a machine change
from hour to hour: the ratio is what counts. It is a ratio of speeds; 0.50 means half as fast as
the local directory. Each figure is the median of the rounds.

"cold" means that this machine's kernel forgot what it had cached (drop_caches, which needs root;
without it those lines say so), and, with --remount, that DIR was unmounted and mounted again, which
empties the caches of its client. Caches of servers and of the disk stay.

What is written is pseudo-random, so nothing can compress it or find it twice, and what is read back
is compared with what was written: a wrong byte ends the run.
"""

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB

Figure = tuple[str, str, float]
"""The name of a case, its unit (s: less is better, all others: more), the value."""


@dataclass(frozen=True)
class Sizes:
    """How much work each case is."""

    files: int = 2000
    small_files: int = 1000
    listed: int = 10000
    folders: int = 1000
    stream_mib: int = 512
    random_ops: int = 4096
    fsyncs: int = 500
    appends: int = 5000
    cycles: int = 300
    workers: int = 4


QUICK = Sizes(
    files=200,
    small_files=100,
    listed=1000,
    folders=100,
    stream_mib=32,
    random_ops=256,
    fsyncs=50,
    appends=500,
    cycles=30,
)


class WrongAnswerError(Exception):
    """What was read is not what was written."""


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def seconds(self) -> float:
        return max(time.perf_counter() - self._start, 1e-9)

    def rate(self, done: float) -> float:
        return done / self.seconds()


class Data:
    """Pseudo-random bytes by number: the same number gives the same bytes, others differ."""

    def __init__(self) -> None:
        self._bytes = random.Random(7).randbytes(4 * MIB)

    def piece(self, number: int, length: int) -> bytes:
        """``length`` bytes, at most 2 MiB."""
        start = number * 769_231 % (2 * MIB)
        return self._bytes[start : start + length]


DATA = Data()


def expect(found: object, wanted: object, what: str) -> None:
    """WrongAnswerError unless both are the same."""
    if found != wanted:
        raise WrongAnswerError(f"{what}: not what was written")


def settle() -> None:
    """Have older writes done, so that they are not paid for by the next case."""
    os.sync()


class Remounting:
    """The command that mounts anew what is being measured now, if there is one."""

    command = ""


def forget(level: int) -> bool:
    """Empty the kernel's caches (2: names and attributes, 3: also data); False if not allowed."""
    settle()
    if Remounting.command:
        run("sh", "-c", Remounting.command)
    try:
        Path("/proc/sys/vm/drop_caches").write_text(str(level))
    except OSError:
        return False
    return True


def cold(name: str, level: int) -> str:
    """The name of a cold case, said honestly."""
    return name if forget(level) else name.replace("_cold", "_not_cold")


def write_new(path: Path, data: bytes) -> None:
    with open(path, "xb", buffering=0) as file:
        written = file.write(data)
    expect(written, len(data), f"{path}: a short write")


def read_whole(path: Path) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.readall()


def in_another_order(paths: list[Path]) -> list[Path]:
    return random.Random(len(paths)).sample(paths, len(paths))


# --- the cases: each is given an empty folder and yields figures ----------------------------------


def empty_files(folder: Path, sizes: Sizes) -> Iterator[Figure]:
    paths = [folder / f"f{number}" for number in range(sizes.files)]
    settle()
    watch = Stopwatch()
    for path in paths:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    yield "create_empty", "files/s", watch.rate(len(paths))
    mixed = in_another_order(paths)
    for name in (cold("stat_cold", 2), "stat_warm"):
        watch = Stopwatch()
        for path in mixed:
            os.stat(path)
        yield name, "ops/s", watch.rate(len(paths))
    settle()
    watch = Stopwatch()
    for path in paths:
        os.rename(path, f"{path}.renamed")
    yield "rename", "ops/s", watch.rate(len(paths))
    expect(len(os.listdir(folder)), len(paths), "the names after the renaming")
    settle()
    watch = Stopwatch()
    for path in paths:
        os.unlink(f"{path}.renamed")
    yield "unlink_empty", "ops/s", watch.rate(len(paths))
    expect(os.listdir(folder), [], "the names after the unlinking")


def small_files(folder: Path, sizes: Sizes) -> Iterator[Figure]:
    paths = [folder / f"s{number}" for number in range(sizes.small_files)]
    contents = {path: DATA.piece(number, 4 * KIB) for number, path in enumerate(paths)}
    settle()
    watch = Stopwatch()
    for path, content in contents.items():
        write_new(path, content)
    yield "create_4k", "files/s", watch.rate(len(paths))
    mixed = in_another_order(paths)
    for name in (cold("small_read_cold", 3), "small_read_warm"):
        watch = Stopwatch()
        for path in mixed:
            expect(read_whole(path), contents[path], str(path))
        yield name, "files/s", watch.rate(len(paths))
    settle()
    watch = Stopwatch()
    for path in paths:
        os.unlink(path)
    yield "unlink_4k", "ops/s", watch.rate(len(paths))


def folders(folder: Path, sizes: Sizes) -> Iterator[Figure]:
    paths = [folder / f"d{number}" for number in range(sizes.folders)]
    settle()
    for name, work in (("mkdir", os.mkdir), ("rmdir", os.rmdir)):
        watch = Stopwatch()
        for path in paths:
            work(path)
        yield name, "ops/s", watch.rate(len(paths))


def listing(folder: Path, sizes: Sizes) -> Iterator[Figure]:
    for number in range(sizes.listed):
        os.close(os.open(folder / f"entry{number}", os.O_CREAT | os.O_WRONLY, 0o644))
    for name in (cold("ls_l_cold", 2), "ls_l_warm"):
        watch = Stopwatch()
        with os.scandir(folder) as entries:
            seen = sum(entry.stat(follow_symlinks=False).st_size == 0 for entry in entries)
        yield name, "entries/s", watch.rate(seen)
        expect(seen, sizes.listed, "the number of entries")


def source_tree(folder: Path, sizes: Sizes) -> Iterator[Figure]:
    archive = library_archive(sizes)
    settle()
    watch = Stopwatch()
    run("tar", "-xf", archive, "-C", folder)
    yield "untar", "s", watch.seconds()
    for name in (cold("tree_cat_cold", 3), "tree_cat_warm"):
        watch = Stopwatch()
        total = sum(len(read_whole(path)) for path in folder.rglob("*") if path.is_file())
        yield name, "s", watch.seconds()
    with tarfile.open(archive) as packed:
        expect(total, sum(member.size for member in packed), "the size of all files")
        for member in packed:
            content = packed.extractfile(member)
            assert content is not None
            expect(read_whole(folder / member.name), content.read(), member.name)
    if shutil.which("git"):
        yield from git(folder)
    settle()
    watch = Stopwatch()
    shutil.rmtree(folder)
    yield "tree_rm", "s", watch.seconds()


def git(folder: Path) -> Iterator[Figure]:
    me = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    settle()
    watch = Stopwatch()
    run("git", "-C", folder, "init", "-q")
    run("git", "-C", folder, "add", ".")
    run("git", "-C", folder, *me, "commit", "-q", "-m", "all of it")
    yield "git_commit", "s", watch.seconds()
    for name in (cold("git_status_cold", 2), "git_status_warm"):
        watch = Stopwatch()
        changes = run("git", "-C", folder, "status", "--porcelain")
        yield name, "s", watch.seconds()
        expect(changes, "", "git status")


def stream(folder: Path, sizes: Sizes) -> Iterator[Figure]:
    path = folder / "stream"
    megabytes = sizes.stream_mib * MIB / 1e6
    settle()
    watch = Stopwatch()
    with open(path, "xb", buffering=0) as file:
        for number in range(sizes.stream_mib):
            expect(file.write(DATA.piece(number, MIB)), MIB, "a short write")
        os.fsync(file.fileno())
    yield "seq_write", "MB/s", watch.rate(megabytes)
    for name in (cold("seq_read_cold", 3), "seq_read_warm"):
        watch = Stopwatch()
        with open(path, "rb", buffering=0) as file:
            while file.read(MIB):
                pass
        yield name, "MB/s", watch.rate(megabytes)
    with open(path, "rb", buffering=MIB) as file:
        for number in range(sizes.stream_mib):
            expect(file.read(MIB), DATA.piece(number, MIB), f"MiB {number} of the stream")
    yield from random_access(path, sizes)


def random_access(path: Path, sizes: Sizes) -> Iterator[Figure]:
    """4 KiB at random places of a file that `stream` wrote."""
    places = random.Random(3).sample(range(sizes.stream_mib * 256), sizes.random_ops)
    forget(3)
    descriptor = os.open(path, os.O_RDWR)
    try:
        watch = Stopwatch()
        for place in places:
            found = os.pread(descriptor, 4 * KIB, place * 4 * KIB)
            start = place % 256 * 4 * KIB
            expect(found, DATA.piece(place // 256, MIB)[start : start + 4 * KIB], f"page {place}")
        yield "rand_read_4k", "ops/s", watch.rate(len(places))
        settle()
        watch = Stopwatch()
        for number, place in enumerate(places):
            os.pwrite(descriptor, DATA.piece(number, 4 * KIB), place * 4 * KIB)
        os.fsync(descriptor)
        yield "rand_write_4k", "ops/s", watch.rate(len(places))
        for number, place in enumerate(places):
            found = os.pread(descriptor, 4 * KIB, place * 4 * KIB)
            expect(found, DATA.piece(number, 4 * KIB), f"page {place}, overwritten")
    finally:
        os.close(descriptor)


def durable(folder: Path, sizes: Sizes) -> Iterator[Figure]:
    settle()
    with open(folder / "journal", "xb", buffering=0) as file:
        watch = Stopwatch()
        for number in range(sizes.fsyncs):
            file.write(DATA.piece(number, 4 * KIB))
            os.fsync(file.fileno())
        yield "fsync_4k", "ops/s", watch.rate(sizes.fsyncs)
    wanted = b"".join(DATA.piece(number, 4 * KIB) for number in range(sizes.fsyncs))
    expect(read_whole(folder / "journal"), wanted, "the journal")


def appending(folder: Path, sizes: Sizes) -> Iterator[Figure]:
    settle()
    with open(folder / "records", "ab", buffering=0) as file:
        watch = Stopwatch()
        for number in range(sizes.appends):
            file.write(DATA.piece(number, KIB))
        os.fsync(file.fileno())
        yield "append_1k", "records/s", watch.rate(sizes.appends)
    wanted = b"".join(DATA.piece(number, KIB) for number in range(sizes.appends))
    expect(read_whole(folder / "records"), wanted, "the records")


def several_at_once(folder: Path, sizes: Sizes) -> Iterator[Figure]:
    """Processes, each in a folder of its own: create and write 16 KiB, read it back, unlink."""
    settle()
    watch = Stopwatch()
    children = []
    for worker in range(sizes.workers):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                cycles(folder / f"w{worker}", worker, sizes.cycles)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    outcomes = [os.waitpid(child, 0)[1] for child in children]
    yield f"mixed_p{sizes.workers}", "cycles/s", watch.rate(sizes.cycles * sizes.workers)
    expect(outcomes, [0] * sizes.workers, "the outcome of the processes")


def cycles(folder: Path, worker: int, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        path, content = folder / f"c{number}", DATA.piece(number * 31 + worker, 16 * KIB)
        write_new(path, content)
        expect(read_whole(path), content, str(path))
        path.unlink()


CASES: dict[str, Callable[[Path, Sizes], Iterator[Figure]]] = {
    "files": empty_files,
    "small": small_files,
    "folders": folders,
    "listing": listing,
    "tree": source_tree,
    "stream": stream,
    "durable": durable,
    "append": appending,
    "mixed": several_at_once,
}


# --- the run -------------------------------------------------------------------------------------


def run(*command: str | Path) -> str:
    """The output of a program that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise WrongAnswerError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def library_archive(sizes: Sizes) -> Path:
    """A tar archive of Python's own library, off the file systems that are measured."""
    library = Path(sysconfig.get_path("stdlib"))
    quick = sizes is QUICK
    name = f"tidefs-bench-{sys.version_info.minor}-{os.getuid()}{'-quick' if quick else ''}.tar"
    archive = Path(tempfile.gettempdir()) / name
    if not archive.exists():
        unfinished = archive.with_suffix(f".{os.getpid()}")
        with tarfile.open(unfinished, "w") as packed:
            for path in sorted((library / "asyncio" if quick else library).rglob("*")):
                left_out = {"__pycache__", "site-packages"} & set(path.parts)
                if path.is_file() and not path.is_symlink() and not left_out:
                    packed.add(path, path.relative_to(library))
        unfinished.rename(archive)
    return archive


def tell(text: str) -> None:
    """What happens meanwhile."""
    sys.stderr.write(text + "\n")


def measure(top: Path, name: str, sizes: Sizes) -> list[Figure]:
    """One round of one case below ``top``."""
    folder = Path(tempfile.mkdtemp(prefix=f"bench-{name}-", dir=top))
    try:
        return list(CASES[name](folder, sizes))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def table(label: str, found: dict[str, dict[str, list[float]]], units: dict[str, str]) -> str:
    """The figures as Markdown; ``found``: case, then place (label or local), then values."""
    lines = [f"| case | unit | {label} | local | ratio |", "|---|---|---:|---:|---:|"]
    ratios = []
    for case, places in found.items():
        ours, local = (statistics.median(places[place]) for place in ("measured", "local"))
        ratio = local / ours if units[case] == "s" else ours / local
        ratios.append(ratio)
        cells = [case, units[case], number(ours), number(local), f"{ratio:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(f"| geometric mean | | | | {statistics.geometric_mean(ratios):.3f} |")
    return "\n".join(lines)


def number(value: float) -> str:
    """A figure with three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", metavar="DIR", type=Path, help="what is measured")
    parser.add_argument("--label", default="measured", help="its name in the table")
    parser.add_argument("--local", type=Path, default=Path(tempfile.gettempdir()), metavar="DIR2")
    parser.add_argument("--remount", default="", metavar="COMMAND", help="mounts DIR anew")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help=f"some of: {','.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="little work, one round: a smoke test")
    found = parser.parse_args()
    found.cases = found.only.split(",") if found.only else list(CASES)
    if unknown := set(found.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    for folder in (found.directory, found.local):
        if not folder.is_dir():
            parser.error(f"{folder} is not a folder")
    if found.directory.stat().st_dev == found.local.stat().st_dev:
        tell(f"note: {found.directory} and {found.local} are the same file system")
    return found


def main() -> int:
    asked = arguments()
    sizes = QUICK if asked.quick else Sizes()
    found: dict[str, dict[str, list[float]]] = {}
    units: dict[str, str] = {}
    for name in asked.cases:
        for _ in range(1 if asked.quick else asked.rounds):
            for place, top in (("local", asked.local), ("measured", asked.directory)):
                tell(f"{name}: {top}")
                Remounting.command = asked.remount if place == "measured" else ""
                try:
                    figures = measure(top, name, sizes)
                except WrongAnswerError as error:
                    tell(f"WRONG in {name} on {top}: {error}")
                    return 1
                for case, unit, value in figures:
                    units[case] = unit
                    found.setdefault(case, {}).setdefault(place, []).append(value)
    sys.stdout.write(table(asked.label, found, units) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
