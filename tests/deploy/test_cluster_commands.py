"""``tidefs cluster``, asked of a scripted group: what it says, refuses, and follows."""

import json
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner
from tidefs.deploy import changes, members, slots, target
from tidefs.deploy.ask import asking
from tidefs.deploy.cli import tidefs
from tidefs.deploy.cluster import make_folder, open_or_create
from tidefs.deploy.cluster_file import EMBEDDED, read
from tidefs.deploy.exits import Exit
from tidefs.deploy.members import Lookout
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.base import Done
from tidefs.fs.messages.places import ServerPlace
from tidefs.fs.messages.raft import ChangeMembers, GetMember, TransferLeadership
from tidefs.tests.deploy.fake_group import CLUSTER, FakeGroup


@pytest.fixture
def group_of(tmp_path):
    """Make a group: ``group_of(3, joining=2)``."""
    made = []

    def make(size, joining=0):
        group = FakeGroup(tmp_path, size, joining)
        made.append(group)
        return group.__enter__()

    yield make
    for group in made:
        group.__exit__()


def run(command, group, *arguments, of=1):
    """``tidefs cluster COMMAND`` with the address of one member."""
    source = group.members[of - 1].address
    return CliRunner().invoke(tidefs, ["cluster", command, source, *map(str, arguments)])


def refused(exit_code, command, group, *arguments):
    """The one sentence of a command that fails; nothing was asked of the leader."""
    result = run(command, group, *arguments)
    assert result.exit_code == exit_code, result.output
    assert len(result.output.splitlines()) == 1, result.output
    assert not any(isinstance(one, ChangeMembers) for m in group.members for one in m.asked)
    return result.output


def report_of(group, *arguments, of=1):
    result = run("status", group, "--json", *arguments, of=of)
    return json.loads(result.output), result.exit_code


class TestStatus:
    """What is seen."""

    def test_one_address_shows_all(self, group_of):
        group = group_of(3)
        report, exit_code = report_of(group, of=2)
        assert exit_code == Exit.OK
        assert report["healthy"]
        assert report["leader"] == group.members[0].id
        roles = {one["id"]: one["role"] for one in report["members"]}
        assert sorted(roles.values()) == ["follower", "follower", "leader"]
        first = report["members"][0]
        assert first["pid"] == 4_000_001
        assert (first["term"], first["commit"], first["applied"]) == (3, 100, 100)
        assert all(one["vote"] for one in report["members"])

    def test_for_a_person(self, group_of):
        group = group_of(3)
        group.members[1].match = 90
        lines = run("status", group).output.splitlines()
        assert "healthy" in lines[0]
        row = next(line for line in lines if group.members[1].id in line)
        assert row.split()[2:7] == ["4000002", "follower", "3", "100", "100"]
        assert row.split()[7] == "10", "its lag"

    def test_one_that_is_down(self, group_of):
        group = group_of(3)
        group.members[2].stop()
        report, exit_code = report_of(group)
        assert exit_code == Exit.WRONG
        down = next(one for one in report["members"] if one["id"] == group.members[2].id)
        assert (down["role"], down["pid"]) == ("down", 0)
        assert group.members[2].id in report["problems"][0]

    def test_one_that_does_not_speak(self, group_of, monkeypatch):
        monkeypatch.setattr(members, "LOOK_TIMEOUT_MS", 100)
        group = group_of(3)
        group.members[2].rules[GetMember] = lambda member, request: None
        report, exit_code = report_of(group)
        assert exit_code == Exit.WRONG
        assert "does not answer" in report["problems"][0]

    def test_no_leader_and_no_majority(self, group_of):
        group = group_of(3)
        group.elect(0)
        group.members[1].stop()
        group.members[2].stop()
        report, exit_code = report_of(group)
        assert exit_code == Exit.WRONG
        assert report["leader"] == ""
        assert "1 of 3 answer, and a majority is 2" in report["problems"][0]

    def test_a_majority_that_does_not_speak_is_not_waited_for(self, group_of, monkeypatch):
        """`tidefs status` looks once: nobody can be elected meanwhile."""
        monkeypatch.setattr(members, "LOOK_TIMEOUT_MS", 100)
        monkeypatch.setattr(members, "STATUS_PATIENCE_MS", 1_000_000)
        group = group_of(3)
        group.elect(0)
        for one in group.members[1:]:
            one.rules[GetMember] = lambda member, request: None
        result = CliRunner().invoke(tidefs, ["status", group.members[0].address])
        assert result.exit_code == Exit.UNREACHABLE
        assert "1 of 3 answer, and a majority is 2" in result.output

    def test_one_whose_disk_is_full(self, group_of):
        group = group_of(3)
        group.members[2].spare_bytes = -5 * 2**20 - 1
        report, exit_code = report_of(group)
        assert exit_code == Exit.WRONG
        assert f"of {group.members[2].id} is full: free 6 MiB" in report["problems"][0]
        result = CliRunner().invoke(tidefs, ["status", group.members[0].address])
        assert result.exit_code == Exit.WRONG
        assert f"of metaserver {group.members[2].id} is full: free 6 MiB" in result.output

    def test_nobody_there(self, group_of):
        group = group_of(1)
        group.members[0].stop()
        report, exit_code = report_of(group)
        assert exit_code == Exit.UNREACHABLE
        assert not report["reachable"]

    def test_of_two_leaders_the_later_one_counts(self, group_of):
        group = group_of(3)
        group.members[0].claims, group.members[0].term = "leader", 3
        group.elect(2)
        report, exit_code = report_of(group)
        assert exit_code == Exit.WRONG
        assert report["leader"] == group.members[1].id
        assert "still believes that it leads, in term 3" in report["problems"][0]

    def test_one_that_waits_to_join(self, group_of):
        group = group_of(1, joining=1)
        source = ",".join(one.address for one in group.members)
        result = CliRunner().invoke(tidefs, ["cluster", "status", source])
        assert result.exit_code == Exit.WRONG
        assert "is no member of the group" in result.output


