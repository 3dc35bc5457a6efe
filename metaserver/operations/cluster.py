"""FormatCluster, AdmitServer, SetMembers and Noop: what concerns the cluster itself."""

from ...fs.attributes import Kind
from ...fs.codec import Buffer
from ...fs.errors import Code, TideError
from ...fs.ids import ROOT
from ...fs.limits import REPLICAS_MAX
from ...fs.messages.base import Done, Message
from ..entries import AdmitServer, FormatCluster, Noop, SetMembers
from ..moment import Moment
from ..namespace import FIRST_COOKIE
from ..records import ServerRecord
from ..tables import Tables
from .checks import check_mode, check_owner
from .table import Perform, operation

SERVER_END = 1 << 63


@operation(FormatCluster)
def format_cluster(tables: Tables, request: FormatCluster, payload: Buffer) -> Perform:
    """The cluster gets its id and its root."""
    check_mode(request.root_mode)
    check_owner(request.root_uid, request.root_gid)
    if not request.cluster:
        raise TideError(Code.INVALID, "a cluster's id is not empty")
    if not 0 < request.replicas <= REPLICAS_MAX:
        raise TideError(Code.INVALID, f"{request.replicas} copies; 1 to {REPLICAS_MAX} can be")
    totals = tables.totals
    if totals.cluster not in ("", request.cluster):
        raise TideError(Code.EXISTS, f"this is cluster {totals.cluster}, not {request.cluster}")

    def perform(moment: Moment) -> Message:
        if not totals.cluster:
            totals.cluster = request.cluster
            totals.replicas = request.replicas
            _make_root(tables, request, moment)
        return Done()

    return perform


def _make_root(tables: Tables, request: FormatCluster, moment: Moment) -> None:
    uid, gid, mode = request.root_uid, request.root_gid, request.root_mode
    root = tables.inodes.new(Kind.DIRECTORY, mode, uid, gid, moment.time_ns)
    assert root.number == ROOT
    root.links = 2
    root.parent = ROOT
    root.next_cookie = FIRST_COOKIE
    tables.inodes.put(root)


@operation(AdmitServer)
def admit_server(tables: Tables, request: AdmitServer, payload: Buffer) -> Perform:
    """A server, or its new addresses."""
    if not 0 < request.server < SERVER_END:
        raise TideError(Code.INVALID, f"server id {request.server}")
    record = ServerRecord(request.server, request.role, request.host, request.addresses)

    def perform(moment: Moment) -> Message:
        tables.servers.put(record)
        return Done()

    return perform


@operation(SetMembers)
def set_members(tables: Tables, request: SetMembers, payload: Buffer) -> Perform:
    """Consensus has decided it: nothing is left to refuse."""

    def perform(moment: Moment) -> Message:
        tables.servers.put_group(request.configuration)
        return Done()

    return perform


@operation(Noop)
def noop(tables: Tables, request: Noop, payload: Buffer) -> Perform:
    """Nothing but the entry itself."""
    return lambda moment: Done()
