"""Many seeds in several processes: who runs which, which are run twice, and what is told."""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from json import loads

import click

from .simulation import Outcome

HASH_SEEDS = ("1", "2")
PROGRESS_SEEDS = 25


class Campaign:
    """One command's worth of seeds."""

    def __init__(
        self, command: Sequence[str], arguments: Sequence[str], *, keep_going: bool
    ) -> None:
        """``command`` starts a process that reads seeds and writes outcomes; ``arguments``: what a
        person adds to replay one."""
        self._command = command
        self._arguments = arguments
        self._keep_going = keep_going
        self._outcomes: dict[int, list[Outcome]] = {}
        self._failed: list[int] = []
        self._passed = 0
        self._began_s = time.monotonic()

    def run(self, seeds: range, jobs: int, twice_every: int) -> bool:
        """Run them all; whether all is well. Stops at the first that fails, if it is to."""
        twice = {seed for seed in seeds if twice_every and (seed - seeds[0]) % twice_every == 0}
        workers = [
            _Worker(self._command, HASH_SEEDS[number % len(HASH_SEEDS)])
            for number in range(max(jobs, 2 if twice else 1))
        ]
        try:
            for outcome in _outcomes(workers, _Runs(seeds, twice)):
                self._take(outcome, len(seeds), twice)
                if self._failed and not self._keep_going:
                    return False
        finally:
            for worker in workers:
                worker.end()
        self._say_end(len(twice))
        return not self._failed

    def _take(self, outcome: Outcome, count: int, twice: set[int]) -> None:
        same = self._outcomes.setdefault(outcome.seed, [])
        same.append(outcome)
        wanted = 1 + (outcome.seed in twice)
        if outcome.seed in self._failed or (len(same) < wanted and not outcome.violation):
            return
        del self._outcomes[outcome.seed]
        if problem := _problem(outcome.seed, same):
            self._failed.append(outcome.seed)
            arguments = "".join(f" {each}" for each in self._arguments)
            replay = f".venv/bin/python tests/sim/run.py --seed {outcome.seed} --trace trace.txt"
            click.echo(f"\n{problem}\n\nreplay: {replay}{arguments}")
            return
        self._passed += 1
        self._show_progress(self._passed + len(self._failed), count, outcome)

    def _show_progress(self, done: int, count: int, outcome: Outcome) -> None:
        """One line that is written over on a terminal; elsewhere a line now and then."""
        gone_s = time.monotonic() - self._began_s
        text = f"{done} of {count} seeds, {gone_s:.0f} s: {outcome.summary()}"
        if sys.stderr.isatty():
            click.echo(f"\r{text.ljust(110)}", nl=done == count, err=True)
        elif done % PROGRESS_SEEDS == 0 or done == count:
            click.echo(text, err=True)

    def _say_end(self, twice: int) -> None:
        gone_s = time.monotonic() - self._began_s
        if self._failed:
            click.echo(f"{len(self._failed)} seeds failed: {sorted(self._failed)}")
        click.echo(
            f"{self._passed} seeds passed in {gone_s:.0f} s, {twice} of them run twice with the"
            " same trace"
        )


def _problem(seed: int, outcomes: Sequence[Outcome]) -> str:
    failed = next((outcome for outcome in outcomes if outcome.violation), None)
    if failed is not None:
        return failed.in_words()
    if len({outcome.digest for outcome in outcomes}) > 1:
        return f"seed {seed} left different traces in two processes: something is not from it"
    return ""


class _Worker:
    """A process that runs one seed after the other."""

    def __init__(self, command: Sequence[str], hash_seed: str) -> None:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        self._child = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def run(self, seed: int) -> Outcome:
        """Wait for the outcome."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(f"{seed}\n")
        line = self._child.stdout.readline()
        if not line:
            raise click.ClickException(f"a process that runs seeds ended at seed {seed}")
        return Outcome.from_plain(loads(line))

    def end(self) -> None:
        self._child.kill()
        self._child.wait()


class _Runs:
    """What is left to be run. The two runs of one seed go to workers with different hash seeds."""

    def __init__(self, seeds: Sequence[int], twice: Container[int]) -> None:
        self._once = deque(seed for seed in seeds if seed not in twice)
        self._twice = tuple(deque(seed for seed in seeds if seed in twice) for _ in HASH_SEEDS)

    def next_for(self, kind: int) -> int | None:
        """The next seed for a worker with that hash seed."""
        left = [queue for queue in (self._twice[kind], self._once) if queue]
        return min(left, key=lambda queue: queue[0]).popleft() if left else None


def _outcomes(workers: Sequence[_Worker], runs: _Runs) -> Iterator[Outcome]:
    """As they come."""
    with ThreadPoolExecutor(len(workers)) as threads:
        running: dict[Future[Outcome], int] = {}
        idle = list(range(len(workers)))
        while idle or running:
            for number in idle:
                seed = runs.next_for(number % len(HASH_SEEDS))
                if seed is not None:
                    running[threads.submit(workers[number].run, seed)] = number
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            idle = [running.pop(future) for future in done]
            for future in done:
                yield future.result()
