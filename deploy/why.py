"""``tidefs why``: what a mount believes of a file, and on what ground."""

import json
from typing import Any

import click

from ..client.modes import mode_named
from .tell import count
from .told import WHY, told


@click.command()
@click.argument("path", metavar="PATH")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def why(path: str, as_json: bool) -> None:
    """What the mount that PATH is in believes of it, on what ground, and what makes it fresh."""
    found = told(path, WHY)
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines(path, found)))


def lines(path: str, found: dict[str, Any]) -> list[str]:
    """For a person."""
    return [
        f"{path}: inode {found['inode']}, mode {found['mode']}",
        f"  attributes  {_attributes(found['attributes'])}",
        f"  bytes       {_bytes(found['bytes'])}",
        f"  locks       {'held by this mount' if found['locked'] else 'none of this mount'}",
        f"  fresh       {mode_named(found['mode']).fresh}",
    ]


def _attributes(told: dict[str, Any]) -> str:
    versions = f"change {told['change']}, data version {told['data_version']}"
    seen = f"seen {_seconds(told['seen_ms_ago'])} ago"
    if not told["trusted"]:
        return f"not believed: asked again when needed ({seen}; {versions})"
    alone = ", exclusively" if told["exclusive"] else ""
    return (
        f"believed {told['ground']}{alone}: for {_seconds(told['for_ms'])} more without news"
        f" ({seen}; {versions})"
    )


def _bytes(told: dict[str, Any]) -> str:
    dirty = f"{told['dirty']:,} not yet on the servers" if told["dirty"] else "all on the servers"
    cached = f"{told['cached']:,} in memory" if told["cached"] else "none in memory"
    opened = f"open here {count(told['openings'], 'time')}" if told["openings"] else "not open here"
    return f"{cached}, {dirty}; {opened}"


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.1f} s"