def test_whose_address_is_anothers_now_is_down(group_of):
    """A new member has taken the place of one that is lost, and its port."""
    group = group_of(3)
    lost = ServerPlace(9, "here", [group.members[2].address])

    async def look(asker):
        return await Lookout(asker, [lost, group.members[0].place], []).look()

    view = asking(CLUSTER, look)
    assert view.find(9).status is None
    assert f"is the address of server {group.members[2].id} now" in view.find(9).why
    assert view.up() == {1, 2, 3}


def test_a_member_that_was_never_taken_in_is_dropped(tmp_path, group_of, monkeypatch):
    """What an interrupted addition left is removed without asking the group for anything."""
    group = group_of(1)
    cluster, _ = open_or_create(make_folder(tmp_path / "tide"), EMBEDDED)
    new = slots.take_new(cluster, 2)
    (first,) = [one for one in cluster.file.of("metaserver") if not one.joining]
    group.members[0].server = first.server
    group.voters, group.leader = [first.server], first.server
    lookout = [ServerPlace(first.server, "here", [group.members[0].address])]
    monkeypatch.setattr(target, "lookout_of", lambda cluster, asker: Lookout(asker, lookout, []))
    monkeypatch.setattr(target.Target, "cluster_id", CLUSTER)
    words = ["cluster", "remove", str(cluster.folder), *(one.name for one in new)]
    result = CliRunner().invoke(tidefs, words)
    assert result.exit_code == 0, result.output
    assert not group.members[0].asked
    assert [one.name for one in read(cluster.folder).of("metaserver")] == ["meta-1"]


