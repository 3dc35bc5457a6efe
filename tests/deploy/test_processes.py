"""Server processes: told from others, waited for, ended."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tidefs.deploy import processes
from tidefs.deploy.exits import Exit, Failure
from tidefs.deploy.processes import Spawned, end, is_ours, last_words, pid_of_server, spawn

OBEDIENT = "import signal; print('up', flush=True); signal.pause()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {OBEDIENT}"


def say_nothing(text):
    raise AssertionError(f"nothing was to be said: {text}")


@pytest.fixture
def python():
    """Start Python programs; at the end they are dead."""
    started = []

    def start(code, *arguments, folder="/"):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, cwd=folder, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "up\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_ours_are_told_by_command_line_and_folder(python, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    ours = python(OBEDIENT, "tidefs.deploy", "chunkserver", folder=tmp_path)
    assert is_ours(ours.pid, "chunkserver", tmp_path)
    assert not is_ours(ours.pid, "metaserver", tmp_path)
    assert not is_ours(ours.pid, "chunkserver", other)
    assert not is_ours(os.getpid(), "chunkserver", Path.cwd())
    ours.kill()
    ours.wait()
    assert not is_ours(ours.pid, "chunkserver", tmp_path)


def test_a_dead_child_that_nobody_buried_is_dead(python, tmp_path):
    ours = python(OBEDIENT, "tidefs.deploy", "chunkserver", folder=tmp_path)
    ours.kill()
    os.waitid(os.P_PID, ours.pid, os.WEXITED | os.WNOWAIT)
    assert not is_ours(ours.pid, "chunkserver", tmp_path)


def test_a_moved_folder_is_still_ours(python, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    ours = python(OBEDIENT, "tidefs.deploy", "chunkserver", folder=old)
    old.rename(new)
    assert is_ours(ours.pid, "chunkserver", new)


@pytest.mark.parametrize("text", [None, "", "many", "-5", "4194304"])
def test_pid_files_that_lead_nowhere(text, tmp_path):
    if text is not None:
        (tmp_path / "pid").write_text(text)
    assert pid_of_server("chunkserver", tmp_path) is None


def test_end_waits_for_the_end(python):
    one, two = python(OBEDIENT), python(OBEDIENT)
    end({"one": one.pid, "two": two.pid}, say_nothing)
    assert one.poll() is not None
    assert two.poll() is not None


def test_end_leaves_others_alone(python):
    other = python(OBEDIENT)
    end({"one": other.pid}, say_nothing, still_ours=lambda name, pid: False)
    assert other.poll() is None


def test_end_says_whom_it_waits_for_and_gives_up(python, monkeypatch):
    monkeypatch.setattr(processes, "SAY_AFTER_MS", 20)
    monkeypatch.setattr(processes, "STOP_TIMEOUT_MS", 100)
    stubborn = python(STUBBORN)
    said = []
    with pytest.raises(Failure, match=r"one \(pid \d+\) did not stop") as caught:
        end({"one": stubborn.pid}, said.append)
    assert caught.value.exit_code == Exit.BUSY
    assert said == ["waiting for one to stop ..."]
    end({"one": stubborn.pid}, said.append, kill=True)
    assert stubborn.wait() == -9


def test_a_server_that_dies_is_named_with_its_last_words(tmp_path):
    log = tmp_path / "log"
    log.write_text("an older run\n")
    process = spawn(["status", "127.0.0.1:1"], tmp_path, log)
    starting = Spawned("meta-1", process, tmp_path / "ready", log, log.stat().st_size)
    trouble = processes.wait_ready([starting], lambda text: None)["meta-1"]
    assert trouble.exit_code == Exit.UNREACHABLE, "its own"
    assert "meta-1 did not start" in trouble.message
    assert "Connection refused" in trouble.message
    assert str(log) in trouble.message
    assert "older" not in trouble.message


def test_one_that_dies_does_not_keep_the_others_from_being_ready(tmp_path, python):
    log = tmp_path / "log"
    process = spawn(["status", "127.0.0.1:1"], tmp_path, log)
    ready = tmp_path / "ready"
    second = Spawned("meta-2", python(OBEDIENT), ready, log, 0)

    def say(text):
        ready.write_text("")

    first = Spawned("meta-1", process, tmp_path / "never", log, 0)
    process.wait()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "SAY_AFTER_MS", 0)
        assert list(processes.wait_ready([first, second], say)) == ["meta-1"]


def test_a_server_that_is_never_ready_is_given_up(python, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "SAY_AFTER_MS", 20)
    monkeypatch.setattr(processes, "START_TIMEOUT_MS", 100)
    said = []
    slow = Spawned("meta-1", python(OBEDIENT), tmp_path / "ready", tmp_path / "log", 0)
    troubles = processes.wait_ready([slow], said.append)
    assert "is not ready after" in troubles["meta-1"].message
    assert said == ["waiting for meta-1 to be ready ..."]


def test_ready_ones_are_not_waited_for(python, tmp_path):
    (tmp_path / "ready").write_text("")
    there = Spawned("meta-1", python(OBEDIENT), tmp_path / "ready", tmp_path / "log", 0)
    assert processes.wait_ready([there], say_nothing) == {}


def test_last_words_of_a_crash(tmp_path):
    log = tmp_path / "log"
    log.write_text("+-+---- 1 ----\n    | ValueError: a bug\n    +-----------\n")
    assert last_words(log, 0) == "ValueError: a bug"


def test_last_words_of_nothing(tmp_path):
    assert "cannot be read" in last_words(tmp_path / "none", 0)
    (tmp_path / "log").write_text("\n\n")
    assert last_words(tmp_path / "log", 0) == "it said nothing"
