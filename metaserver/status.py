"""GetStatus and GetSpace: the cluster as its leader sees it, and what is wrong with it in words."""

from typing import NamedTuple

from ..fs.ids import ServerId, server_name
from ..fs.limits import MIB
from ..fs.messages.hello import CHUNKSERVER, METASERVER
from ..fs.messages.meta import ServerStatus, Space, Status
from .chunkservers import Chunkserver
from .leader import Leader
from .member_status import MemberView
from .placement import ROOM_PARTS
from .status_group import GroupView

_SECOND_NS = 10**9
TOLD_FOR_NS = 600 * _SECOND_NS
"""How long a damage that was mended is still told about."""


class Incident(NamedTuple):
    """Something that happened and that a person should know of."""

    at_ns: int
    handle: int
    server: int
    offset: int


class Journal:
    """The last incidents."""

    def __init__(self) -> None:
        self._incidents: list[Incident] = []

    def note(self, incident: Incident) -> None:
        self._incidents.append(incident)
        del self._incidents[:-1_000]

    def recent(self, now_ns: int) -> list[Incident]:
        return [i for i in self._incidents if now_ns - i.at_ns < TOLD_FOR_NS]


class Missing(NamedTuple):
    """What the caretaker found at its last look."""

    chunks: int
    """With fewer copies than wanted."""
    without_any: int
    """Of them, those of which nobody that is up has a copy."""
    lost: int
    """Of them, those of which nobody has a copy, though everybody is up."""
    lost_in: list[int]
    """Inodes of files with lost chunks."""


def space(leader: Leader) -> Space:
    """In bytes of one copy."""
    copies = max(1, leader.grants.wanted)
    servers = leader.servers.all()
    return Space(
        total_bytes=sum(server.total_bytes for server in servers) // copies,
        free_bytes=sum(server.free_bytes for server in servers if server.connected) // copies,
        inodes=leader.state.totals.inodes,
    )


def status(leader: Leader, view: MemberView, journal: Journal, missing: Missing) -> Status:
    """For `tidefs status`."""
    totals = leader.state.totals
    return Status(
        cluster=totals.cluster,
        term=leader.term,
        applied_index=totals.applied_index,
        sessions=len(leader.state.sessions()),
        inodes=totals.inodes,
        stored_bytes=totals.stored_bytes,
        replicas_wanted=totals.replicas,
        chunks=totals.chunks,
        chunks_missing_copies=missing.chunks,
        servers=_members(leader, view) + _servers(leader),
        problems=_problems(leader, journal, missing),
        locks_held=totals.locks_held,
        locks_waiting=totals.locks_waiting,
    )


def _group(leader: Leader) -> GroupView:
    core = leader.driver.core
    return GroupView(
        server=leader.config.server,
        configuration=core.configuration,
        progress=core.progress(),
        last_index=core.next_index - 1,
        led_since_ns=leader.started_ns,
        now_ns=leader.ports.clock.monotonic_ns(),
    )


def _members(leader: Leader, view: MemberView) -> list[ServerStatus]:
    """The metaservers. Of the others this one knows neither process nor disk: they say it."""
    disk, group = leader.ports.disk.space(), _group(leader)
    places = {place.server: place for place in view.configuration().places}
    found = []
    for server in group.members():
        place, own = places.get(server), server == group.server
        found.append(
            ServerStatus(
                role=METASERVER,
                server=server,
                host=place.host if place else "",
                addresses=list(place.addresses) if place else [],
                pid=view.pid if own else 0,
                state=group.state_of(server),
                total_bytes=disk.total_bytes if own else 0,
                free_bytes=disk.free_bytes if own else 0,
                chunks=0,
            )
        )
    return found


def _servers(leader: Leader) -> list[ServerStatus]:
    known = {server.server for server in leader.servers.all()}
    found = [
        ServerStatus(
            role=CHUNKSERVER,
            server=server.server,
            host=server.place.host,
            addresses=server.place.addresses,
            pid=server.pid if server.connected else 0,
            state="up" if server.connected else "down",
            total_bytes=server.total_bytes,
            free_bytes=server.free_bytes,
            chunks=len(server.replicas),
        )
        for server in leader.servers.all()
    ]
    found += [
        ServerStatus(
            role=record.role,
            server=record.server,
            host=record.host,
            addresses=record.addresses,
            pid=0,
            state="down",
            total_bytes=0,
            free_bytes=0,
            chunks=0,
        )
        for record in leader.state.servers()
        if record.role == CHUNKSERVER and record.server not in known
    ]
    return found


def _problems(leader: Leader, journal: Journal, missing: Missing) -> list[str]:
    now_ns = leader.now_ns()
    problems = _group(leader).problems()
    for server in leader.servers.all():
        problems += _problems_of(server, now_ns)
    for record in leader.state.servers():
        if record.role == CHUNKSERVER and leader.servers.get(record.server) is None:
            since_s = (now_ns - leader.started_ns) // _SECOND_NS
            problems.append(
                f"{_name(record.server, record.host)} has not been heard of since this metaserver"
                f" began to lead {since_s} s ago"
            )
    wanted = leader.grants.wanted
    if missing.chunks:
        problems.append(f"{missing.chunks} chunks have fewer than {wanted} copies")
    if missing.without_any:
        problems.append(f"{missing.without_any} chunks have no copy on any server that is up")
    if missing.lost:
        files = ", ".join(map(str, missing.lost_in[:10])) + ", ..." * (len(missing.lost_in) > 10)
        problems.append(
            f"the bytes of {missing.lost} chunks are lost (files with inode {files}): all"
            " chunkservers are up and none has them. So it is when machines lose power before a"
            " file was synced; write these files anew, or delete them"
        )
    if len(leader.servers.up()) < wanted:
        problems.append(
            f"{len(leader.servers.up())} chunkservers are up, {wanted} copies are wanted"
        )
    problems += [_damage(incident, leader) for incident in journal.recent(now_ns)]
    if leader.driver.space is not None:
        free_bytes, reserve_bytes = leader.driver.space.room()
        if free_bytes < 2 * reserve_bytes:
            problems.append(
                leader.driver.space.nearly_full
                if free_bytes >= reserve_bytes
                else leader.driver.space.sentence(reserve_bytes - free_bytes)
            )
    return problems


def _problems_of(server: Chunkserver, now_ns: int) -> list[str]:
    name = _name(server.server, server.place.host)
    if not server.connected:
        return [f"{name} is down since {(now_ns - server.down_since_ns) // _SECOND_NS} s"]
    if server.free_bytes < server.total_bytes // ROOM_PARTS:
        return [f"the disk of {name} is nearly full: {server.free_bytes // MIB} MiB are free"]
    return []


def _damage(incident: Incident, leader: Leader) -> str:
    server = leader.servers.get(incident.server)
    name = _name(incident.server, server.place.host if server else "")
    what = (
        f"a bad block on {name}, in chunk {incident.handle:016x} at offset {incident.offset}: it"
        " does not match its checksum and is not read"
    )
    still = server is not None and incident.handle in server.damaged
    return f"{what}, and there is no good copy yet" if still else f"{what}; it has been replaced"


def _name(server: int, host: str) -> str:
    return f"chunkserver {server_name(ServerId(server))}" + (f" on {host}" if host else "")