class TestVerify:
    """Whether the states agree."""

    def test_they_do(self, group_of):
        report, exit_code = report_of(group_of(3), "--verify")
        assert exit_code == Exit.OK
        assert report["verification"]["agree"] is True
        assert len(report["verification"]["digests"]) == 3

    def test_they_differ(self, group_of):
        group = group_of(3)
        group.members[2].digest = 8
        report, exit_code = report_of(group, "--verify")
        assert exit_code == Exit.WRONG
        assert report["verification"]["agree"] is False
        assert "the states differ after record 100" in report["problems"][0]

    def test_one_is_behind_for_ever(self, group_of, monkeypatch):
        monkeypatch.setattr("tidefs.deploy.compare.VERIFY_PAUSE_MS", 0)
        group = group_of(3)
        group.members[2].applied = 99
        report, exit_code = report_of(group, "--verify")
        assert exit_code == Exit.WRONG
        assert report["verification"]["agree"] is None
        assert "could not be compared" in report["problems"][0]

    def test_one_catches_up_meanwhile(self, group_of, monkeypatch):
        monkeypatch.setattr("tidefs.deploy.compare.VERIFY_PAUSE_MS", 0)
        group = group_of(3)
        late = group.members[2]
        late.applied = 97
        answer = late._answer

        def rising(member, request):
            member.applied = min(100, member.applied + 1)
            return answer(request)

        late.rules[type(members_digest())] = rising
        report, _ = report_of(group, "--verify")
        assert report["verification"]["agree"] is True

    def test_alone_it_agrees_with_itself(self, group_of):
        report, exit_code = report_of(group_of(1), "--verify")
        assert exit_code == Exit.OK
        assert report["verification"]["agree"] is True


def members_digest():
    from tidefs.fs.messages.raft import GetDigest  # noqa: PLC0415

    return GetDigest()


class TestAdd:
    """New members that run elsewhere."""

    def test_two_more(self, group_of):
        group = group_of(1, joining=2)
        new = [f"--address={one.address}" for one in group.members[1:]]
        result = run("add", group, *new)
        assert result.exit_code == 0, result.output
        assert group.voters == [1, 2, 3]
        assert "survives the loss of 1" in result.output
        again = run("add", group, *new)
        assert again.exit_code == 0, "to repeat it does no harm"

    def test_an_even_number_is_refused(self, group_of):
        group = group_of(1, joining=1)
        words = refused(Exit.USAGE, "add", group, f"--address={group.members[1].address}")
        assert "survive no more failures than 1" in words
        assert "have 1 or 3" in words

    def test_one_that_is_not_waiting(self, group_of, tmp_path_factory):
        group = group_of(1)
        with FakeGroup(tmp_path_factory.mktemp("other"), 3) as other:
            new = [f"--address={one.address}" for one in other.members[1:]]
            assert "--format --join" in refused(Exit.USAGE, "add", group, *new)

    def test_one_that_nobody_reaches(self, group_of, tmp_path):
        words = refused(Exit.UNREACHABLE, "add", group_of(1), f"--address=unix:{tmp_path}/none")
        assert "none" in words

    def test_without_addresses_it_says_what_to_give(self, group_of):
        assert "--address" in refused(Exit.USAGE, "add", group_of(1))

    def test_what_the_leader_refuses_is_told(self, group_of):
        group = group_of(1, joining=2)
        group.members[0].rules[ChangeMembers] = lambda member, request: TideError(
            Code.INVALID, "server 2 was removed once"
        )
        result = run("add", group, *(f"--address={one.address}" for one in group.members[1:]))
        assert result.exit_code == Exit.USAGE
        assert "was removed once" in result.output

    def test_a_leader_that_dies_meanwhile_is_followed(self, group_of, monkeypatch):
        monkeypatch.setattr(members, "LOOK_EVERY_MS", 20)
        group = group_of(3, joining=2)

        def die(member, request):
            group.elect(2)
            member.scope.cancel()

        group.members[0].rules[ChangeMembers] = die
        new = [f"--address={one.address}" for one in group.members[3:]]
        result = run("add", group, *new, of=2)
        assert result.exit_code == 0, result.output
        assert group.voters == [1, 2, 3, 4, 5]

    def test_a_leader_that_is_cut_off_meanwhile_is_left(self, group_of, monkeypatch):
        """It never answers, and another one leads."""
        monkeypatch.setattr(members, "LOOK_EVERY_MS", 20)
        group = group_of(3, joining=2)

        def be_cut_off(member, request):
            group.elect(2)
            member.claims, member.term = "leader", 3

        group.members[0].rules[ChangeMembers] = be_cut_off
        new = [f"--address={one.address}" for one in group.members[3:]]
        assert run("add", group, *new).exit_code == 0
        assert group.voters == [1, 2, 3, 4, 5]

    def test_how_far_it_is(self, group_of, monkeypatch):
        monkeypatch.setattr(members, "LOOK_EVERY_MS", 10)
        monkeypatch.setattr(changes, "PROGRESS_EVERY_MS", 0)
        group = group_of(1, joining=2)
        late = group.members[1]
        late.match = 10
        steps = iter([10, 55, 70, 100])

        def hurry(member, request):
            late.match = next(steps, 100)
            if late.match == 100:
                leader = group.members[0]
                group.change(leader.asked[-1])
            return member.status()

        waiting = {}

        def start(member, request):
            member.rules[GetMember] = hurry
            waiting["there"] = True

        group.members[0].rules[ChangeMembers] = start
        result = run(
            "add", group, *(f"--address={one.address}" for one in group.members[1:]),
            "--timeout", "700ms",
        )  # fmt: skip
        assert "is being sent a snapshot of 60 records" in result.output
        assert "has 55 of 100 records" in result.output
        assert result.exit_code == Exit.UNREACHABLE, "the leader never said that it is done"
        assert "may still come to its end" in result.output
        assert "repeat the command" in result.output


