"""The campaigns: real programs, real mounts, real kills.

    python tests/campaign/acceptance.py list
    python tests/campaign/acceptance.py tools --tarball Django.tar.gz
    python tests/campaign/acceptance.py all --tarball Django.tar.gz

``--tarball`` is any source distribution; its tree is what is unpacked, compared and committed.
"""

import argparse
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import conformance
import group
import lock_oracle
import locking
import partition
import programs
import sharing
import stage as s
from registry import CAMPAIGNS, campaign
from stage import CampaignError, compare, local_copy, run, say, stage, unpack, wait_until


@campaign
def remount(options: argparse.Namespace) -> None:
    """cp -a of a tree, umount, mount again: the tree is there. Embedded cluster."""
    folder = Path(tempfile.mkdtemp(prefix="tidefs-campaign."))
    here = local_copy(options.tarball)
    point = folder / "mnt"
    point.mkdir()
    try:
        s.tidefs("mount", folder / "tide", point)
        run("cp", "-a", here, point)
        compare(here, point / here.name)
        s.tidefs("umount", point)
        s.tidefs("mount", folder / "tide", point)
        say(f"{compare(here, point / here.name)} entries are there after a new mount")
    finally:
        subprocess.run([*s.TIDEFS, "umount", str(point)], check=False)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(here.parent, ignore_errors=True)


@campaign
def tools(options: argparse.Namespace) -> None:
    """tar, diff, git, venv and pip, SQLite, on three copies."""
    here = local_copy(options.tarball)
    with stage(3, 3) as cluster:
        point = cluster.mount()
        there = unpack(options.tarball, point)
        run("diff", "-r", here, there)
        say(f"unpacked, {compare(here, there)} entries identical")
        _git(there, point)
        _virtual_environment(point)
        _sqlite(point)
        cluster.check_status()
    shutil.rmtree(here.parent, ignore_errors=True)


@campaign
def stress(options: argparse.Namespace) -> None:
    """fio with verify, and stress-ng's file system stressors, on three copies."""
    with stage(3, 3) as cluster:
        point = cluster.mount()
        _fio(point)
        _stress(point)
        cluster.check_status()


def _git(tree: Path, point: Path) -> None:
    run("git", "init", "-q", tree)
    # What tar unpacked belongs to whoever packed it; git asks to be told that this is meant.
    os.environ.update(
        GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0="*"
    )
    name = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    run("git", "add", ".", cwd=tree)
    run("git", *name, "commit", "-qm", "all", cwd=tree)
    run("git", "fsck", "--full", "--strict", cwd=tree)
    run("git", "clone", "-q", tree, point / "clone")
    if changes := run("git", "status", "--porcelain", cwd=point / "clone"):
        raise CampaignError(f"the clone differs from its commit:\n{changes}")
    say("git init, add, commit, fsck, clone")


def _virtual_environment(point: Path) -> None:
    run(sys.executable, "-m", "venv", point / "venv")
    python = point / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--no-cache-dir", "msgpack", "lmdb")
    run(python, "-c", "import msgpack._cmsgpack, lmdb.cpython")
    say("virtual environment made, packages with compiled parts installed and imported")


def _sqlite(point: Path) -> None:
    database = sqlite3.connect(point / "base.db", isolation_level=None)
    database.execute("pragma journal_mode=delete")
    database.execute("create table t (k integer primary key, v text)")
    for number in range(5_000):
        database.execute("begin")
        database.execute("insert into t values (?, ?)", (number, "x" * (number % 300)))
        database.execute("commit")
    (answer,) = database.execute("pragma integrity_check").fetchone()
    (count,) = database.execute("select count(*) from t").fetchone()
    database.close()
    if (answer, count) != ("ok", 5_000):
        raise CampaignError(f"SQLite: integrity_check says {answer}, {count} rows")
    say("SQLite: 5,000 transactions, integrity_check ok")


def _fio(point: Path) -> None:
    run(
        *("fio", "--name=verify", f"--directory={point}", "--rw=randrw", "--bsrange=4k-64k"),
        *("--size=256m", "--ioengine=psync", "--verify=crc32c", "--verify_fatal=1"),
        *("--do_verify=1", "--randseed=7", "--fallocate=none"),
        cwd=point,
    )
    say("fio: random read-write with verify on 256 MiB")


STRESSORS = ("dir", "dentry", "rename", "link", "symlink", "xattr", "hdd")


def _stress(point: Path) -> None:
    for name in STRESSORS:
        run(
            *("stress-ng", f"--{name}", "1", "--timeout", "20s", "--temp-path", point),
            *("--verify", "--metrics-brief"),
        )
        say(f"stress-ng --{name}: 20 s without error")


@campaign
def kills(options: argparse.Namespace) -> None:
    """During the unpacking: kill -9 of the metaserver, of a chunkserver, of the client."""
    here = local_copy(options.tarball)
    for role in ("metaserver", "chunkserver"):
        with stage(3, 3) as cluster:
            point = cluster.mount()
            unpacking = _start_unpacking(options.tarball, point)
            for round_number in range(options.rounds):
                _wait_for_entries(point, 100 * (round_number + 1), unpacking)
                victim = cluster.pids(role)[round_number % len(cluster.pids(role))]
                cluster.kill(victim)
                cluster.up()
            _finish(unpacking)
            say(f"{role} killed: {compare(here, point / here.name)} entries identical")
    with stage(3, 3) as cluster:
        point = cluster.mount()
        unpacking = _start_unpacking(options.tarball, point)
        _wait_for_entries(point, 300, unpacking)
        cluster.kill(*cluster.client_pids())
        unpacking.wait(timeout=60)
        cluster.mount()
        shutil.rmtree(point / here.name)
        unpack(options.tarball, point)
        say(f"client killed: {compare(here, point / here.name)} entries identical")
    shutil.rmtree(here.parent, ignore_errors=True)


