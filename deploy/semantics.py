"""``tidefs semantics``: try on a running cluster what each mode promises, and show it."""

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import NamedTuple, Never

import click

from ..client.litmus import tables
from ..client.litmus.as_json import as_json
from ..client.litmus.catalogue import CATALOGUE
from ..client.litmus.model import Litmus, Result
from ..client.litmus.page import Heading, page
from ..client.litmus.promises import MODES as PROMISED
from ..client.litmus.run import Faults
from ..client.litmus.runner import Runner
from ..client.litmus.words import observed
from ..client.modes import MODES
from ..client.mount_point import check_machine
from ..fs.ports.clock import RealClock
from .ask import Asker, asking
from .exits import Exit, Failure
from .folder import write_safely
from .holds import held
from .leader_kills import LeaderKills, NoKills
from .members import STATUS_PATIENCE_MS
from .semantics_mounts import mounted
from .sources import HELP
from .target import Target
from .tell import count, say

ROUNDS = 3
NAME = "tidefs-semantics"
"""What a list of those who use the cluster shows."""

_clock = RealClock()


class Wanted(NamedTuple):
    """What is to be tried. ``judge``: the mode whose promises count; None: those of each."""

    tests: Sequence[Litmus]
    modes: Sequence[str]
    rounds: int
    judge: str | None


