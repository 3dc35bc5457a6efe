"""The folder of a cluster: what stands in it, and what is said when it is not as it should be."""

import os
import tempfile
import threading
import tomllib
from pathlib import Path

import pytest
from tidefs.deploy import cluster as clusters
from tidefs.deploy.cluster import Cluster, make_folder, open_cluster, open_or_create
from tidefs.deploy.cluster_file import EMBEDDED, Shape, read, toml_lines, write
from tidefs.deploy.exits import Exit, Failure
from tidefs.deploy.folder import locked, write_safely
from tidefs.deploy.sources import parse_source

THREE = Shape(metaservers=1, chunkservers=3, replicas=3, tcp=True)


def say_nothing(text):
    raise AssertionError(f"nothing was to be said: {text}")


def new(folder, shape=THREE):
    folder = make_folder(folder)
    return open_or_create(folder, shape)[0]


def fails(exit_code, work, *arguments):
    with pytest.raises(Failure) as caught:
        work(*arguments)
    assert caught.value.exit_code == exit_code
    return caught.value.message


@pytest.fixture
def short_folder():
    """A folder with a short name, whatever pytest calls its own."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_what_is_written_is_read_again(tmp_path):
    made = new(tmp_path / "c")
    found = open_cluster(tmp_path / "c")
    assert found.file == made.file
    assert [member.name for member in found.file.members] == [
        "meta-1",
        "chunk-1",
        "chunk-2",
        "chunk-3",
    ]
    ports = [member.port for member in found.file.members]
    assert all(0 < port < 65536 for port in ports)
    assert len(set(ports)) == 4


def test_a_second_opening_makes_nothing_new(tmp_path):
    made = new(tmp_path)
    again, is_new = open_or_create(tmp_path, EMBEDDED)
    assert not is_new
    assert again.file == made.file


def test_the_folder_is_for_its_owner_only(tmp_path):
    new(tmp_path / "c")
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700


def test_an_embedded_one_is_reached_by_its_folder_only(tmp_path):
    made = new(tmp_path, EMBEDDED)
    assert [address.partition(":")[0] for address in made.metaserver_addresses()] == ["unix"]


def test_a_crash_while_making_it_leaves_nothing_in_the_way(tmp_path):
    (tmp_path / "cluster.toml.new").write_text("half of")
    (tmp_path / "lock").write_text("")
    assert new(tmp_path).file == open_cluster(tmp_path).file


@pytest.mark.parametrize(
    ("old", "new_text", "words"),
    [
        ("version = 2", "version = 3", "use the TideFS that made it"),
        ("version = 2", "version = 0", "version is 0"),
        ("version = 2", "", "version"),
        ("replicas = 3", "replicas = 4", "4 copies need as many chunkservers"),
        ("replicas = 3", 'replicas = "three"', "replicas"),
        ("replicas = 3", "replicas = 3\nreplicsa = 3", "replicsa"),
        ('name = "chunk-2"', 'name = "chunk-1"', "the same name"),
        ('name = "chunk-2"', 'name = "../chunk-2"', "cannot be the name"),
        ('role = "metaserver"', 'role = "chunkserver"', "no metaserver"),
        ('role = "metaserver"', 'role = "king"', "no such role"),
        ("replicas = 3", "replicas = = 3", "is damaged"),
    ],
)
def test_a_damaged_cluster_file_is_named(old, new_text, words, tmp_path):
    new(tmp_path)
    path = tmp_path / "cluster.toml"
    path.write_text(path.read_text().replace(old, new_text))
    message = fails(Exit.FOREIGN, open_cluster, tmp_path)
    assert str(path) in message
    assert words in message


def test_bytes_that_are_no_text(tmp_path):
    new(tmp_path)
    (tmp_path / "cluster.toml").write_bytes(b"\xff\xfe")
    assert "is damaged" in fails(Exit.FOREIGN, open_cluster, tmp_path)


@pytest.mark.parametrize("text", ["plain", 'a"b', "back\\slash", "ü漢😀", "tab\tand\x7f", "\n"])
def test_text_survives_toml(text):
    lines = toml_lines({"key": text, "list": [text, "other"], "number": 7})
    assert tomllib.loads("\n".join(lines)) == {"key": text, "list": [text, "other"], "number": 7}


def test_a_name_that_is_no_text(tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    assert "UTF-8" in fails(Exit.FOREIGN, make_folder, Path(folder))


def test_a_long_path_gets_sockets_elsewhere(tmp_path, monkeypatch, short_folder):
    monkeypatch.setattr(clusters, "runtime_folder", lambda: short_folder)
    deep = tmp_path / ("x" * 100)
    made = new(deep)
    made._make_socket_folder()
    addresses = made.metaserver_addresses()
    assert len(addresses[0]) < 108
    assert (deep / "run").is_symlink()
    monkeypatch.undo()
    assert open_cluster(deep).metaserver_addresses() == addresses, "the link is what counts"


def test_somebody_elses_socket_folder_is_refused(tmp_path, monkeypatch):
    made = new(tmp_path / "c")
    (tmp_path / "bait").mkdir()
    (tmp_path / "trap").symlink_to(tmp_path / "bait")
    (tmp_path / "c" / "run").symlink_to(tmp_path / "trap")
    assert "is not ours" in fails(Exit.FOREIGN, made._make_socket_folder)


def test_a_port_in_use_is_named(tmp_path):
    made = new(tmp_path)
    with clusters.socket.socket() as other:
        other.bind(("127.0.0.1", made.file.members[1].port))
        other.listen()
        message = fails(Exit.BUSY, made.start, say_nothing)
    assert "chunk-1" in message
    assert str(made.file.members[1].port) in message
    assert not made.running()


def test_the_lock_keeps_others_off(tmp_path):
    order = []
    waiting = threading.Event()

    def second():
        def say(text):
            assert "another tidefs command" in text
            waiting.set()

        with locked(tmp_path, say):
            order.append("second")

    with locked(tmp_path, say_nothing):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(30)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_config_of_members(tmp_path):
    made = new(tmp_path)
    meta, chunk = made.file.members[:2]
    values = tomllib.loads(made._config(meta))
    assert values["cluster"] == made.file.cluster
    assert values["replicas"] == 3
    assert values["listen"] == made.addresses(meta)
    values = tomllib.loads(made._config(chunk))
    assert values["metaservers"] == made.addresses(meta)
    assert values["server"] == chunk.server


def test_more_settings_for_all_servers_of_a_role(tmp_path):
    new(tmp_path)
    path = tmp_path / "cluster.toml"
    tables = '[metaserver]\nelection_timeout = "1s"\n[chunkserver]\ncapacity = 7\n'
    path.write_text(path.read_text() + tables)
    found = open_cluster(tmp_path)
    meta, chunk = found.file.members[:2]
    assert tomllib.loads(found._config(meta))["election_timeout"] == "1s"
    assert tomllib.loads(found._config(chunk))["capacity"] == 7
    write(tmp_path, found.file)
    assert open_cluster(tmp_path).file == found.file
    path.write_text(path.read_text().replace("election_timeout", "server"))
    assert "metaserver may not have server" in fails(Exit.FOREIGN, open_cluster, tmp_path)


def test_write_safely_replaces(tmp_path):
    write_safely(tmp_path / "f", "one")
    write_safely(tmp_path / "f", "two")
    assert os.listdir(tmp_path) == ["f"]
    assert (tmp_path / "f").read_text() == "two"


def test_read_of_a_missing_file_names_it(tmp_path):
    assert "cluster.toml" in fails(Exit.LACKING, read, tmp_path)


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("host:1", ["tcp:host:1"]),
        ("a:1,b:2", ["tcp:a:1", "tcp:b:2"]),
        ("[::1]:7", ["tcp:[::1]:7"]),
        ("tcp:a:1,unix:/x", ["tcp:a:1", "unix:/x"]),
        ("unix:/x,a:1", ["unix:/x", "tcp:a:1"]),
    ],
)
def test_sources_that_are_addresses(text, addresses):
    assert parse_source(text) == (None, addresses)


@pytest.mark.parametrize("text", ["tide", "./host:1", "/a/b", "host", "a b", "..", "a:b"])
def test_sources_that_are_folders(text):
    source = parse_source(text)
    assert str(source.folder) == text.removeprefix("./")
    assert not source.addresses


def test_a_cluster_knows_nothing_running_in_a_new_folder(tmp_path):
    assert isinstance(new(tmp_path), Cluster)
    assert open_cluster(tmp_path).running() == {}