def _start_unpacking(tarball: Path, point: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["tar", "-xf", str(tarball), "-C", str(point)])


def _wait_for_entries(point: Path, count: int, unpacking: "subprocess.Popen[bytes]") -> None:
    def enough() -> bool:
        if unpacking.poll() is not None:
            raise CampaignError("the unpacking ended before the kill")
        return sum(len(folders) + len(files) for _, folders, files in os.walk(point)) >= count

    wait_until(enough, f"{count} entries are unpacked")


def _finish(unpacking: "subprocess.Popen[bytes]") -> None:
    if unpacking.wait(timeout=600) != 0:
        raise CampaignError(f"tar ended with {unpacking.returncode}")


@campaign
def everything(options: argparse.Namespace) -> None:
    """kill -9 of everything at once, after fsync or sync: nothing synced is missing."""
    dice = random.Random(options.seed)
    with stage(3, 3, metaservers=options.metaservers) as cluster:
        point = cluster.mount()
        synced: dict[str, bytes] = {}
        for round_number in range(options.power_cuts):
            top = point / f"round-{round_number}"
            top.mkdir()
            _write_synced(top, synced, dice, round_number)
            _write_unsynced(top, dice)
            cluster.kill(
                *cluster.pids("metaserver"), *cluster.pids("chunkserver"), *cluster.client_pids()
            )
            cluster.up()
            point = cluster.mount()
            for path, content in synced.items():
                if (point / path).read_bytes() != content:
                    raise CampaignError(f"round {round_number}: {path} differs after the kill")
            say(f"round {round_number}: {len(synced)} synced files are there and identical")


def _write_synced(top: Path, synced: dict[str, bytes], dice: random.Random, number: int) -> None:
    by_sync = number % 2 == 0
    for index, size in enumerate((0, 10, 5_000, 20_000, 300_000, dice.randrange(3_000_000))):
        content = dice.randbytes(size)
        path = top / f"file-{index}"
        with open(path, "wb") as handle:
            handle.write(content)
            if not by_sync:
                handle.flush()
                os.fsync(handle.fileno())
        synced[f"{top.name}/{path.name}"] = content
    if synced and number:
        _overwrite(top.parent, synced, dice, by_sync)
    if by_sync:
        run("sync")


def _overwrite(point: Path, synced: dict[str, bytes], dice: random.Random, by_sync: bool) -> None:
    name = dice.choice(sorted(synced))
    content = bytearray(synced[name])
    where = dice.randrange(len(content) + 1)
    piece = dice.randbytes(dice.randrange(1, 70_000))
    content[where : where + len(piece)] = piece
    with open(point / name, "r+b") as handle:
        handle.seek(where)
        handle.write(piece)
        if not by_sync:
            handle.flush()
            os.fsync(handle.fileno())
    synced[name] = bytes(content)


def _write_unsynced(top: Path, dice: random.Random) -> None:
    for index in range(3):
        with open(top / f"unsynced-{index}", "wb") as handle:
            handle.write(dice.randbytes(200_000))


def main() -> int:
    """Run one campaign, or all."""
    elsewhere = {
        conformance.pjdfstest,
        lock_oracle.locks,
        group.failover,
        partition.cut_off,
        programs.fsx,
        sharing.shared_git,
        locking.counter,
    }
    assert elsewhere <= set(CAMPAIGNS.values())
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("campaign", choices=[*CAMPAIGNS, "all", "list"])
    parser.add_argument("--tarball", type=Path, help="a source distribution to unpack")
    parser.add_argument("--rounds", type=int, default=1, help="kills during one unpacking")
    parser.add_argument("--power-cuts", type=int, default=20, help="kills of everything")
    parser.add_argument("--metaservers", type=int, default=3, help="in the campaign `everything`")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fsx", type=Path, help="the program, for the campaign of that name")
    parser.add_argument("--fsstress", type=Path, help="the program, for the campaign of that name")
    parser.add_argument("--operations", type=int, default=1_000_000, help="of fsx")
    parser.add_argument("--copies", type=int, action="append", help="in fsx and fsstress; 1 and 3")
    parser.add_argument("--pjdfstest", type=Path, help="a checkout of it, built")
    parser.add_argument("--entries", type=int, default=1_000_000, help="in the campaign `million`")
    parser.add_argument("--stressors", nargs="*", help="in stress_class, instead of all")
    options = parser.parse_args()
    if options.campaign == "list":
        for name, function in CAMPAIGNS.items():
            say(f"{name}: {function.__doc__}")
        return 0
    failed = 0
    for name in CAMPAIGNS if options.campaign == "all" else [options.campaign]:
        say(f"--- {name}: {CAMPAIGNS[name].__doc__}")
        try:
            CAMPAIGNS[name](options)
        except (CampaignError, OSError, subprocess.SubprocessError, sqlite3.Error):
            traceback.print_exc()
            failed += 1
    say(f"{failed} campaigns failed" if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
