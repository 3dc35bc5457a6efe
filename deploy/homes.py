"""Folders of metaservers: formatted beside, put in their place, set aside; and which ones are lost.

A data folder is formatted once, on purpose, before ``cluster.toml`` names its server: a member that
lost its disk must not come back under its old id and vote again. So a folder is made as
``new-ID``, then ``cluster.toml`` is written, and only then the folder takes the name of its member.
Whatever crashes in between, the next start knows from ``cluster.toml`` which of the two it is: a
member's, to be put in its place, or nobody's, to be made anew.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import trio

from ..fs.handshake import Identity
from ..fs.identity import IDENTITY
from ..fs.ids import ServerId, server_name
from ..fs.messages.hello import METASERVER
from ..fs.messages.places import ServerPlace
from ..fs.ports.disk_real import RealDisk
from ..metaserver.format import format_folder
from .cluster_file import Member
from .folder import NEW_HOME, os_failures

DATA = "data"


def make(folder: Path, cluster: str, servers: Sequence[int], founders: list[ServerPlace]) -> None:
    """Format a data folder for each server, beside the others; ``founders`` empty: as joining."""
    with os_failures(folder):
        homes = {server: folder / _new_name(server) for server in servers}
        for home in homes.values():
            (home / DATA).mkdir(mode=0o700, parents=True)
            home.chmod(0o700)
        trio.run(_format, cluster, homes, founders)
        for home in homes.values():
            _sync(home)
        _sync(folder)


async def _format(cluster: str, homes: dict[int, Path], founders: list[ServerPlace]) -> None:
    for server, home in homes.items():
        data = str(home / DATA)
        identity = Identity(cluster, METASERVER, server)
        await format_folder(RealDisk(data), identity, data, founders or None)


def put_in_place(folder: Path, members: Sequence[Member]) -> None:
    """Give each folder that was made for a member its name."""
    with os_failures(folder):
        for member in members:
            made = folder / _new_name(member.server)
            if made.exists():
                made.rename(folder / member.name)


def clear_made(folder: Path, members: Sequence[Member]) -> None:
    """Remove folders that an interrupted command made and ``members`` know nothing of."""
    known = {_new_name(member.server) for member in members}
    with os_failures(folder):
        for name in os.listdir(folder):
            if NEW_HOME.fullmatch(name) and name not in known:
                shutil.rmtree(folder / name)


def set_aside(folder: Path, name: str) -> Path | None:
    """Keep the folder of a former member under another name, which is returned; None: no folder."""
    number = 1
    with os_failures(folder):
        if not (folder / name).exists():
            return None
        while (target := folder / _aside_name(name, number)).exists():
            number += 1
        (folder / name).rename(target)
        _sync(folder)
    return target


def is_lost(home: Path) -> bool:
    """Whether a member's data folder is not there any more."""
    with os_failures(home):
        return not (home / DATA / IDENTITY).exists()


def _aside_name(name: str, number: int) -> str:
    return f"removed-{name}" + (f"-{number}" if number > 1 else "")


def _new_name(server: int) -> str:
    return f"new-{server_name(ServerId(server))}"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
