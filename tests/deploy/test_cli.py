"""The command line: each mistake gets one sentence and its exit code, and leaves nothing behind."""

import json
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from tidefs import __version__
from tidefs.client import mount_point
from tidefs.deploy.cli import COMMANDS, tidefs
from tidefs.deploy.cluster import Cluster
from tidefs.deploy.exits import MEANINGS, Exit, failure_of
from tidefs.fs.errors import Code, TideError
from tidefs.tests.tidy.packages import ROOT


def run(*arguments):
    """The command's result; its output with what stands on standard error."""
    return CliRunner().invoke(tidefs, [str(argument) for argument in arguments])


def refused(exit_code, *arguments):
    """The one sentence of a command that must fail with that code."""
    result = run(*arguments)
    assert result.exit_code == exit_code, result.output
    lines = [line for line in result.output.splitlines() if line]
    assert len(lines) == 1, "one sentence"
    return lines[0]


def test_help_lists_commands_and_exit_codes():
    result = run("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert name in result.output
    for code, meaning in MEANINGS.items():
        assert str(code.value) in result.output
        assert meaning in result.output


HELP_AND_LOOK = """
import sys
import tidefs.deploy.cli as cli
try:
    cli.tidefs(["--help"])
except SystemExit:
    heavy = {"trio", "msgpack", "lmdb", "pyfuse3"} & set(sys.modules)
    assert not heavy, heavy
"""


def test_help_imports_no_role():
    subprocess.run([sys.executable, "-c", HELP_AND_LOOK], check=True, capture_output=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_help(name):
    result = run(name, "--help")
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"Usage: tidefs {name}")


def test_version():
    assert run("--version").output == f"tidefs {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["--frobnicate"],
        ["up"],
        ["up", "x", "y"],
        ["up", "x", "--frobnicate"],
        ["up", "x", "--chunkservers", "many"],
        ["down"],
        ["status"],
        ["mount"],
        ["mount", "x"],
        ["mount", "x", "y", "--mode", "telepathic"],
        ["umount"],
        ["metaserver"],
        ["chunkserver"],
    ],
)
def test_what_is_not_understood_is_a_usage_error(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == Exit.USAGE, result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--metaservers", "0"], "between 1 and 9"),
        (["--metaservers", "-1"], "between 1 and 9"),
        (["--metaservers", "2"], "survive no more failures than 1"),
        (["--metaservers", "4"], "have 3 or 5 of them"),
        (["--metaservers", "11"], "between 1 and 9"),
        (["--chunkservers", "0"], "between 1 and"),
        (["--chunkservers", "1000"], "between 1 and"),
        (["--replicas", "0"], "between 1 and"),
        (["--replicas", "10", "--chunkservers", "10"], "between 1 and"),
        (["--chunkservers", "2", "--replicas", "3"], "give --chunkservers 3"),
    ],
)
def test_impossible_counts(options, words, tmp_path):
    assert words in refused(Exit.USAGE, "up", tmp_path / "new", *options)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_a_foreign_folder_is_left_alone(command, tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    sentence = refused(Exit.FOREIGN, command, tmp_path)
    assert str(tmp_path) in sentence
    assert "thesis.tex" in sentence
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_file_is_no_folder(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    assert "is not a folder" in refused(Exit.FOREIGN, "up", path)


def test_the_folder_above_must_exist(tmp_path):
    sentence = refused(Exit.FOREIGN, "up", tmp_path / "a" / "b")
    assert "the folder above it does not exist" in sentence


@pytest.mark.parametrize("command", ["down", "status"])
def test_no_cluster_there(command, tmp_path):
    sentence = refused(Exit.FOREIGN, command, tmp_path / "none")
    assert "there is no cluster" in sentence
    assert "tidefs up" in sentence


@pytest.fixture
def nobody(tmp_path):
    """Be somebody who may not look into ``tmp_path``."""
    tmp_path.chmod(0)
    if is_root := os.geteuid() == 0:
        os.seteuid(65534)
    yield
    if is_root:
        os.seteuid(0)
    tmp_path.chmod(0o700)


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_an_unreadable_folder(command, tmp_path):
    assert "Permission denied" in refused(Exit.LACKING, command, tmp_path)


def test_a_name_that_is_too_long_for_the_system(tmp_path):
    assert "File name too long" in refused(Exit.LACKING, "up", tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "SOURCE is empty"),
        ("127.0.0.1:0", "1 to 65535"),
        ("127.0.0.1:70000", "1 to 65535"),
        ("tcp:nowhere", "is not an address"),
        ("unix:relative", "begins with /"),
        ("127.0.0.1:1,tcp:x", None),
    ],
)
def test_bad_sources(source, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("status", source)
    assert result.exit_code in (Exit.USAGE, Exit.FOREIGN)
    assert words is None or words in result.output


def test_status_of_nobody():
    result = run("status", "127.0.0.1:1")
    assert result.exit_code == Exit.UNREACHABLE
    assert "Connection refused" in result.output


def test_status_of_nobody_as_json():
    result = run("status", "127.0.0.1:1", "--json")
    assert result.exit_code == Exit.UNREACHABLE
    report = json.loads(result.output)
    assert report["reachable"] is False
    assert report["healthy"] is False
    assert "Connection refused" in report["problems"][0]


def test_errors_from_below_have_an_exit_code():
    assert failure_of(TideError(Code.BAD_CONFIG, "x")).exit_code == Exit.CONFIG
    assert failure_of(TideError(Code.INTERNAL, "x")).exit_code == Exit.WRONG


def test_an_error_from_below_becomes_a_sentence(tmp_path, monkeypatch):
    def start(self, say):
        raise TideError(Code.NO_SPACE, "/data/log")

    monkeypatch.setattr(Cluster, "start", start)
    sentence = refused(Exit.LACKING, "up", tmp_path / "new")
    assert sentence == "tidefs: /data/log: no space left"


def test_an_interrupt_has_its_exit_code(tmp_path, monkeypatch):
    def start(self, say):
        raise KeyboardInterrupt

    monkeypatch.setattr(Cluster, "start", start)
    assert refused(Exit.INTERRUPTED, "up", tmp_path / "new") == "tidefs: interrupted"


def test_the_readme_names_the_exit_codes():
    readme = (ROOT / "README.md").read_text()
    for code, meaning in MEANINGS.items():
        assert f"| {code.value} | {meaning} |" in readme


@pytest.mark.parametrize("role", ["metaserver", "chunkserver"])
class TestOneServer:
    """A server's configuration."""

    def test_missing_file(self, role, tmp_path):
        sentence = refused(Exit.CONFIG, role, "--config", tmp_path / "none.toml")
        assert "none.toml" in sentence

    def test_not_toml(self, role, tmp_path):
        path = tmp_path / "bad.toml"
        path.write_text("cluster = = 1")
        assert str(path) in refused(Exit.CONFIG, role, "--config", path)

    def test_wrong_key(self, role, tmp_path):
        path = tmp_path / "bad.toml"
        path.write_text('clutser = "x"\n')
        assert "clutser" in refused(Exit.CONFIG, role, "--config", path)

    def test_wrong_type(self, role, tmp_path):
        path = tmp_path / "bad.toml"
        path.write_text("cluster = 7\n")
        assert "cluster" in refused(Exit.CONFIG, role, "--config", path)


def test_a_machine_without_fuse(tmp_path, monkeypatch):
    monkeypatch.setattr(mount_point, "FUSE_DEVICE", str(tmp_path / "fuse"))
    (tmp_path / "mnt").mkdir()
    sentence = refused(Exit.LACKING, "mount", tmp_path / "tide", tmp_path / "mnt")
    assert "modprobe fuse" in sentence
    assert "--device /dev/fuse" in sentence
    assert not (tmp_path / "tide").exists()


def test_commands_are_click_commands():
    for name in COMMANDS:
        command = tidefs.get_command(click.Context(tidefs), name)
        assert isinstance(command, click.Command)
