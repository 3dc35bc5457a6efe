"""The numbers of all metaservers in the text format of Prometheus (its version 0.0.4).

What each of them means stands in docs/operations.md.
"""

import json
from contextlib import suppress
from typing import NamedTuple

import trio

from ..fs.errors import TideError
from ..fs.ids import ServerId, server_name
from ..fs.messages.raft import GetMetrics
from .ask import Asker
from .members import Lookout, View
from .target import Target

PREFIX = "tidefs_"
COUNTER = "_total"
"""How the name of a number ends that only grows while its process lives."""


class Numbers(NamedTuple):
    """Of one member; ``values`` is None when it did not answer."""

    server: int
    name: str
    values: list[tuple[str, float]] | None


async def gather(target: Target, asker: Asker) -> list[Numbers]:
    """Ask every member that is known, at the same time."""
    lookout = target.lookout(asker)
    return await _of_all(target, lookout, await lookout.look())


async def _of_all(target: Target, lookout: Lookout, view: View) -> list[Numbers]:
    found: dict[int, Numbers] = {}

    async def of_one(server: int, addresses: list[str]) -> None:
        values = None
        with suppress(TideError):  # it is told as down
            values = (await lookout.asker.ask(addresses, GetMetrics())).values
        found[server] = Numbers(server, target.names().get(server, ""), values)

    async with trio.open_nursery() as nursery:
        for one in view.members:
            if one.server:
                nursery.start_soon(of_one, one.server, one.addresses)
    return [found[one.server] for one in view.members if one.server]


def in_text(members: list[Numbers]) -> str:
    """One line for each number of each member, those of one name together."""
    samples: dict[str, list[str]] = {"up": []}
    for one in members:
        labels = f'server="{server_name(ServerId(one.server))}"'
        if one.name:
            labels += f",name={json.dumps(one.name, ensure_ascii=False)}"
        samples["up"].append(f"{{{labels}}} {int(one.values is not None)}")
        for name, value in one.values or []:
            samples.setdefault(name, []).append(f"{{{labels}}} {_number(value)}")
    lines: list[str] = []
    for name, values in samples.items():
        full = name if name.startswith(PREFIX) else PREFIX + name
        lines.append(f"# TYPE {full} {'counter' if name.endswith(COUNTER) else 'gauge'}")
        lines += [full + value for value in values]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
