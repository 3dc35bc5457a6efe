"""``tidefs stats``: what a mount was asked, what it asked the servers, and how often memory did."""

import itertools
import json
from collections.abc import Callable, Iterable
from typing import Any

import click
import trio

from ..fs.errors import TideError
from ..fs.quantities import parse_duration
from .exits import Exit, Failure
from .tell import table
from .told import STATS, told

MS_PER_S = 1_000
HEADING = f"{'ASKED':>10}{'FROM MEMORY':>13}{'ROUND TRIPS':>13}{'RECALLS':>9}{'DIRTY BYTES':>14}"
LINES_PER_HEADING = 20
Told = dict[str, Any]


@click.command()
@click.argument("mount_point", metavar="MOUNT")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option(
    "--watch",
    metavar="EVERY",
    is_flag=False,
    flag_value="1s",
    help="Print a line with what was done since the last one, again and again (1s, 500ms ...).",
)
def stats(mount_point: str, as_json: bool, watch: str | None) -> None:
    """What the mount at MOUNT (or any path in it) has done since it began.

    FROM MEMORY is the part of what the kernel asked that needed no server; what the kernel answers
    itself is not seen here at all. ROUND TRIPS are requests to servers.
    """
    if watch is not None:
        trio.run(_watch, lambda: told(mount_point, STATS), _every_s(watch))
        return
    found = told(mount_point, STATS)
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines(found)))


def _every_s(text: str) -> float:
    try:
        every_ms = parse_duration(text)
    except TideError as error:
        raise Failure(Exit.USAGE, f"--watch: {error.detail}") from None
    if not every_ms:
        raise Failure(Exit.USAGE, "--watch: name a time above 0, such as 1s")
    return every_ms / MS_PER_S


def lines(found: Told) -> list[str]:
    """For a person."""
    operations, waited = found["operations"], found["waited"]
    asked = [["THE KERNEL ASKED", "TIMES", "FROM MEMORY"]]
    for name in sorted(operations, key=lambda name: (-operations[name], name)):
        asked.append([name, f"{operations[name]:,}", _part(operations[name], waited.get(name, 0))])
    trips = [["ROUND TRIPS", "TIMES"]]
    for name, count in sorted(found["round_trips"].items(), key=lambda item: (-item[1], item[0])):
        trips.append([name, f"{count:,}"])
    return [
        f"mode {found['mode']}; {found['open_files']:,} files are open,"
        f" {found['dirty_bytes']:,} bytes not yet on the servers, {found['recalls']:,} recalls",
        "",
        *table(asked),
        "",
        *table(trips),
    ]


def _part(asked: int, waited: int) -> str:
    return f"{100 * (asked - waited) / asked:.1f} %" if asked else "-"


async def _watch(look: Callable[[], Told], every_s: float) -> None:
    """Until it is interrupted."""
    before = look()
    for number in itertools.count():
        if number % LINES_PER_HEADING == 0:
            click.echo(
                f"{'ASKED':>10}{'FROM MEMORY':>13}{'ROUND TRIPS':>13}{'RECALLS':>9}{'DIRTY':>14}"
            )
        await trio.sleep(every_s)
        now = look()
        click.echo(line(before, now))
        before = now


def line(before: Told, now: Told) -> str:
    """What was done in between."""
    asked, waited, trips = (
        _sum(now[key].values()) - _sum(before[key].values())
        for key in ("operations", "waited", "round_trips")
    )
    recalls = now["recalls"] - before["recalls"]
    part = _part(asked, waited)
    return f"{asked:>10,}{part:>13}{trips:>13,}{recalls:>9,}{now['dirty_bytes']:>14,}"


def _sum(numbers: Iterable[int]) -> int:
    return sum(numbers)
