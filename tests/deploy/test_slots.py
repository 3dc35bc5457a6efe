"""Places of metaservers in a folder: made, passed on and given up, whatever is interrupted."""

import socket
import tomllib

import pytest
import trio
from tidefs.deploy import homes, slots
from tidefs.deploy.cluster import Cluster, open_cluster, open_or_create
from tidefs.deploy.cluster_file import EMBEDDED, Shape, read
from tidefs.deploy.exits import Exit, Failure
from tidefs.fs.handshake import Identity
from tidefs.fs.messages.hello import METASERVER
from tidefs.fs.ports.disk_real import RealDisk
from tidefs.metaserver.format import open_folder

THREE = Shape(metaservers=3, chunkservers=1, replicas=1, tcp=True)


class CrashError(Exception):
    """The command was killed here."""


def crash(*arguments, **options):
    raise CrashError


def say_nothing(text):
    raise AssertionError(f"nothing was to be said: {text}")


@pytest.fixture
def cluster(tmp_path):
    return open_or_create(tmp_path, THREE)[0]


def meta(cluster, number=0):
    return cluster.file.of(METASERVER)[number]


def founded(cluster, member):
    """The configuration that a member's folder says it begins with."""
    data = str(cluster.home(member) / "data")
    identity = Identity(cluster.file.cluster, METASERVER, member.server)
    place = cluster.place(member)
    return trio.run(open_folder, RealDisk(data), identity, data, place)


def names(folder):
    return {path.name for path in folder.iterdir()}


