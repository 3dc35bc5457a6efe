"""``tidefs cluster``: who the metaservers of a cluster are, while it works."""

import json
from collections.abc import Callable
from typing import Any

import click

from ..fs.errors import TideError
from ..fs.ports.clock import RealClock
from ..fs.quantities import parse_duration
from . import cluster_changes
from .ask import asking
from .cluster_status import GroupReport, MemberReport, look
from .exits import Exit, Failure
from .sources import HELP
from .target import Target
from .tell import table

TIMEOUT_DEFAULT = "10min"
HEADING = ["NAME", "ID", "PID", "ROLE", "TERM", "COMMIT", "APPLIED", "LAG", "SNAPSHOT"]
HEADING += ["ELECTIONS", "ADDRESS"]


def _duration(context: click.Context, parameter: click.Parameter, text: str) -> int:
    try:
        return parse_duration(text)
    except TideError as error:
        raise click.BadParameter(error.detail) from None


_source = click.argument("source", metavar="SOURCE")
_timeout = click.option(
    "--timeout",
    "timeout_ms",
    default=TIMEOUT_DEFAULT,
    show_default=True,
    metavar="DURATION",
    callback=_duration,
    help="Give up after so long. What was begun may still come to its end.",
)


@click.group(
    "cluster",
    help="See and change the group of metaservers, while the files are used.\n\nOne, three, five or"
    " more metaservers keep the names of all files together, and work as long as a majority of them"
    " does. An even number is refused: it survives no more failures than one less.\n\nSOURCE is"
    f" {HELP}.",
)
def cluster() -> None:
    """The commands are below."""


def _command(name: str, line: str) -> Callable[[Callable[..., Any]], click.Command]:
    """``line``: for the list of commands."""
    return cluster.command(name, short_help=line)


@_command("status", "How each of them is")
@_source
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option(
    "--verify", is_flag=True, help="Also compare the states of all members, byte by byte."
)
@click.pass_context
def status(context: click.Context, source: str, as_json: bool, verify: bool) -> None:
    """Say how each metaserver is.

    Exit code 0: all is well, 1: something is wrong, or could not be compared, 3: none answers.
    """
    target = Target(source)
    now_ns = RealClock().wall_ns()
    report = asking(
        target.cluster_id, lambda asker: look(target, asker, verify=verify, now_ns=now_ns)
    )
    if as_json:
        click.echo(json.dumps(report.as_builtins(), indent=2))
    else:
        click.echo("\n".join(_lines(report)))
    if not report.reachable:
        context.exit(Exit.UNREACHABLE)
    context.exit(Exit.OK if report.healthy else Exit.WRONG)


@_command("add", "Have new ones join: tidefs cluster add DIR")
@_source
@click.option(
    "--count",
    "number",
    type=int,
    metavar="N",
    help="How many new ones, in the folder SOURCE: 2 unless told.",
)
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="ADDRESS",
    help="Of a metaserver that runs elsewhere and was formatted with --join; once for each.",
)
@_timeout
def add(source: str, number: int | None, addresses: tuple[str, ...], timeout_ms: int) -> None:
    """Make new metaservers members of the group.

    They get everything first, and vote then. What was interrupted is completed by repeating it.
    """
    target = Target(source)
    if addresses:
        if number is not None:
            raise click.UsageError("--count is for new ones in a folder, --address for others")
        _tell(cluster_changes.add_running(target, addresses, timeout_ms))
    elif target.cluster is None:
        raise Failure(
            Exit.USAGE,
            "give the --address of each metaserver that is to be added: start it with a folder that"
            " was prepared with `tidefs metaserver --format --join`",
        )
    else:
        chosen = 2 if number is None else number
        _tell(cluster_changes.add_here(target, target.cluster, chosen, timeout_ms))


@_command("remove", "Have some leave for ever")
@_source
@click.argument("members", metavar="NAME|ID...", nargs=-1, required=True)
@_timeout
def remove(source: str, members: tuple[str, ...], timeout_ms: int) -> None:
    """Have metaservers leave the group for ever.

    Their processes are stopped, and their folders kept under another name, when they are in the
    folder SOURCE.
    """
    _tell(cluster_changes.remove(Target(source), members, timeout_ms))


@_command("replace", "Put a new one in the place of a lost one")
@_source
@click.argument("member", metavar="NAME|ID")
@click.option(
    "--address",
    metavar="ADDRESS",
    help="Of the new one, when it runs elsewhere and was formatted with --join.",
)
@_timeout
def replace(source: str, member: str, address: str | None, timeout_ms: int) -> None:
    """Put a new metaserver in the place of one whose disk or machine is lost.

    What is left in its folder is kept under another name.
    """
    target = Target(source)
    if address is not None:
        _tell(cluster_changes.replace_running(target, member, address, timeout_ms))
    elif target.cluster is None:
        raise Failure(Exit.USAGE, "give the --address of the new metaserver")
    else:
        _tell(cluster_changes.replace_here(target, target.cluster, member, timeout_ms))


@_command("transfer", "Have another one lead")
@_source
@click.argument("member", metavar="[NAME|ID]", required=False)
@_timeout
def transfer(source: str, member: str | None, timeout_ms: int) -> None:
    """Have another metaserver lead: this one, or the one that is furthest."""
    _tell(cluster_changes.transfer(Target(source), member, timeout_ms))


def _tell(sentences: list[str]) -> None:
    click.echo("\n".join(sentences))


def _lines(report: GroupReport) -> list[str]:
    """The report for a person."""
    state = "healthy" if report.healthy else "not healthy"
    lines = [f"{report.source}: {state if report.reachable else 'cannot be reached'}"]
    lines += [f"  {problem}" for problem in report.problems]
    if report.verification is not None and report.verification.agree:
        lines.append(f"  {report.verification.sentence}")
    return [*lines, "", *table([HEADING, *(_row(member) for member in report.members)])]


def _row(member: MemberReport) -> list[str]:
    down = not member.pid
    voice = "" if member.vote or down else " (no vote)"
    numbers = [member.term, member.commit, member.applied, member.lag]
    return [
        member.name or "-",
        member.id,
        str(member.pid or "-"),
        member.role + (voice if member.role not in ("learner", "joining") else ""),
        *("-" if down else str(number) for number in numbers),
        _snapshot(member),
        "-" if down else str(member.elections),
        " ".join(member.addresses),
    ]


def _snapshot(member: MemberReport) -> str:
    """Up to which record, and how long ago."""
    if not member.snapshot_index:
        return "-"
    age = f", {member.snapshot_age_s} s ago" if member.snapshot_age_s >= 0 else ""
    return f"{member.snapshot_index}{age}"
