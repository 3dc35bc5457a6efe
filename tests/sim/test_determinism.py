"""The simulator's ground: one seed, one order of steps, whatever the process's hash seed is."""

import os
import subprocess
import sys

import pytest
import trio
from tidefs.tests.sim import determinism
from tidefs.tests.sim.trace import Trace

CHILD = """
import trio
from tidefs.tests.sim.test_determinism import busy
from tidefs.tests.sim import determinism
print(determinism.run(busy, 7))
"""


async def busy() -> str:
    """Tasks that race for a lock, an event and deadlines; gives the digest of who won what."""
    trace = Trace()
    lock = trio.Lock()
    event = trio.Event()

    async def racer(name: str) -> None:
        await event.wait()
        for lap in range(5):
            async with lock:
                trace.note("op", f"{name} {lap}")
            await trio.sleep(0.001 * (lap % 2))
        with trio.move_on_after(1):
            await trio.sleep(2)
        trace.note("op", f"{name} done")

    async with trio.open_nursery() as nursery:
        for name in ("ann", "bob", "cyd", "dan"):
            nursery.start_soon(racer, name)
        await trio.sleep(10)
        event.set()
    return trace.digest()


def test_trio_still_has_the_private_names():
    assert determinism.names_are_there(), "trio changed: mend tests/sim/determinism.py"


def test_one_seed_takes_one_path_and_another_seed_another():
    digests = [determinism.run(busy, seed) for seed in (1, 1, 1, 2, 2, 3)]
    assert digests[0] == digests[1] == digests[2]
    assert digests[3] == digests[4]
    assert len(set(digests)) == 3


def test_the_path_does_not_depend_on_the_hash_seed():
    def child(hash_seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", CHILD],
            check=False,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert child("1") == child("2") == child("77")


def test_an_hour_passes_at_once_and_errors_come_through():
    async def main() -> None:
        await trio.sleep(3600)
        raise ValueError(f"{trio.current_time():.0f}")

    with pytest.raises(ValueError, match="3600"):
        determinism.run(main, 1)


@pytest.mark.parametrize("before", [True, False])
def test_the_switch_is_turned_back(monkeypatch, before):
    """pytest-trio turns it too, for the tests that run in its own loop."""
    monkeypatch.setattr(determinism.trio_loop, "_ALLOW_DETERMINISTIC_SCHEDULING", before)
    determinism.run(busy, 1)
    assert determinism.trio_loop._ALLOW_DETERMINISTIC_SCHEDULING is before


def test_a_frozen_host_stands_still_while_time_goes_on():
    steps: list[tuple[str, float]] = []

    async def tick(host: str) -> None:
        determinism.HOST.set(host)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick_on, host)  # inherits the host

    async def tick_on(host: str) -> None:
        for _ in range(5):
            await trio.sleep(1)
            steps.append((host, trio.current_time()))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick, "a")
            nursery.start_soon(tick, "b")
            await trio.sleep(1.5)
            determinism.ready_tasks().freeze("a")
            assert determinism.ready_tasks().is_frozen("a")
            await trio.sleep(10)
            determinism.ready_tasks().thaw("a")

    determinism.run(main, 1)
    assert [at for host, at in steps if host == "b"] == [1, 2, 3, 4, 5]
    assert [at for host, at in steps if host == "a"] == [1, 11.5, 12.5, 13.5, 14.5]
