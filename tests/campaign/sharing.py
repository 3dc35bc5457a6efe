"""Campaigns in which two mounts write one thing: an SQLite database, a git repository."""

import argparse
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from registry import campaign
from stage import CampaignError, run, say, stage

WORKER = Path(__file__).with_name("worker.py")
MODES = ("nfs", "uncached")

JOURNALS = ("delete", "truncate", "persist")
"""WAL is left out: readers and writers share memory then, which two machines do not
(sqlite.org/wal.html, under "disadvantages"). No network file system can carry it."""
TURNS = 20
AT_ONCE = 250


@campaign
def shared_sqlite(options: argparse.Namespace) -> None:
    """Two mounts write one SQLite database, in turn and at once; integrity_check. Not with WAL."""
    with stage(3, 3) as cluster:
        for mode in MODES:
            points = [cluster.mount(f"{mode}-{n}", "--mode", mode) for n in (1, 2)]
            for journal in JOURNALS:
                _share_database([point / f"{mode}-{journal}.db" for point in points], journal)
                say(
                    f"SQLite, {mode}, journal_mode={journal}: {TURNS} turns of 5 transactions, then"
                    f" 2 x {AT_ONCE} at once: integrity_check ok, every row there, sum unchanged"
                )
            for point in points:
                cluster.umount(point)
        cluster.check_status()
    say("journal_mode=wal is not for network file systems, and was not tried")


def _share_database(paths: list[Path], journal: str) -> None:
    database = sqlite3.connect(paths[0])
    (mode,) = database.execute(f"pragma journal_mode={journal}").fetchone()
    if mode != journal:
        raise CampaignError(f"SQLite takes {mode} for {journal}")
    database.executescript(
        "create table work (name text, number integer, primary key (name, number));"
        "create table accounts (name text primary key, value integer);"
        "insert into accounts values ('left', 1000), ('right', 1000);"
    )
    database.close()
    for turn in range(TURNS):
        run(sys.executable, WORKER, "sqlite", paths[turn % 2], 5, f"turn-{turn}")
        _check_database(paths[(turn + 1) % 2], 5 * (turn + 1))
    commands = [
        (sys.executable, WORKER, "sqlite", path, AT_ONCE, name)
        for path, name in zip(paths, ("one", "two"), strict=True)
    ]
    _at_once([lambda command=command: run(*command) for command in commands])
    for path in paths:
        _check_database(path, 5 * TURNS + 2 * AT_ONCE)


def _check_database(path: Path, rows: int) -> None:
    database = sqlite3.connect(path)
    (answer,) = database.execute("pragma integrity_check").fetchone()
    (count,) = database.execute("select count(*) from work").fetchone()
    (total,) = database.execute("select sum(value) from accounts").fetchone()
    database.close()
    if (answer, count, total) != ("ok", rows, 2000):
        raise CampaignError(
            f"{path}: integrity_check says {answer}, {count} rows instead of {rows}, sum {total}"
        )


def _at_once(works: list[Callable[[], object]]) -> None:
    """Each in a thread; the first complaint is raised when all have ended."""
    complaints: list[BaseException] = []

    def guarded(work: Callable[[], object]) -> None:
        try:
            work()
        except (CampaignError, OSError, subprocess.SubprocessError) as error:
            complaints.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if complaints:
        raise complaints[0]


GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "safe.directory=*")
GIT_TURNS = 40
GIT_AT_ONCE = 30
PUSH_TRIES_MAX = 200
STALE_S = {"nfs": 3.5}
"""docs/semantics.md: what changed within the last seconds is believed for 3 s. Git reads the files
that it takes for changed, so all is well then. In the other modes nothing is ever old."""


@campaign
def shared_git(options: argparse.Namespace) -> None:
    """Two mounts commit, push, fetch and gc in one git repository, in turn and at once; fsck."""
    with stage(3, 3) as cluster:
        for mode in MODES:
            points = [cluster.mount(f"{mode}-{n}", "--mode", mode) for n in (1, 2)]
            _commit_in_turn([point / f"{mode}-tree" for point in points], STALE_S.get(mode, 0))
            say(f"git, {mode}: {GIT_TURNS} commits in turn in one working tree, with gc and fsck")
            tries = _push_at_once(points, mode)
            say(
                f"git, {mode}: 2 x {GIT_AT_ONCE} commits pushed to one branch at once with"
                f" {tries} tries, gc meanwhile: fsck finds nothing, every commit is there"
            )
            for point in points:
                cluster.umount(point)
        cluster.check_status()


