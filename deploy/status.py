"""``tidefs status``: servers, space, copies, and what is wrong."""

import json

import click

from ..fs.errors import TideError
from ..fs.messages.meta import Status
from ..fs.quantities import format_size
from . import metrics
from .ask import Asker, asking
from .exits import Exit, failure_of
from .holds import holds
from .members import View, leader_status
from .report import (
    MountReport,
    Report,
    ServerReport,
    add_full_disks,
    add_local,
    add_seen,
    report_of,
)
from .sources import HELP
from .target import Target
from .tell import count, table


@click.command(help=f"Say how a cluster is. SOURCE is {HELP}.")
@click.argument("source", metavar="SOURCE")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option(
    "--metrics",
    "as_metrics",
    is_flag=True,
    help="Print the numbers of each metaserver instead, as Prometheus reads them.",
)
@click.pass_context
def status(context: click.Context, source: str, as_json: bool, as_metrics: bool) -> None:
    """Exit code 0: healthy, 1: something is wrong, 3: no metaserver leads, or answers."""
    target = Target(source)
    if as_metrics:
        context.exit(_print_metrics(target))
    report, exit_code = _look(target)
    if as_json:
        click.echo(json.dumps(report.as_builtins(), indent=2))
    else:
        click.echo("\n".join(_lines(report)))
    context.exit(exit_code)


def _print_metrics(target: Target) -> Exit:
    """Those that do not answer are told in the numbers, too."""
    members = asking(target.cluster_id, lambda asker: metrics.gather(target, asker))
    click.echo(metrics.in_text(members), nl=False)
    answered = any(one.values is not None for one in members)
    return Exit.OK if answered else Exit.UNREACHABLE


def _look(target: Target) -> tuple[Report, Exit]:
    """The report on a cluster, and what the command is to exit with."""

    async def ask(asker: Asker) -> tuple[Status | TideError, View]:
        return await leader_status(target.lookout(asker))

    status, view = asking(target.cluster_id, ask)
    if isinstance(status, TideError):
        failure = failure_of(status)
        report = report_of(target.name, None, f"no metaserver answers: {failure.message}")
        add_seen(report, view)
        exit_code = Exit(failure.exit_code)
    else:
        report, exit_code = report_of(target.name, status, ""), Exit.OK
        add_full_disks(report, view)
    if target.cluster is not None:
        add_local(report, target.cluster, target.cluster.running(), holds(target.cluster.folder))
    if exit_code is Exit.OK and not report.healthy:
        exit_code = Exit.WRONG
    return report, exit_code


def _lines(report: Report) -> list[str]:
    """The report for a person."""
    state = "healthy" if report.healthy else "not healthy"
    lines = [f"{report.source}: {state if report.reachable else 'cannot be reached'}"]
    lines += [f"  {problem}" for problem in report.problems]
    if report.cluster:
        lines += ["", f"cluster  {report.cluster}"]
    if report.reachable:
        missing = report.chunks_missing_copies
        copies = f"{missing:,} lack copies" if missing else "all have their copies"
        each = f", for {count(report.replicas, 'copy', 'copies')} of everything"
        space = f"{format_size(report.free_bytes)} free of {format_size(report.total_bytes)}"
        lines += [
            f"space    {space}{each if report.replicas > 1 else ''}",
            f"files    {count(report.inodes, 'inode')}, {format_size(report.stored_bytes)} stored",
            f"chunks   {count(report.chunks, 'chunk')}" + (f", {copies}" if report.chunks else ""),
            f"users    {count(report.sessions, 'session')}",
        ]
    lines += [_mount_line(mount) for mount in report.mounts]
    if report.servers:
        heading = ["ROLE", "NAME", "ID", "PID", "STATE", "FREE", "CHUNKS", "ADDRESS"]
        lines += ["", *table([heading, *(_row(server) for server in report.servers)])]
    return lines


def _mount_line(mount: MountReport) -> str:
    driver = f", {mount.driver} driver" if mount.driver else ""
    return f"mount    {mount.mount_point} (pid {mount.pid}{driver})"


def _row(server: ServerReport) -> list[str]:
    return [
        server.role,
        server.name or "-",
        server.id,
        str(server.pid or "-"),
        server.state,
        format_size(server.free_bytes) if server.total_bytes else "-",
        str(server.chunks),
        " ".join(server.addresses),
    ]
