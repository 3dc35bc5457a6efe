"""``tidefs status``: servers, space, copies, and what is wrong."""

import json

import click

from ..fs.errors import TideError
from ..fs.quantities import format_size
from .ask import ask_status
from .cluster import open_cluster
from .exits import Exit, failure_of
from .holds import holds
from .report import Report, ServerReport, add_local, report_of
from .sources import HELP, parse_source
from .tell import count, table


@click.command(help=f"Say how a cluster is. SOURCE is {HELP}.")
@click.argument("source", metavar="SOURCE")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_context
def status(context: click.Context, source: str, as_json: bool) -> None:
    """Exit code 0: healthy, 1: something is wrong, 3: no metaserver answers."""
    report, exit_code = _look(source)
    if as_json:
        click.echo(json.dumps(report.as_builtins(), indent=2))
    else:
        click.echo("\n".join(_lines(report)))
    context.exit(exit_code)


def _look(text: str) -> tuple[Report, Exit]:
    """The report on a SOURCE, and what the command is to exit with."""
    source = parse_source(text)
    if source.folder is None:
        report, exit_code = _ask(text, source.addresses, "")
    else:
        cluster = open_cluster(source.folder)
        running = cluster.running()
        addresses = cluster.metaserver_addresses()
        report, exit_code = _ask(str(cluster.folder), addresses, cluster.file.cluster)
        add_local(report, cluster, running, holds(cluster.folder))
    if exit_code is Exit.OK and not report.healthy:
        exit_code = Exit.WRONG
    return report, exit_code


def _ask(source: str, addresses: list[str], cluster: str) -> tuple[Report, Exit]:
    try:
        return report_of(source, ask_status(addresses, cluster), ""), Exit.OK
    except TideError as error:
        failure = failure_of(error)
        sentence = f"no metaserver answers: {failure.message}"
        return report_of(source, None, sentence), Exit(failure.exit_code)


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
    lines += [f"mount    {mount.mount_point} (pid {mount.pid})" for mount in report.mounts]
    if report.servers:
        heading = ["ROLE", "NAME", "ID", "PID", "STATE", "FREE", "CHUNKS", "ADDRESS"]
        lines += ["", *table([heading, *(_row(server) for server in report.servers)])]
    return lines


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