def _git(folder: Path, *words: str | Path) -> str:
    return run(*GIT, *words, cwd=folder)


def _commit_in_turn(trees: list[Path], stale_s: float) -> None:
    """One working tree and one index, seen through two mounts. ``stale_s``: so old the size of a
    file may be that stat(2) tells, which git takes for a change."""
    run(*GIT, "init", "-q", "-b", "main", trees[0])
    for turn in range(GIT_TURNS):
        tree = trees[turn % 2]
        (tree / f"file-{turn}").write_text(f"{turn}\n" * 100)
        (tree / "common").write_text(f"{turn}\n")
        _git(tree, "add", ".")
        _git(tree, "commit", "-qm", f"turn {turn}")
        if turn % 10 == 9:
            _git(tree, "gc", "-q")
        other = trees[(turn + 1) % 2]
        began_s = time.monotonic()
        while changes := _git(other, "status", "--porcelain"):
            if time.monotonic() - began_s > stale_s:
                raise CampaignError(f"turn {turn}: the other mount sees changes:\n{changes}")
        count = int(_git(other, "rev-list", "--count", "HEAD"))
        if count != turn + 1:
            raise CampaignError(f"turn {turn}: the other mount sees {count} commits")
    for tree in trees:
        _git(tree, "fsck", "--full", "--strict")


def _push_at_once(points: list[Path], mode: str) -> int:
    """A clone on each mount; both push to one branch of a bare repository. Tries needed."""
    bares = [point / f"{mode}-bare.git" for point in points]
    run(*GIT, "init", "-q", "--bare", "-b", "main", bares[0])
    _git(bares[0], "config", "receive.autogc", "false")
    clones = [point / f"{mode}-clone-{number}" for number, point in enumerate(points)]
    for clone, bare in zip(clones, bares, strict=True):
        run(*GIT, "clone", "-q", bare, clone)
        _git(clone, "config", "gc.auto", "0")
    (clones[0] / "first").write_text("first\n")
    _git(clones[0], "add", ".")
    _git(clones[0], "commit", "-qm", "first")
    _git(clones[0], "push", "-q", "origin", "main")
    tries: list[int] = []
    ended = threading.Event()

    def push(number: int) -> None:
        tries.append(_commit_and_push(clones[number], f"clone-{number}"))

    def collect() -> None:
        turn = 0
        while not ended.is_set():
            _git(bares[turn % 2], "gc", "-q")
            turn += 1

    def push_both() -> None:
        try:
            _at_once([lambda: push(0), lambda: push(1)])
        finally:
            ended.set()

    _at_once([push_both, collect])
    for bare, clone in zip(bares, clones, strict=True):
        _git(bare, "fsck", "--full", "--strict")
        count = int(_git(bare, "rev-list", "--count", "main"))
        if count != 2 * GIT_AT_ONCE + 1:
            raise CampaignError(f"{bare} has {count} commits")
        _git(clone, "pull", "-q", "--rebase", "origin", "main")
    for clone in clones:
        run("rm", "-rf", clone / ".git")
    compared = [sorted(path.name for path in clone.iterdir()) for clone in clones]
    if compared[0] != compared[1] or len(compared[0]) != 2 * GIT_AT_ONCE + 1:
        raise CampaignError(f"the clones hold {len(compared[0])} and {len(compared[1])} files")
    return sum(tries)


def _commit_and_push(clone: Path, name: str) -> int:
    """GIT_AT_ONCE commits; who comes too late to push takes in what the other did. Tries needed."""
    tries = 0
    for number in range(GIT_AT_ONCE):
        _git(clone, "pull", "-q", "--rebase", "origin", "main")
        (clone / f"{name}-{number}").write_text(f"{number}\n")
        _git(clone, "add", ".")
        _git(clone, "commit", "-qm", f"{name} {number}")
        for _ in range(PUSH_TRIES_MAX):
            tries += 1
            try:
                _git(clone, "push", "-q", "origin", "main")
                break
            except CampaignError as error:
                if not any(word in str(error) for word in ("rejected", "cannot lock ref")):
                    raise
            _git(clone, "pull", "-q", "--rebase", "origin", "main")
        else:
            raise CampaignError(f"{name}: {PUSH_TRIES_MAX} pushes were refused")
    return tries