def test_interrupted_it_says_what_to_do(group_of, wait_until):
    group = group_of(5)
    leader = group.members[0]
    leader.rules[ChangeMembers] = lambda member, request: None
    arguments = ["cluster", "remove", leader.address, *(one.id for one in group.members[3:])]
    process = subprocess.Popen(
        [sys.executable, "-m", "tidefs.deploy", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until(lambda: leader.asked)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == Exit.INTERRUPTED
    assert "repeat the command" in said
    assert len(said.splitlines()) == 1


class TestRemove:
    """Members that leave."""

    def test_two_of_five(self, group_of):
        group = group_of(5)
        result = run("remove", group, group.members[0].id, group.members[4].id)
        assert result.exit_code == 0, result.output
        assert group.voters == [2, 3, 4]
        assert "end its process" in result.output

    @pytest.mark.parametrize(
        ("size", "leaving", "words"),
        [
            (3, [3], "survive no more failures than 1"),
            (1, [1], "without the last metaserver"),
            (3, [1, 2, 3], "without the last metaserver"),
            (3, [2, 2], "named twice"),
            (3, [9], "is no metaserver of this group"),
        ],
    )
    def test_what_cannot_be(self, size, leaving, words, group_of):
        ids = [f"{one:016x}" for one in leaving]
        assert words in refused(Exit.USAGE, "remove", group_of(size), *ids)

    def test_what_would_lose_the_majority(self, group_of):
        group = group_of(5)
        for one in group.members[3:]:
            one.stop()
        ids = [one.id for one in group.members[1:3]]
        words = refused(Exit.UNREACHABLE, "remove", group, *ids)
        assert group.members[3].id in words
        assert "does not answer: start it" in words

    def test_the_beginning_of_an_id_must_be_one_members(self, group_of):
        assert "beginning of several ids" in refused(Exit.USAGE, "remove", group_of(3), "0000")

    def test_those_that_are_gone_are_gone(self, group_of):
        group = group_of(5)
        ids = [one.id for one in group.members[3:]]
        assert run("remove", group, *ids).exit_code == 0
        assert run("remove", group, *ids).exit_code == 0


class TestReplace:
    """One for another."""

    def test_one_that_is_down(self, group_of):
        group = group_of(3, joining=1)
        group.members[2].stop()
        new = group.members[3]
        result = run("replace", group, group.members[2].id, "--address", new.address)
        assert result.exit_code == 0, result.output
        assert group.voters == [1, 2, 4]
        assert f"server {new.id} has taken the place" in result.output
        again = run("replace", group, group.members[2].id, "--address", new.address)
        assert again.exit_code == 0, "to repeat it does no harm"

    def test_not_while_another_is_down_too(self, group_of):
        group = group_of(3, joining=1)
        group.members[1].stop()
        words = refused(
            Exit.UNREACHABLE,
            "replace", group, group.members[2].id, "--address", group.members[3].address,
        )  # fmt: skip
        assert group.members[1].id in words

    def test_the_only_one(self, group_of):
        group = group_of(1, joining=1)
        words = refused(
            Exit.USAGE,
            "replace", group, group.members[0].id, "--address", group.members[1].address,
        )  # fmt: skip
        assert "the last metaserver" in words

    def test_without_an_address(self, group_of):
        group = group_of(3)
        assert "--address" in refused(Exit.USAGE, "replace", group, group.members[0].id)


class TestTransfer:
    """Who leads."""

    def test_to_one(self, group_of):
        group = group_of(3)
        result = run("transfer", group, group.members[2].id)
        assert result.exit_code == 0, result.output
        assert group.leader == 3
        assert f"{group.members[2].id} leads now" in result.output

    def test_to_whoever_is_furthest(self, group_of):
        group = group_of(5)
        group.members[1].match, group.members[3].match = 98, 99
        group.members[2].match, group.members[4].match = 90, 100
        group.members[4].stop()
        assert run("transfer", group).exit_code == 0
        assert group.leader == 4

    def test_to_who_leads_already(self, group_of):
        group = group_of(3)
        assert "leads already" in run("transfer", group, group.members[0].id).output
        assert group.term == 3

    def test_to_nobody(self, group_of):
        assert "no other metaserver" in refused(Exit.WRONG, "transfer", group_of(1))

    def test_to_one_that_is_down(self, group_of):
        group = group_of(3)
        group.members[2].stop()
        words = refused(Exit.UNREACHABLE, "transfer", group, group.members[2].id)
        assert "start it first" in words

    def test_busy_for_a_while(self, group_of, monkeypatch):
        monkeypatch.setattr(members, "LOOK_EVERY_MS", 10)
        group = group_of(3)
        answers = [TideError(Code.BUSY, "a change is under way"), Done()]
        group.members[0].rules[TransferLeadership] = lambda member, request: answers.pop(0)
        assert run("transfer", group).exit_code == 0
        assert not answers


class TestTheWholeCluster:
    """``tidefs status`` follows the leader."""

    def test_asked_of_a_follower(self, group_of):
        group = group_of(3)
        result = CliRunner().invoke(tidefs, ["status", group.members[2].address])
        assert result.exit_code == 0, result.output
        assert result.output.count("metaserver") == 3
        assert "follower" in result.output

    def test_nobody_leads(self, group_of, monkeypatch):
        monkeypatch.setattr(members, "STATUS_PATIENCE_MS", 100)
        group = group_of(3)
        group.elect(0)
        group.members[2].stop()
        result = CliRunner().invoke(tidefs, ["status", group.members[0].address, "--json"])
        assert result.exit_code == Exit.UNREACHABLE
        report = json.loads(result.output)
        assert len(report["servers"]) == 2
        assert "no metaserver leads at the moment" in report["problems"][0]

    def test_metrics(self, group_of):
        group = group_of(3)
        group.members[1].stop()
        result = CliRunner().invoke(tidefs, ["status", group.members[0].address, "--metrics"])
        assert result.exit_code == 0
        lines = result.output.splitlines()
        first, second = group.members[0].id, group.members[1].id
        assert f'tidefs_up{{server="{first}"}} 1' in lines
        assert f'tidefs_up{{server="{second}"}} 0' in lines
        assert "# TYPE tidefs_raft_term gauge" in lines
        assert "# TYPE tidefs_elections_total counter" in lines
        assert f'tidefs_elections_total{{server="{first}"}} 1.5' in lines
        assert sum(line.startswith("tidefs_raft_term{") for line in lines) == 2


@pytest.mark.parametrize("command", ["status", "add", "remove", "replace", "transfer"])
def test_every_command_has_its_help(command):
    result = CliRunner().invoke(tidefs, ["cluster", command, "--help"])
    assert result.exit_code == 0
    assert f"Usage: tidefs cluster {command}" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["status"],
        ["remove", "127.0.0.1:1"],
        ["replace", "127.0.0.1:1"],
        ["add", "127.0.0.1:1", "--count", "many"],
        ["add", "127.0.0.1:1", "--timeout", "soon"],
        ["add", "127.0.0.1:1", "--count", "2", "--address", "127.0.0.1:2"],
        ["add", "127.0.0.1:1", "--address", "nowhere"],
        ["status", ""],
    ],
)
def test_what_is_not_understood(arguments, group_of):
    group = group_of(1)
    arguments = [group.members[0].address if one == "127.0.0.1:1" else one for one in arguments]
    result = CliRunner().invoke(tidefs, ["cluster", *arguments])
    assert result.exit_code == Exit.USAGE, result.output
    assert "Traceback" not in result.output
