"""The test of the test: products broken on purpose are caught, and the seed is named.

Each mutation breaks one acknowledgement from outside, through the ports or the vfs's face: the
product's own files are as they are.
"""

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")
SEEDS = "200"


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "mutation",
    [
        "metaserver-replies-early",
        "metaserver-never-syncs",
        "chunkserver-replies-early",
        "client-closes-early",
    ],
)
def test_a_broken_acknowledgement_is_caught(mutation):
    command = [sys.executable, str(RUN), "--seeds", SEEDS, "--mutation", mutation]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1, f"{SEEDS} seeds did not notice: {done.stdout[-1000:]}"
    assert f"--mutation {mutation}" in done.stdout, "the command that replays it"
    assert "replay: .venv/bin/python tests/sim/run.py --seed" in done.stdout
