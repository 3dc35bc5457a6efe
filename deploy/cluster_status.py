"""What the members of a group say of themselves, and what is wrong with it."""

from typing import Any

import msgspec

from ..fs.messages.hello import METASERVER
from .ask import Asker
from .cluster_file import Member
from .compare import Verification, compare
from .homes import is_lost
from .members import JOINING, LEADER, REMOVED, Seen, View, full_disk, no_leader
from .target import Target

DOWN = "down"
FAR_BEHIND = 10_000
_SECOND_NS = 10**9


class MemberReport(msgspec.Struct):
    """One member; numbers are 0, and texts empty, when it did not answer.

    ``role`` as in raft/contract.py: Role, or ``joining``, ``removed``, ``down``; ``vote``: whether
    it is a voter of the group. Indexes count records of the log; ``lag`` is how many the leader
    has that this one has not. ``silent_ms``: since the leader heard from it, -1: never.
    """

    id: str
    name: str
    host: str
    addresses: list[str]
    pid: int
    role: str
    vote: bool
    term: int
    commit: int
    applied: int
    lag: int
    silent_ms: int
    first_index: int
    last_index: int
    snapshot_index: int
    snapshot_age_s: int  # -1: none was made or taken since it started
    elections: int
    trouble: str


class GroupReport(msgspec.Struct):
    """Everything, as ``cluster status --json`` prints it. ``problems`` are sentences."""

    source: str
    cluster: str
    reachable: bool
    healthy: bool
    leader: str  # an id; empty: nobody leads
    term: int
    members: list[MemberReport]
    problems: list[str]
    verification: Verification | None

    def as_builtins(self) -> Any:
        """For JSON."""
        return msgspec.to_builtins(self)


async def look(target: Target, asker: Asker, *, verify: bool, now_ns: int) -> GroupReport:
    """Ask all members; ``now_ns`` is the wall clock."""
    lookout = target.lookout(asker)
    view = await lookout.look()
    report = group_report(target, view, now_ns)
    if verify and report.reachable:
        report.verification = verification = await compare(target, lookout, view)
        if verification.agree is not True:
            report.problems.append(verification.sentence)
    report.healthy = not report.problems
    return report


def group_report(target: Target, view: View, now_ns: int) -> GroupReport:
    """What one look at a group comes to."""
    leader = view.leader
    members = [_member(target, view, one, now_ns) for one in _in_order(target, view)]
    answers = [one.status for one in view.members if one.status is not None]
    report = GroupReport(
        source=target.name,
        cluster=answers[0].cluster if answers else "",
        reachable=bool(answers),
        healthy=False,
        leader=leader.id if leader else "",
        term=max((status.term for status in answers), default=0),
        members=members,
        problems=[],
        verification=None,
    )
    report.problems = _problems(target, view)
    return report


def _in_order(target: Target, view: View) -> list[Seen]:
    """Those with a name first, in the order of their folder."""
    order = list(target.names())
    return sorted(
        view.members,
        key=lambda one: (order.index(one.server) if one.server in order else len(order), one.id),
    )


def _member(target: Target, view: View, one: Seen, now_ns: int) -> MemberReport:
    status = one.status
    configuration = view.configuration
    lag, silent_ms = _lag(view, one.server)
    report = MemberReport(
        id=one.id,
        name=target.names().get(one.server, ""),
        host=status.host if status else "",
        addresses=one.addresses,
        pid=status.pid if status else 0,
        role=status.role if status else DOWN,
        vote=configuration is not None and one.server in configuration.voters,
        term=status.term if status else 0,
        commit=status.commit_index if status else 0,
        applied=status.applied_index if status else 0,
        lag=lag,
        silent_ms=silent_ms,
        first_index=status.first_index if status else 0,
        last_index=status.last_index if status else 0,
        snapshot_index=status.checkpoint_index if status else 0,
        snapshot_age_s=-1,
        elections=status.elections if status else 0,
        trouble=one.why,
    )
    if status is not None and status.snapshot_ns:
        report.snapshot_age_s = max(0, (now_ns - status.snapshot_ns) // _SECOND_NS)
    return report


def _problems(target: Target, view: View) -> list[str]:
    found = []
    if view.leader is None:
        error = no_leader(view)
        found.append(error.detail or str(error))
    for one in _in_order(target, view):
        found += _problem_here(target, one) or _problem_of(target, view, one)
    if view.configuration is not None and view.configuration.voters_before:
        found.append("a change of the members is under way: it ends by itself")
    return found


def _problem_here(target: Target, one: Seen) -> list[str]:
    """What the folder knows of it."""
    local = target.cluster
    member: Member | None = None
    if local is not None:
        found = [member for member in local.file.of(METASERVER) if member.server == one.server]
        member = found[0] if found else None
    if local is None or member is None:
        return []
    if member.joining:
        return [local.unfinished(member)]
    if one.status is not None:
        return []
    if is_lost(local.home(member)):
        return [local.loss_of(member)]
    if pid := local.running().get(member.name):
        log = local.home_of(member.name) / "log"
        return [
            f"{member.name} runs (pid {pid}), but does not answer ({one.why}): see {log}; if it is"
            f" stuck, end it, and `tidefs up {local.folder}` starts it again"
        ]
    return [f"{member.name} does not answer ({one.why}): `tidefs up {local.folder}` starts it"]


def _problem_of(target: Target, view: View, one: Seen) -> list[str]:
    """What it says itself, or does not."""
    name = target.name_of(one.server) if one.server else one.addresses[0]
    status, now = one.status, view.configuration
    if status is None:
        return [f"{name} does not answer ({one.why})"]
    if status.role == LEADER and view.leader is not None and view.leader.server != one.server:
        return [f"{name} still believes that it leads, in term {status.term}: it was cut off"]
    if status.role == REMOVED or (now is not None and one.server in now.removed):
        return [f"{name} was removed from the group: end its process"]
    if status.role == JOINING or (now and one.server not in [*now.voters, *now.learners]):
        return [f"{name} is no member of the group"]
    if now is not None and one.server in now.learners:
        return [f"{name} has the log and no vote: what added it has not come to its end"]
    found = full_disk(name, status)
    lag = _lag(view, one.server)[0]
    return found + [f"{name} is {lag:,} records behind the leader"] * (lag > FAR_BEHIND)


def _lag(view: View, server: int) -> tuple[int, int]:
    """How many records the leader has more, and ms since it heard of that member (-1: never)."""
    leader = view.leader.status if view.leader else None
    for one, match_index, silent_ms in leader.lag if leader else []:
        if leader is not None and one == server:
            return max(0, leader.last_index - match_index), silent_ms
    return 0, -1
