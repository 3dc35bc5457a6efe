"""The benchmark itself: its table, and that it does not measure wrong answers."""

import subprocess
import sys
from pathlib import Path

import pytest
from tidefs.tests.bench import table

SCRIPT = Path(table.__file__)
TINY = table.Sizes(
    files=3,
    small_files=3,
    listed=3,
    folders=3,
    stream_mib=2,
    random_ops=3,
    fsyncs=3,
    appends=3,
    cycles=2,
    workers=2,
)


@pytest.fixture(autouse=True)
def _gentle(monkeypatch):
    """Leave the machine's caches alone: others are working on it."""
    monkeypatch.setattr(table, "forget", lambda level: True)
    monkeypatch.setattr(table, "settle", lambda: None)


@pytest.mark.parametrize("case", [name for name in table.CASES if name != "tree"])
def test_every_case_gives_figures_and_leaves_nothing(case, tmp_path):
    figures = table.measure(tmp_path, case, TINY)
    assert figures
    assert all(value > 0 for _, _, value in figures)
    assert not list(tmp_path.iterdir())


def test_the_tree(tmp_path):
    figures = table.measure(tmp_path, "tree", table.QUICK)
    assert {"untar", "tree_cat_cold", "tree_rm"} <= {name for name, _, _ in figures}


def test_a_wrong_byte_is_no_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "read_whole", lambda path: b"something else")
    with pytest.raises(table.WrongAnswerError, match="not what was written"):
        table.measure(tmp_path, "small", TINY)
    assert not list(tmp_path.iterdir())


def test_ratios_are_of_speed():
    found = {
        "slow": {"measured": [50.0], "local": [100.0]},
        "late": {"measured": [4.0, 9.0, 4.0], "local": [2.0]},
    }
    text = table.table("x", found, {"slow": "ops/s", "late": "s"})
    assert "| slow | ops/s | 50 | 100 | 0.500 |" in text
    assert "| late | s | 4 | 2 | 0.500 |" in text


def test_a_missing_folder_is_named(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "none"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"{tmp_path}/none is not a folder" in done.stderr
