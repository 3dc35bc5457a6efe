"""The simulator as a person runs it: seeds pass, some twice with the same trace; a failure can be
replayed."""

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """``run.py`` with these arguments; its output is text."""
    command = [sys.executable, str(RUN), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_some_seeds_pass_twice_with_the_same_trace():
    done = run("--seeds", "24", "--twice-every", "2")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "24 seeds passed" in done.stdout
    assert "12 of them run twice with the same trace" in done.stdout


def test_a_trace_of_one_seed_is_written(tmp_path):
    trace = tmp_path / "trace.txt"
    done = run("--seed", "3", "--trace", str(trace))
    assert done.returncode == 0, done.stdout[-4000:]
    lines = trace.read_text().splitlines()
    assert any(" op " in line for line in lines)
    assert any(" net " in line for line in lines)
    assert any(" disk " in line for line in lines)


def test_what_makes_no_sense_is_refused():
    assert run("--trace", "x").returncode == 2
    assert run("--mutation", "nonsense").returncode == 2
