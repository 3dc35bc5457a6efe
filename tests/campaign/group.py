"""Campaigns about the group of metaservers: its leader is killed, its members are exchanged."""

import argparse
import shutil
import time

import trio
from leader_kills import kill_leaders
from load import Load, under_load
from registry import campaign
from stage import CampaignError, Stage, alive, say, stage, tidefs, wait_until
from tidefs.fs.limits import CHECKPOINT_ENTRIES
from tidefs.metaserver.check import check
from tidefs.metaserver.kv_lmdb import LmdbKeyValue
from tidefs.metaserver.state import State
from tidefs.tests.bench.group import CALLERS, leader_address, open_creator

STEP_S = 5.0


@campaign
def failover(options: argparse.Namespace) -> None:
    """kill -9 of the leader every 5 s, ten times, under tar, fio and a loop over names."""
    with stage(3, 3, metaservers=3) as cluster:
        with under_load(cluster, options.tarball) as load:
            kill_leaders(cluster, load)
        _members_agree(cluster)
        _check_name_space(cluster)


@campaign
def members(options: argparse.Namespace) -> None:
    """A disk is wiped and replaced, 3 members become 5 and 3 again, the leader hands over: under
    load."""
    with stage(3, 3, metaservers=3) as cluster:
        _outgrow_the_log(cluster)
        with under_load(cluster, options.tarball) as load:
            _wait(STEP_S, load)
            for victim in (_follower(cluster), cluster.leader()):
                _wipe(cluster, victim)
                say(tidefs("cluster", "replace", cluster.cluster, str(victim["name"])).strip())
                _came_by_snapshot(cluster, str(victim["name"]))
                _wait(STEP_S, load)
            say(tidefs("cluster", "add", cluster.cluster, "--count", "2").strip())
            _wait(STEP_S, load)
            say(tidefs("cluster", "transfer", cluster.cluster).strip())
            _wait(STEP_S, load)
            leader = str(cluster.leader()["name"])
            others = [name for name in _names_of(cluster) if name != leader]
            say(tidefs("cluster", "remove", cluster.cluster, leader, others[0]).strip())
            _wait(STEP_S, load)
            say(tidefs("cluster", "transfer", cluster.cluster).strip())
            _wait(STEP_S, load)
        if len(cluster.members()) != 3:
            raise CampaignError(f"the members are {cluster.members()}")
        _members_agree(cluster)
        _check_name_space(cluster)


def _outgrow_the_log(cluster: Stage) -> None:
    """Change so much that the log is cut off behind a checkpoint on every member."""

    async def fill() -> None:
        async with trio.open_nursery() as nursery:
            address = leader_address(cluster.cluster)
            creator = await open_creator(address, nursery, b"filling")
            creator.suffix = b"-" * 230
            await creator.work_until(CALLERS[-1], CHECKPOINT_ENTRIES + 1_000)
            nursery.cancel_scope.cancel()

    trio.run(fill)

    def cut() -> bool:
        return all(int(str(member["first_index"])) > 1 for member in cluster.members())

    wait_until(cut, "every member has cut off its log")
    say(f"{CHECKPOINT_ENTRIES + 1_000:,} files made; the log begins behind a checkpoint")


def _came_by_snapshot(cluster: Stage, name: str) -> None:
    """A member whose log begins where a checkpoint ends never had what came before."""
    member = next(member for member in cluster.members() if member["name"] == name)
    if int(str(member["first_index"])) == 1:
        raise CampaignError(f"{name} was brought back by the log, not by a snapshot: {member}")
    say(f"{name} was brought back by a snapshot; its log begins at {member['first_index']}")


def _wait(seconds: float, load: Load) -> None:
    """Let it work for a while; stop early when it has something to complain about."""
    end = time.monotonic() + seconds
    wait_until(lambda: load.complaints or time.monotonic() > end, "time passes")
    load.check()


def _names_of(cluster: Stage) -> list[str]:
    return [str(member["name"]) for member in cluster.members()]


def _follower(cluster: Stage) -> dict[str, object]:
    return next(member for member in cluster.members() if member["role"] == "follower")


def _wipe(cluster: Stage, member: dict[str, object]) -> None:
    """Kill a member and lose its disk."""
    pid = int(str(member["pid"]))
    cluster.kill(pid)
    assert not alive(pid)
    shutil.rmtree(cluster.cluster / str(member["name"]) / "data")
    say(f"{member['name']} ({member['role']}) was killed and its data folder removed")


def _members_agree(cluster: Stage) -> None:
    """All members hold the same state."""
    say(tidefs("cluster", "status", cluster.cluster, "--verify").strip())


def _check_name_space(cluster: Stage) -> None:
    """A file-system check of each member's state, after all have stopped."""
    for point in list(cluster.mounts):
        cluster.umount(point)
    names = _names_of(cluster)
    cluster.down()
    for name in names:
        kv = LmdbKeyValue(str(cluster.cluster / name / "data" / "working" / "database"))
        try:
            wrong = check(State(kv))
        finally:
            kv.close()
        if wrong:
            raise CampaignError(f"{name}: the name space check finds {wrong[:10]}")
    say(f"the name space check finds nothing on {', '.join(names)}")
