"""The test of the test: products broken on purpose are caught, and the seed is named.

How each is broken stands in ``mutations.py``. The first seed that is tried here is one that caught
it when this was written; as the product changes, another one soon after it may have to. To search
from the start: ``python tests/sim/run.py --seeds 500 --mutation NAME``.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from tidefs.tests.sim.mutations import MUTATIONS

RUN = Path(__file__).with_name("run.py")
SEEDS = "200"

CAUGHT_BY = {
    "metaserver-replies-early": 10,
    "metaserver-never-syncs": 1,
    "chunkserver-replies-early": 30,
    "client-closes-early": 85,
    "votes-twice": 22,
    "commits-old-terms": 12,
    "votes-before-sync": 1,
    "reads-without-lease": 1,
    "forgets-replies": 12,
    "locks-outlive-sessions": 1,
    "forgets-waiters": 1,
    "serves-anybody": 1,
    "sees-no-circle": 1,
    "old-tokens": 1,
    "short-leases": 1,
    "unlocks-before-flush": 1,
    "believes-its-cache": 1,
    "forgets-no-locks": 6,
    "takes-late-writes": 9,
    "hears-no-notice": 1,
    "appends-without-turn": 1,
    "reads-its-cache": 2,
    "writes-later": 2,
    "shows-its-own": 5,
    "believes-attributes": 1,
    "ignores-recalls": 1,
    "lets-go-while-it-reads": 12,
    "believes-after-its-lease": 58,
    "keeps-promises": 1,
    "writes-without-claim": 2,
    "recalls-nothing": 1,
    "recalls-late": 2,
    "forgets-who-goes": 11,
    "awaits-nobody": 20,
}


def test_each_mutation_has_a_seed():
    assert set(CAUGHT_BY) == set(MUTATIONS)


@pytest.mark.parametrize("mutation", sorted(MUTATIONS))
def test_what_is_to_be_broken_is_still_there(mutation):
    with MUTATIONS[mutation].patched():
        pass


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", sorted(CAUGHT_BY))
def test_what_is_broken_is_caught(mutation):
    command = [sys.executable, str(RUN), "--first", str(CAUGHT_BY[mutation]), "--seeds", SEEDS]
    command += ["--twice-every", "0", "--mutation", mutation]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1, f"{SEEDS} seeds did not notice: {done.stdout[-1000:]}"
    assert "replay: .venv/bin/python tests/sim/run.py --seed" in done.stdout
    assert f"--mutation {mutation}" in done.stdout, "the command that replays it"
