"""What is known about a cluster: what runs here, and what its metaserver says. For `status`."""

from typing import Any

import msgspec

from ..client import mounts, notes
from ..fs.ids import ServerId, server_name
from ..fs.messages.hello import METASERVER
from ..fs.messages.meta import ServerStatus, Status
from .cluster import Cluster
from .cluster_file import Member
from .holds import Hold
from .homes import is_lost
from .members import LEADER, View, full_disk
from .target import named


class ServerReport(msgspec.Struct):
    """One server. ``pid`` 0: none. ``state``: what a metaserver is in
    the group (leader, follower, learner, ...), up, down, unreachable."""

    role: str
    id: str
    name: str
    host: str
    addresses: list[str]
    pid: int
    state: str
    total_bytes: int
    free_bytes: int
    chunks: int


class MountReport(msgspec.Struct):
    """One mount that was made from this machine's folder. ``driver``: kernel or pyfuse3, empty as
    long as none is chosen, or when it is another user's."""

    mount_point: str
    pid: int
    driver: str


class Report(msgspec.Struct):
    """Everything, as ``status --json`` prints it. ``problems`` are sentences; none: healthy."""

    source: str
    cluster: str
    reachable: bool
    healthy: bool
    replicas: int
    inodes: int
    stored_bytes: int
    chunks: int
    chunks_missing_copies: int
    sessions: int
    total_bytes: int
    free_bytes: int
    servers: list[ServerReport]
    mounts: list[MountReport]
    problems: list[str]

    def as_builtins(self) -> Any:
        """For JSON."""
        return msgspec.to_builtins(self)


def report_of(source: str, status: Status | None, unreachable: str) -> Report:
    """What a metaserver says, or ``unreachable``: why none could be asked."""
    report = Report(
        source=source,
        cluster="",
        reachable=status is not None,
        healthy=False,
        replicas=0,
        inodes=0,
        stored_bytes=0,
        chunks=0,
        chunks_missing_copies=0,
        sessions=0,
        total_bytes=0,
        free_bytes=0,
        servers=[],
        mounts=[],
        problems=[],
    )
    if status is None:
        report.problems.append(unreachable)
        return report
    report.cluster = status.cluster
    report.replicas = status.replicas_wanted
    report.inodes = status.inodes
    report.stored_bytes = status.stored_bytes
    report.chunks = status.chunks
    report.chunks_missing_copies = status.chunks_missing_copies
    report.sessions = status.sessions
    report.servers = [_of_server(server) for server in status.servers]
    up = [server for server in status.servers if server.role != METASERVER]
    report.total_bytes = sum(server.total_bytes for server in up if server.state == "up")
    report.free_bytes = sum(server.free_bytes for server in up if server.state == "up")
    report.problems = list(status.problems)
    report.healthy = not report.problems
    return report


def _of_server(server: ServerStatus) -> ServerReport:
    return ServerReport(
        role=server.role,
        id=server_name(ServerId(server.server)),
        name="",
        host=server.host,
        addresses=server.addresses,
        pid=server.pid,
        state=server.state,
        total_bytes=server.total_bytes,
        free_bytes=server.free_bytes,
        chunks=server.chunks,
    )


def add_seen(report: Report, view: View) -> None:
    """Add the metaservers that answer, though none of them leads."""
    for one in view.members:
        if one.status is not None:
            report.servers.append(
                ServerReport(
                    role=METASERVER,
                    id=one.id,
                    name="",
                    host=one.status.host,
                    addresses=one.addresses,
                    pid=one.status.pid,
                    state=one.status.role,
                    total_bytes=0,
                    free_bytes=0,
                    chunks=0,
                )
            )


def add_full_disks(report: Report, view: View) -> None:
    """Add which followers have no room; the leader tells of its own."""
    for one in view.members:
        if one.status is not None and one.status.role != LEADER:
            report.problems += full_disk(f"{METASERVER} {one.id}", one.status)
    report.healthy = not report.problems


def add_local(report: Report, cluster: Cluster, running: dict[str, int], users: list[Hold]) -> None:
    """Add what is known from the folder: members that the metaserver does not see, and why."""
    report.cluster = cluster.file.cluster
    report.replicas = cluster.file.replicas
    report.mounts = [_of_hold(hold) for hold in users]
    known = {server.id: server for server in report.servers}
    members = []
    for member in cluster.file.members:
        identity = server_name(ServerId(member.server))
        server = known.pop(identity, None) or ServerReport(
            role=member.role,
            id=identity,
            name="",
            host="",
            addresses=cluster.addresses(member),
            pid=0,
            state="unreachable",
            total_bytes=0,
            free_bytes=0,
            chunks=0,
        )
        server.name = member.name
        server.pid = running.get(member.name, 0)
        _judge(report, cluster, member, server)
        members.append(server)
    report.servers = [*members, *known.values()]
    report.problems = [named(cluster, problem) for problem in report.problems]
    report.healthy = not report.problems


def _of_hold(hold: Hold) -> MountReport:
    mount = mounts.mount_at(hold.mount_point)
    note = None if mount is None else notes.note_of(mount)
    return MountReport(hold.mount_point, hold.pid, "" if note is None else note.driver)


def _judge(report: Report, cluster: Cluster, member: Member, server: ServerReport) -> None:
    """Set the state from both sides of the story, and say what is wrong."""
    if not server.pid:
        server.state = "down"
        lost = member.role == METASERVER and is_lost(cluster.home(member))
        report.problems.append(
            cluster.loss_of(member)
            if lost
            else f"{server.name} does not run: `tidefs up {cluster.folder}` starts it"
        )
    elif server.state == "down":
        server.state = "unreachable"
    if server.state == "unreachable" and report.reachable:
        report.problems.append(
            f"{server.name} runs (pid {server.pid}), but the leader does not hear from it:"
            f" see {cluster.home_of(server.name)}/log"
        )
    if member.joining:
        report.problems.append(cluster.unfinished(member))
