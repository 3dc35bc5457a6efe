"""Add, remove and replace metaservers, and have another one lead, while the cluster works.

Who is a member is decided in the log of the group: everything here that comes before or after that
decision (folders, processes, ``cluster.toml``) can be interrupted, and repeating the command does
the rest. What was asked for is checked before anything is made, and once more by the leader.

Each function answers with sentences about what was done.
"""

from collections.abc import Sequence

from ..fs.ids import ServerId, server_name
from ..fs.messages.hello import METASERVER
from . import homes, slots
from .changes import (
    change,
    check_growth,
    check_without,
    configuration_of,
    hand_over,
    places_of,
    still_there,
    wait_leader,
)
from .cluster import Cluster
from .cluster_file import Member
from .exits import Exit, Failure
from .folder import MEMBERS_LOCK_FILE, locked
from .members import View
from .processes import end, pids_serving, serves
from .target import Target
from .tell import count, say


def add_here(target: Target, cluster: Cluster, number: int, timeout_ms: int) -> list[str]:
    """Start ``number`` new metaservers in the cluster's folder and make them members.

    If an addition was interrupted, that one is completed instead.
    """
    with locked(cluster.folder, say, MEMBERS_LOCK_FILE):
        now = configuration_of(wait_leader(target))
        with locked(cluster.folder, say):
            cluster = target.reopen()
            new = [member for member in cluster.file.of(METASERVER) if member.joining]
            if new:
                say(f"completing what was begun: {', '.join(one.name for one in new)}")
            else:
                check_growth(now, number, f"--count {number}")
                new = slots.take_new(cluster, number)
            _start(cluster, new)
        leave = still_there(now, [old for one in new for old in one.replaces])
        change(target, [cluster.place(one) for one in new], leave, timeout_ms)
        with locked(cluster.folder, say):
            slots.settle(target.reopen(), [one.server for one in new])
    return [_joined([one.name for one in new]), _size(target)]


def add_running(target: Target, addresses: Sequence[str], timeout_ms: int) -> list[str]:
    """Make members of metaservers that run elsewhere, formatted to join."""
    view = wait_leader(target)
    now = configuration_of(view)
    places = places_of(target, view, addresses)
    new = [place for place in places if place.server not in now.voters]
    if new:
        check_growth(now, len(new), f"{len(new)} more")
    change(target, places, [], timeout_ms)
    return [_joined([target.name_of(place.server) for place in places]), _size(target)]


def remove(target: Target, words: Sequence[str], timeout_ms: int) -> list[str]:
    """Have these metaservers leave the group.

    Those in the cluster's folder are stopped, and their folders kept under another name.
    """
    if target.cluster is None:
        names = [target.name_of(one) for one in _leave(target, words, timeout_ms)]
        done = [f"{name} is no member any more: end its process" for name in names]
        return [*done, _size(target)]
    folder = target.cluster.folder
    with locked(folder, say, MEMBERS_LOCK_FILE):
        leaving = _leave(target, words, timeout_ms)
        elsewhere = [one for one in leaving if one not in target.names()]
        with locked(folder, say):
            kept = slots.give_up(target.reopen(), leaving, say)
    done = [
        f"{name} is no member any more" + (f"; its folder is kept as {path}" if path else "")
        for name, path in kept.items()
    ]
    done += [f"{target.name_of(one)} is no member any more: end its process" for one in elsewhere]
    return [*done, _size(target)]


def replace_here(target: Target, cluster: Cluster, word: str, timeout_ms: int) -> list[str]:
    """Start a new metaserver under the name of one that is lost, and make it a member instead."""
    done: list[str] = []
    with locked(cluster.folder, say, MEMBERS_LOCK_FILE):
        view = wait_leader(target)
        now = configuration_of(view)
        with locked(cluster.folder, say):
            cluster = target.reopen()
            new = _member_called(target, cluster, word, now.voters)
            if new.replaces and not homes.is_lost(cluster.home(new)):
                say(f"completing what was begun: {new.name}")
            else:
                check_without(target, view, [new.server], replaced=True)
                new, done = _make_instead(cluster, new, view)
            _start(cluster, [new])
        change(target, [cluster.place(new)], still_there(now, new.replaces), timeout_ms)
        with locked(cluster.folder, say):
            slots.settle(target.reopen(), [new.server])
    return [*done, f"{new.name} is a member again, as server {_id(new.server)}", _size(target)]