@click.command(
    help="Try what each mode promises, on the running cluster SOURCE, and show it.\n\nThe cluster"
    " is mounted several times, in a temporary folder. Small experiments (litmus tests) then show"
    " when one mount sees what another one did: what was seen, how often, how long something old"
    " was shown, and how many questions to the servers each step took. They work in a new folder"
    " in the root of the file system, which is removed again.\n\nThe exit code is 1 when something"
    f" was seen that the mode does not allow. SOURCE is {HELP}.",
    epilog="\b\nThe tests, for --only:\n"
    + "\n".join(f"{name}\n    {test.question}" for name, test in CATALOGUE.items()),
)
@click.argument("source", metavar="SOURCE")
@click.option("--modes", metavar="NAMES", help=f"Separated by commas; all: {','.join(MODES)}.")
@click.option(
    "--rounds",
    type=click.IntRange(1, 10_000),
    default=ROUNDS,
    show_default=True,
    help="How often each test is done; races several times in each round.",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(list(CATALOGUE)),
    metavar="NAME",
    help="One test; may be given several times. See below.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.html",
    help="Write a page with a picture of each test, mode by mode.",
)
@click.option("--json", "in_json", is_flag=True, help="Print all results as JSON.")
@click.option("--steps", is_flag=True, help="Also print the steps of each test, with times.")
@click.option(
    "--kill-leader",
    is_flag=True,
    help="Kill the metaserver that leads now and then, between the steps (kill -9), and start it"
    " again. Only for a cluster in a folder of this machine.",
)
@click.option(
    "--as-if",
    type=click.Choice(PROMISED),
    help="Judge by the promises of this mode instead: what would be wrong if they held.",
)
def semantics(
    source: str,
    modes: str | None,
    rounds: int,
    only: tuple[str, ...],
    report: Path | None,
    in_json: bool,
    steps: bool,
    kill_leader: bool,
    as_if: str | None,
) -> None:
    """Check what was asked for, before anything is mounted."""
    tests = [test for name, test in CATALOGUE.items() if not only or name in only]
    wanted = Wanted(tests, _modes(modes), rounds, as_if)
    target = Target(source)
    if kill_leader and target.cluster is None:
        raise Failure(
            Exit.USAGE, f"--kill-leader: {source} is no folder; name the cluster's folder"
        )
    check_machine()
    if report is not None:
        _check_place(report)
    folder = None if target.cluster is None else target.cluster.folder
    with _interrupted_by_signals(), held(folder, Path(NAME), say) if folder else nullcontext():
        _check_led(target)
        results = run_all(target, wanted, kill_leader=kill_leader)
    _show(results, in_json=in_json, steps=steps)
    if report is not None:
        when = datetime.fromtimestamp(_clock.wall_ns() // 10**9, UTC).strftime("%Y-%m-%d %H:%M UTC")
        write_safely(report.absolute(), page(Heading(target.name, when, rounds), results))
        say(f"the report is in {report}")
    if any(result.forbidden for result in results):
        raise SystemExit(Exit.WRONG)


def _modes(text: str | None) -> list[str]:
    """Those that were asked for, in the order of the table."""
    known = [name for name in MODES if name in PROMISED]
    if text is None:
        return known
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            there = ", ".join(known)
            raise Failure(Exit.USAGE, f"--modes: {name!r} is no mode; there are {there}")
    return [name for name in known if name in names]


def _check_place(report: Path) -> None:
    """Better now than after all the tests."""
    folder = report.absolute().parent
    if not folder.is_dir():
        raise Failure(Exit.LACKING, f"--report: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK):
        raise Failure(Exit.LACKING, f"--report: {folder} cannot be written to; choose another one")


def _check_led(target: Target) -> None:
    """Sooner than a mount, which waits: NOT_LEADER or DISCONNECTED, in words, when nobody leads."""

    async def ask(asker: Asker) -> None:
        await target.lookout(asker).wait_leader(STATUS_PATIENCE_MS)

    asking(target.cluster_id, ask)


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Whatever politely ends this command is like Ctrl-C: what was mounted is unmounted."""

    def interrupt(number: int, frame: FrameType | None) -> Never:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def run_all(target: Target, wanted: Wanted, *, kill_leader: bool) -> list[Result]:
    """Every test in every mode; the results test by test."""
    if not kill_leader:
        return _in_all_modes(target, wanted, NoKills(), kills=False)
    assert target.cluster is not None
    faults = LeaderKills(target.cluster, _clock, say)
    try:
        results = _in_all_modes(target, wanted, faults, kills=True)
    finally:
        faults.wait()
    say(f"the leader was killed {count(faults.count, 'time')}")
    return results


def _in_all_modes(target: Target, wanted: Wanted, faults: Faults, *, kills: bool) -> list[Result]:
    by_mode = [list(_in_mode(target, mode, wanted, faults, kills)) for mode in wanted.modes]
    return [result for row in zip(*by_mode, strict=True) for result in row]


def _in_mode(
    target: Target, mode: str, wanted: Wanted, faults: Faults, kills: bool
) -> Iterator[Result]:
    mounts_needed = max(test.mounts for test in wanted.tests)
    say(f"{mode}: mounting {target.name} {count(mounts_needed, 'time')} ...")
    with mounted(_source_of(target), mode, mounts_needed, say) as mounts:
        runner = Runner(mounts, _clock, faults)
        for number, test in enumerate(wanted.tests, 1):
            result = _tried(runner, test, mode, wanted, kills)
            said = result.skipped or observed(result)
            wrong = " FORBIDDEN" if result.forbidden else ""
            say(f"{mode}: {number}/{len(wanted.tests)} {test.name}: {said}{wrong}")
            yield result
        runner.close()


def _source_of(target: Target) -> str:
    return ",".join(target.addresses) if target.cluster is None else str(target.cluster.folder)


def _tried(runner: Runner, test: Litmus, mode: str, wanted: Wanted, kills: bool) -> Result:
    judge = wanted.judge or mode
    if test.kills and not kills:
        return Result(test, mode, judge, [], "not tried: give --kill-leader")
    times = wanted.rounds * test.repeats
    runs = [runner.run(test, number, measure=number == 0) for number in range(times)]
    return Result(test, mode, judge, runs)


def _show(results: Sequence[Result], *, in_json: bool, steps: bool) -> None:
    if in_json:
        click.echo(json.dumps({"results": as_json(results)}, indent=2))
        return
    if steps:
        for result in results:
            click.echo("\n".join(tables.steps(result)) + "\n")
    click.echo("\n".join(tables.summary(results)))
