"""Campaigns with stress programs: fsx, fsstress, all of stress-ng's file system class, fio.

fsx and fsstress are in no distribution: build them from a checkout of xfstests (ltp/fsx.c and
ltp/fsstress.c) and name them with --fsx and --fsstress.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import NamedTuple

from registry import campaign
from stage import CampaignError, run, say, stage

COPIES = (1, 3)
SEEDS_AT_ONCE = 4
FSX_HOURS_MAX_S = 4 * 3600.0
FSX_BUFFERED = ("-l", "1048576", "-o", "131072")
FSX_DIRECT = ("-l", "1048576", "-o", "131072", "-Z", "-R", "-W", "-r", "4096", "-w", "4096")
STRESS_S = 30
STRESS_MAX_S = 20 * STRESS_S
FSX_SKIPS = re.compile(r"does not support (.*), disabling")


@campaign
def fsx(options: argparse.Namespace) -> None:
    """--operations of fsx on 1 and on 3 copies: mmap, fallocate, holes, copy_file_range."""
    program = _program(options.fsx, "fsx")
    if program is None:
        return
    for copies in options.copies or COPIES:
        with stage(copies, copies) as cluster:
            point = cluster.mount()
            _fsx_seeds(program, point, options, copies)
            cluster.check_status()


def _fsx_seeds(program: Path, point: Path, options: argparse.Namespace, copies: int) -> None:
    """SEEDS_AT_ONCE processes with a file and a seed each; one of them with O_DIRECT."""
    each = options.operations // SEEDS_AT_ONCE
    running: list[tuple[int, subprocess.Popen[str]]] = []
    for seed in range(options.seed, options.seed + SEEDS_AT_ONCE):
        style = FSX_DIRECT if seed == options.seed else FSX_BUFFERED
        log = point.parent / f"fsx-{copies}-{seed}"
        log.mkdir()
        command = [program, *style, "-N", each, "-S", seed, "-P", log, point / f"fsx-{seed}"]
        running.append((seed, _start(command)))
    try:
        for seed, process in running:
            output, _ = process.communicate(timeout=FSX_HOURS_MAX_S)
            if process.returncode != 0:
                raise CampaignError(
                    f"fsx with seed {seed} on {copies} copies ended with {process.returncode}:\n"
                    + output[-6000:]
                )
            skipped = ", ".join(FSX_SKIPS.findall(output))
            say(f"fsx, {copies} copies, seed {seed}: {each:,} operations; not served: {skipped}")
    finally:
        for _, process in running:
            process.kill()
            process.wait()


def _start(command: list[object]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def _program(path: Path | None, name: str) -> Path | None:
    """A program that was built by hand; None, and said so, when it was not named."""
    if path is None:
        say(f"not run: name the program with --{name}")
        return None
    return path.absolute()


@campaign
def fsstress(options: argparse.Namespace) -> None:
    """fsstress, four processes, on 1 and on 3 copies; then everything is removed."""
    program = _program(options.fsstress, "fsstress")
    if program is None:
        return
    for copies in options.copies or COPIES:
        with stage(copies, copies) as cluster:
            top = cluster.mount() / "stress"
            top.mkdir()
            for seed in range(options.seed, options.seed + 3):
                run(program, "-d", top, "-p", 4, "-n", 5_000, "-s", seed)
                say(f"fsstress, {copies} copies, seed {seed}: 20,000 operations")
            shutil.rmtree(top)
            cluster.check_status()


class _Verdict(NamedTuple):
    """How one stressor ended. ``word``: passed, skipped, or failed."""

    word: str
    reason: str


@campaign
def stress_class(options: argparse.Namespace) -> None:
    """Each stressor of stress-ng's file system class for 30 s with --verify, on three copies."""
    verdicts: dict[str, _Verdict] = {}
    with stage(3, 3) as cluster:
        point = cluster.mount()
        for name in options.stressors or _class_members():
            verdicts[name] = _stress(name, point)
            say(f"stress-ng --{name}: {verdicts[name].word} {verdicts[name].reason}")
            if left := os.listdir(point):
                shutil.rmtree(point / left[0])
        cluster.check_status()
    for word in ("passed", "skipped", "failed"):
        names = [name for name, verdict in verdicts.items() if verdict.word == word]
        say(f"{len(names)} {word}: {' '.join(names)}")
    if any(verdict.word == "failed" for verdict in verdicts.values()):
        raise CampaignError("stressors failed")


def _class_members() -> list[str]:
    """What this stress-ng counts to the class; it ends with 1 after it has told."""
    told = subprocess.run(
        ["stress-ng", "--class", "filesystem?"], capture_output=True, text=True, check=False
    )
    return (told.stdout + told.stderr).partition("stressors:")[2].split()


def _stress(name: str, point: Path) -> _Verdict:
    process = subprocess.Popen(
        [
            *("stress-ng", f"--{name}", "1", "--timeout", f"{STRESS_S}s", "--verify"),
            *("--temp-path", str(point), "--metrics-brief", "--oomable"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=STRESS_MAX_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return _Verdict("failed", f"did not end within {STRESS_MAX_S} s")
    lines = [line.split("] ", 1)[-1] for line in output.splitlines()]
    told = [line for line in lines if f"{name}:" in line or f"'{name}'" in line]
    skips = [line for line in told if "skip" in line.lower() or line.startswith("disabled")]
    if process.returncode != 0 and not skips:
        return _Verdict("failed", f"({process.returncode}):\n{output[-3000:]}")
    if skips or "skipped: 1" in output:
        return _Verdict("skipped", "; ".join(skips or told))
    rate = re.search(rf"\] {re.escape(name)} +(\d+) +([\d.]+)", output)
    return _Verdict("passed", f"{rate[1]} operations in {rate[2]} s" if rate else "")


FIO_ENGINES = (
    ("psync", 0),
    ("psync", 1),
    ("mmap", 0),
    ("libaio", 0),
    ("libaio", 1),
)
"""(engine, direct I/O). A mapping cannot be direct."""


@campaign
def fio_engines(options: argparse.Namespace) -> None:
    """fio with verify: psync, mmap and libaio, buffered and direct, on 1 and on 3 copies."""
    for copies in options.copies or COPIES:
        with stage(copies, copies) as cluster:
            point = cluster.mount()
            for engine, direct in FIO_ENGINES:
                _fio(point, engine, direct, options.seed)
                how = "direct" if direct else "buffered"
                say(f"fio verify, {copies} copies, {engine}, {how}: 4 files of 64 MiB")
            cluster.check_status()


def _fio(point: Path, engine: str, direct: int, seed: int) -> None:
    folder = point / f"{engine}-{direct}"
    folder.mkdir()
    run(
        *("fio", "--name=verify", f"--directory={folder}", "--rw=randrw", "--size=64m"),
        *("--bsrange=4k-256k", "--blockalign=4k", f"--ioengine={engine}", f"--direct={direct}"),
        *("--iodepth=8", "--numjobs=4", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1"),
        *(f"--randseed={seed}", "--fallocate=posix", "--group_reporting"),
        cwd=folder,
    )
    shutil.rmtree(folder)