class TestCreation:
    """A new cluster."""

    def test_every_metaserver_is_formatted_as_a_founder(self, cluster):
        ids = [member.server for member in cluster.file.of(METASERVER)]
        for member in cluster.file.of(METASERVER):
            assert founded(cluster, member).voters == ids
        assert {"meta-1", "meta-2", "meta-3"} <= names(cluster.folder)

    def test_an_embedded_one_founds_a_group_of_one(self, tmp_path):
        cluster, _ = open_or_create(tmp_path, EMBEDDED)
        assert founded(cluster, meta(cluster)).voters == [meta(cluster).server]

    def test_interrupted_before_it_is_a_cluster(self, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr("tidefs.deploy.cluster.write", crash)
            with pytest.raises(CrashError):
                open_or_create(tmp_path, THREE)
        assert len(names(tmp_path)) == 3, "three that were begun"
        cluster, made = open_or_create(tmp_path, THREE)
        assert made
        assert names(tmp_path) == {"cluster.toml", "meta-1", "meta-2", "meta-3"}
        assert len(founded(cluster, meta(cluster)).voters) == 3

    def test_interrupted_while_it_formats(self, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(homes, "format_folder", crash)
            with pytest.raises(CrashError):
                open_or_create(tmp_path, THREE)
        assert open_or_create(tmp_path, THREE)[1]

    def test_interrupted_before_the_folders_are_in_place(self, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(homes, "put_in_place", crash)
            with pytest.raises(CrashError):
                open_or_create(tmp_path, THREE)
        cluster, made = open_or_create(tmp_path, THREE)
        assert not made
        homes.put_in_place(tmp_path, cluster.file.of(METASERVER))
        assert names(tmp_path) == {"cluster.toml", "meta-1", "meta-2", "meta-3"}
        for member in cluster.file.of(METASERVER):
            assert founded(cluster, member).voters

    def test_configurations_name_all_members(self, cluster):
        for member in cluster.file.of(METASERVER):
            values = tomllib.loads(cluster._config(member))
            assert [one["server"] for one in values["members"]] == [
                one.server for one in cluster.file.of(METASERVER)
            ]
            assert values["members"][1]["addresses"] == cluster.addresses(meta(cluster, 1))
        (chunk,) = cluster.file.of("chunkserver")
        values = tomllib.loads(cluster._config(chunk))
        assert values["metaservers"] == cluster.metaserver_addresses()
        assert len(values["metaservers"]) == 6


class TestLoss:
    """Folders that are gone."""

    @pytest.mark.parametrize("what", ["meta-2", "meta-2/data", "meta-2/data/identity"])
    def test_it_is_seen_and_the_remedy_named(self, what, cluster):
        path = cluster.folder / what
        path.rename(cluster.folder / "lost")
        assert homes.is_lost(cluster.home(meta(cluster, 1)))
        troubles = cluster._obstacles(cluster.file.of(METASERVER))
        assert list(troubles) == ["meta-2"]
        assert f"`tidefs cluster replace {cluster.folder} meta-2`" in troubles["meta-2"].message

    def test_the_only_one_needs_a_copy(self, tmp_path):
        cluster, _ = open_or_create(tmp_path, EMBEDDED)
        (tmp_path / "meta-1").rename(tmp_path / "lost")
        with pytest.raises(Failure) as caught:
            cluster.start(say_nothing, only=["meta-1"])
        assert caught.value.exit_code == Exit.FOREIGN
        assert "put the folder back from a copy" in caught.value.message


def test_a_port_in_use_keeps_one_of_three_down_and_not_the_others(cluster):
    with socket.socket() as other:
        other.bind(("127.0.0.1", meta(cluster).port))
        other.listen()
        troubles = cluster._obstacles(cluster.file.of(METASERVER))
        assert list(troubles) == ["meta-1"]
        assert str(meta(cluster).port) in troubles["meta-1"].message
        cluster._check_majority(troubles, ["meta-2", "meta-3"])
        with pytest.raises(Failure, match="meta-1"):
            cluster._check_majority(troubles, ["meta-2"])


class TestNewOnes:
    """More metaservers."""

    def test_they_are_made_to_join(self, cluster):
        new = slots.take_new(cluster, 2)
        assert [one.name for one in new] == ["meta-4", "meta-5"]
        assert all(one.port for one in new)
        found = open_cluster(cluster.folder)
        assert [one.name for one in found.file.members] == [
            *(f"meta-{number}" for number in range(1, 6)),
            "chunk-1",
        ]
        for one in new:
            assert founded(cluster, one).voters == []
        assert len(found.file.settled()) == found.file.group_size() == 3

    def test_without_ports_where_none_has_one(self, tmp_path):
        cluster, _ = open_or_create(tmp_path, EMBEDDED)
        assert [one.port for one in slots.take_new(cluster, 2)] == [0, 0]

    @pytest.mark.parametrize("step", ["make", "set_aside", "put_in_place"])
    def test_interrupted(self, step, cluster, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(homes, step, crash)
            with pytest.raises(CrashError):
                slots.take_new(cluster, 2)
        cluster = open_cluster(cluster.folder)
        homes.put_in_place(cluster.folder, cluster.file.of(METASERVER))
        new = [one for one in cluster.file.of(METASERVER) if one.joining]
        new = new or slots.take_new(cluster, 2)
        for one in new:
            assert founded(cluster, one).voters == []
        assert names(cluster.folder) == {
            "cluster.toml",
            *(one.name for one in cluster.file.of(METASERVER)),
        }
        slots.settle(cluster, [one.server for one in new])
        assert len(read(cluster.folder).settled()) == 5

    def test_a_folder_of_that_name_is_kept(self, cluster):
        (cluster.folder / "meta-4").mkdir()
        (cluster.folder / "meta-4" / "note").write_text("x")
        slots.take_new(cluster, 2)
        assert (cluster.folder / "removed-meta-4" / "note").exists()


class TestPassedOn:
    """A new metaserver under the name of an old one."""

    def test_the_name_stays_and_the_id_is_new(self, cluster):
        old = meta(cluster, 1)
        new, aside = slots.pass_on(cluster, old, [old.server])
        assert (new.name, new.port, new.replaces) == (old.name, old.port, [old.server])
        assert new.server != old.server
        assert aside == cluster.folder / "removed-meta-2"
        assert (aside / "data" / "identity").exists()
        assert founded(cluster, new).voters == []
        found = open_cluster(cluster.folder)
        assert [one.name for one in found.file.of(METASERVER)] == ["meta-1", "meta-2", "meta-3"]
        assert meta(found, 1) == new
        assert found.file.group_size() == 3

    def test_again_and_again(self, cluster):
        for expected in ("removed-meta-2", "removed-meta-2-2", "removed-meta-2-3"):
            old = meta(cluster, 1)
            assert slots.pass_on(cluster, old, [old.server])[1] == cluster.folder / expected

    def test_where_nothing_is_left(self, cluster):
        (cluster.folder / "meta-2").rename(cluster.folder.parent / "elsewhere")
        assert slots.pass_on(cluster, meta(cluster, 1), [])[1] is None

    @pytest.mark.parametrize("step", ["set_aside", "make", "put_in_place"])
    def test_interrupted(self, step, cluster, monkeypatch):
        old = meta(cluster, 1)
        with monkeypatch.context() as patch:
            patch.setattr(homes, step, crash)
            with pytest.raises(CrashError):
                slots.pass_on(cluster, old, [old.server])
        cluster = open_cluster(cluster.folder)
        homes.put_in_place(cluster.folder, cluster.file.of(METASERVER))
        found = meta(cluster, 1)
        if step == "set_aside":
            assert founded(cluster, old).voters, "nothing has happened"
        elif step == "make":
            assert homes.is_lost(cluster.home(old)), "what is said leads to the same command"
            assert found == old
        else:
            assert found.replaces == [old.server]
            assert founded(cluster, found).voters == []


class TestGivenUp:
    """Members that leave."""

    def test_they_are_kept_aside(self, cluster):
        gone = meta(cluster, 2)
        kept = slots.give_up(cluster, [gone.server], say_nothing)
        assert kept == {"meta-3": cluster.folder / "removed-meta-3"}
        assert kept["meta-3"].is_dir()
        assert [one.name for one in read(cluster.folder).of(METASERVER)] == ["meta-1", "meta-2"]

    def test_interrupted_it_is_not_started_again(self, cluster, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(homes, "set_aside", crash)
            with pytest.raises(CrashError):
                slots.give_up(cluster, [meta(cluster, 2).server], say_nothing)
        cluster = open_cluster(cluster.folder)
        assert len(cluster.file.of(METASERVER)) == 2
        assert [one.name for one in slots.take_new(cluster, 2)] == ["meta-3", "meta-4"]
        assert "removed-meta-3" in names(cluster.folder)


def test_settling_forgets_what_was_replaced(cluster):
    old = meta(cluster)
    new, _ = slots.pass_on(cluster, old, [old.server])
    slots.settle(cluster, [new.server])
    found = meta(Cluster(cluster.folder, read(cluster.folder)))
    assert (found.server, found.joining, found.replaces) == (new.server, False, [])
    assert "replaces" not in (cluster.folder / "cluster.toml").read_text()


def test_a_file_of_the_first_format_is_read(tmp_path):
    cluster, _ = open_or_create(tmp_path, EMBEDDED)
    path = tmp_path / "cluster.toml"
    path.write_text(path.read_text().replace("version = 2", "version = 1"))
    assert read(tmp_path).of(METASERVER) == cluster.file.of(METASERVER)
    slots.take_new(open_cluster(tmp_path), 2)
    assert read(tmp_path).version == 2
