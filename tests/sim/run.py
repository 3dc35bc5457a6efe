"""Runs the simulator: ``python tests/sim/run.py --seeds 200``.

Every seed is run twice, in two processes with different hash seeds, and must leave the same trace.
A failing seed prints the command that replays it, why it failed, and the end of its trace.
Exit code 0: all is well, 1: a seed failed, 2: the command was wrong.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO

import click

if __name__ == "__main__":
    from tidefs.tests.sim.small_limits import shrink

    shrink()

from tidefs.tests.sim.simulation import MUTATIONS, Outcome, simulate

HASH_SEEDS = ("1", "2")
PROGRESS_SEEDS = 25
SEED_CPU_MAX_S = 120


@click.command(help=__doc__)
@click.option("--seeds", default=20, show_default=True, help="How many seeds to run.")
@click.option("--first", default=1, show_default=True, help="The first of them.")
@click.option("--seed", type=int, help="Run this one only.")
@click.option("--trace", type=click.Path(dir_okay=False), help="Write the trace of --seed here.")
@click.option("--mutation", type=click.Choice(sorted(MUTATIONS)), help="Break the product so.")
@click.option("--once", is_flag=True, help="Each seed once only, in this process; as JSON lines.")
def main(
    seeds: int, first: int, seed: int | None, trace: str | None, mutation: str | None, once: bool
) -> None:
    """See the module's docstring, which is the help."""
    if trace is not None and seed is None:
        raise click.UsageError("--trace needs --seed")
    chosen = range(first, first + seeds) if seed is None else range(seed, seed + 1)
    if once:
        for number in chosen:
            _say(json.dumps(_run(number, mutation, trace).to_plain()))
        return
    if trace is not None:
        _say(_run(chosen[0], mutation, trace).in_words())
    sys.exit(0 if campaign(chosen, mutation) else 1)


def campaign(seeds: range, mutation: str | None = None) -> bool:
    """Run all seeds twice; whether all is well. Stops at the first that fails."""
    children = [_start_child(seeds, mutation, hash_seed) for hash_seed in HASH_SEEDS]
    began_s = time.monotonic()
    try:
        for number, outcomes in zip(
            seeds, zip(*map(_outcomes, children), strict=True), strict=True
        ):
            if problem := _problem(number, outcomes):
                _say(f"\n{problem}\n\nreplay: {replay_command(number, mutation)}")
                return False
            _show_progress(number - seeds[0] + 1, len(seeds), began_s, outcomes[0])
    finally:
        for child in children:
            child.kill()
            child.wait()
    _say(f"{len(seeds)} seeds passed, each twice with the same trace")
    return True


def _show_progress(done: int, count: int, began_s: float, outcome: Outcome) -> None:
    """One line that is written over on a terminal; elsewhere a line now and then."""
    text = f"{done} of {count} seeds, {time.monotonic() - began_s:.0f} s: {outcome.summary()}"
    if sys.stderr.isatty():
        click.echo(f"\r{text.ljust(90)}", nl=done == count, err=True)
    elif done % PROGRESS_SEEDS == 0 or done == count:
        click.echo(text, err=True)


def replay_command(seed: int, mutation: str | None) -> str:
    """What a person types to see it again."""
    command = f".venv/bin/python tests/sim/run.py --seed {seed} --trace trace.txt"
    return command + (f" --mutation {mutation}" if mutation else "")


def _problem(number: int, outcomes: tuple[Outcome, ...]) -> str:
    failed = next((outcome for outcome in outcomes if outcome.violation), None)
    if failed is not None:
        return failed.in_words()
    if len({outcome.digest for outcome in outcomes}) > 1:
        return f"seed {number} left different traces in two processes: something is not from it"
    return ""


def _run(number: int, mutation: str | None, trace: str | None) -> Outcome:
    signal.signal(signal.SIGPROF, _went_round_in_circles)
    signal.setitimer(signal.ITIMER_PROF, SEED_CPU_MAX_S)
    try:
        if trace is None:
            return simulate(number, mutation=mutation)
        with Path(trace).open("w") as copy_to:
            return simulate(number, mutation=mutation, copy_to=copy_to)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _went_round_in_circles(_number: int, _frame: FrameType | None) -> None:
    """A loop in which virtual time stands still never ends: this shows where it is."""
    raise TimeoutError(f"one seed took more than {SEED_CPU_MAX_S} s of processor time")


def _start_child(seeds: range, mutation: str | None, hash_seed: str) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, "--once"]
    command += ["--first", str(seeds[0]), "--seeds", str(len(seeds))]
    command += ["--mutation", mutation] if mutation else []
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def _outcomes(child: "subprocess.Popen[str]") -> Iterator[Outcome]:
    stdout: IO[str] | None = child.stdout
    assert stdout is not None
    for line in stdout:
        yield Outcome.from_plain(json.loads(line))
    if child.wait() != 0:
        raise click.ClickException(f"a process that runs seeds ended with {child.returncode}")


def _say(text: str) -> None:
    click.echo(text)


if __name__ == "__main__":
    main()