def replace_running(target: Target, word: str, address: str, timeout_ms: int) -> list[str]:
    """Make a member of a metaserver that runs elsewhere, instead of one that is lost."""
    view = wait_leader(target)
    now = configuration_of(view)
    old = target.find(word, [*now.voters, *now.learners, *now.removed])
    (place,) = places_of(target, view, [address])
    if there := still_there(now, [old]):
        check_without(target, view, there, replaced=True)
    change(target, [place], there, timeout_ms)
    name = target.name_of(old)
    return [f"server {_id(place.server)} has taken the place of {name}", _size(target)]


def transfer(target: Target, word: str | None, timeout_ms: int) -> list[str]:
    """Have the member that is called ``word`` lead, or the one that is furthest."""
    view = wait_leader(target)
    leader = view.leader
    assert leader is not None
    now = configuration_of(view)
    server = _furthest(view) if word is None else target.find(word, now.voters)
    before, after = target.name_of(leader.server), target.name_of(server)
    if server == leader.server:
        return [f"{after} leads already"]
    if server not in view.up():
        raise Failure(Exit.UNREACHABLE, f"{after} does not answer: start it first")
    hand_over(target, server, timeout_ms)
    return [f"{after} leads now, after {before}"]


def _furthest(view: View) -> int:
    """Who has most of the leader's log, and is up."""
    leader = view.leader
    assert leader is not None
    assert leader.status is not None
    others = [one for one in configuration_of(view).voters if one != leader.server]
    up = [one for one in others if one in view.up()]
    if not up:
        raise Failure(Exit.WRONG, "there is no other metaserver up that could lead")
    matches = {server: match_index for server, match_index, _ in leader.status.lag}
    return max(up, key=lambda one: matches.get(one, 0))


def _leave(target: Target, words: Sequence[str], timeout_ms: int) -> list[int]:
    """Have members leave the group; their ids, also of those that had left before."""
    view = wait_leader(target)
    now = configuration_of(view)
    leaving = [target.find(word, [*now.voters, *now.learners, *now.removed]) for word in words]
    for one in leaving:
        if leaving.count(one) > 1:
            raise Failure(Exit.USAGE, f"{target.name_of(one)} is named twice")
    members = target.cluster.file.of(METASERVER) if target.cluster is not None else []
    replaced = [old for one in members if one.server in leaving for old in one.replaces]
    if there := still_there(now, [*leaving, *replaced]):
        check_without(target, view, there, replaced=False)
        change(target, [], there, timeout_ms)
    return leaving


def _member_called(target: Target, cluster: Cluster, word: str, voters: list[int]) -> Member:
    server = target.find(word, voters)
    for member in cluster.file.of(METASERVER):
        if member.server == server:
            return member
    raise Failure(
        Exit.USAGE,
        f"{word} does not live in {cluster.folder}: start a new one that is formatted to join, and"
        " give its --address",
    )


def _make_instead(cluster: Cluster, old: Member, view: View) -> tuple[Member, list[str]]:
    """A new member under the name of ``old``, not started yet; what was done."""
    replaces = still_there(configuration_of(view), [*old.replaces, old.server])
    cluster.stop(say, kill=True, only=[old.name])
    _end_orphan(cluster, old)
    new, aside = slots.pass_on(cluster, old, replaces)
    if not replaces:
        raise Failure(
            Exit.WRONG,
            f"{new.name} was no member yet, so there is nothing to replace; it was made anew:"
            f" `tidefs cluster add {cluster.folder}` completes its addition",
        )
    return new, [f"what was in the folder {new.name} is kept as {aside}"] if aside else []


def _end_orphan(cluster: Cluster, member: Member) -> None:
    """End a member's process though its folder, with its process id, was deleted under it."""
    config = cluster.home(member) / "config.toml"
    for pid in pids_serving(METASERVER, config):
        end(
            {member.name: pid},
            say,
            kill=True,
            still_ours=lambda _, pid: serves(pid, METASERVER, config),
        )


def _start(cluster: Cluster, members: Sequence[Member]) -> None:
    """Have new members run, or Failure."""
    started = cluster.start(say, only=[member.name for member in members])
    for trouble in started.troubles.values():
        raise trouble


def _joined(names: list[str]) -> str:
    return f"{', '.join(names)} {'is a member' if len(names) == 1 else 'are members'} now"


def _size(target: Target) -> str:
    """What the group can bear, and how to see that it is well."""
    voters = len(configuration_of(wait_leader(target)).voters)
    bears = (voters - 1) // 2
    survives = f"survives the loss of {bears}" if bears else "survives no loss"
    return (
        f"the group has {count(voters, 'member')} and {survives}; see `tidefs cluster status"
        f" {target.name}`"
    )


def _id(server: int) -> str:
    return server_name(ServerId(server))
