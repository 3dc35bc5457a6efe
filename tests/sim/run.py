"""Runs the simulator: ``python tests/sim/run.py --seeds 2000 --jobs 2``.

Every tenth seed (``--twice-every``) is run twice, in two processes with different hash seeds, and
must leave the same trace. A failing seed prints the command that replays it, why it failed, and
the end of its trace; with ``--keep-going`` the others are run all the same.
Exit code 0: all is well, 1: a seed failed, 2: the command was wrong.
"""

import json
import signal
import sys
from pathlib import Path
from types import FrameType

import click

if __name__ == "__main__":
    from tidefs.tests.sim.small_limits import shrink

    shrink()

from tidefs.tests.sim.campaign import Campaign
from tidefs.tests.sim.mutations import MUTATIONS
from tidefs.tests.sim.simulation import How, Outcome, simulate

SEED_CPU_MAX_S = 120


@click.command(help=__doc__)
@click.option("--seeds", default=20, show_default=True, help="How many seeds to run.")
@click.option("--first", default=1, show_default=True, help="The first of them.")
@click.option("--seed", type=int, help="Run this one only.")
@click.option("--jobs", default=2, show_default=True, help="So many processes.")
@click.option("--twice-every", default=10, show_default=True, help="1: each twice, 0: none.")
@click.option("--keep-going", is_flag=True, help="Do not stop at the first seed that fails.")
@click.option("--faults", help="Only these, by name and comma; power: all machines at once.")
@click.option("--set", "changes", help="Options as they should be: members=1,callers=3.")
@click.option("--trace", type=click.Path(dir_okay=False), help="Write the trace of --seed here.")
@click.option("--mutation", type=click.Choice(sorted(MUTATIONS)), help="Break the product so.")
@click.option("--worker", is_flag=True, hidden=True, help="Seeds come on stdin, outcomes go out.")
def main(
    seeds: int,
    first: int,
    seed: int | None,
    jobs: int,
    twice_every: int,
    keep_going: bool,
    faults: str | None,
    changes: str | None,
    trace: str | None,
    mutation: str | None,
    worker: bool,
) -> None:
    """See the module's docstring, which is the help."""
    if trace is not None and seed is None:
        raise click.UsageError("--trace needs --seed")
    how = How(faults=faults, changes=changes, mutation=mutation)
    if worker:
        for line in sys.stdin:
            click.echo(json.dumps(_run(int(line), how, None).to_plain()))
        return
    if trace is not None and seed is not None:
        outcome = _run(seed, how, trace)
        click.echo(outcome.in_words())
        sys.exit(1 if outcome.violation else 0)
    chosen = range(first, first + seeds) if seed is None else range(seed, seed + 1)
    arguments = ["--faults", faults] if faults else []
    arguments += ["--set", changes] if changes else []
    arguments += ["--mutation", mutation] if mutation else []
    command = [sys.executable, __file__, "--worker", *arguments]
    campaign = Campaign(command, arguments, keep_going=keep_going)
    twice = 1 if seed is not None else twice_every
    sys.exit(0 if campaign.run(chosen, jobs, twice) else 1)


def _run(number: int, how: How, trace: str | None) -> Outcome:
    signal.signal(signal.SIGPROF, _went_round_in_circles)
    signal.setitimer(signal.ITIMER_PROF, SEED_CPU_MAX_S)
    try:
        if trace is None:
            return simulate(number, how)
        with Path(trace).open("w") as copy_to:
            return simulate(number, how, copy_to)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _went_round_in_circles(_number: int, _frame: FrameType | None) -> None:
    """A loop in which virtual time stands still never ends: this shows where it is."""
    raise TimeoutError(f"one seed took more than {SEED_CPU_MAX_S} s of processor time")


if __name__ == "__main__":
    main()
