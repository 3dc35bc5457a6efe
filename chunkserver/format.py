"""The data folder: whose it is, and in which format. A new one is made, a foreign one refused."""

import tomllib

from ..fs.errors import Code, TideError
from ..fs.handshake import Identity
from ..fs.ports.disk import Disk
from .layout import CHUNKS, INCOMING
from .records import JOURNAL
from .store import Settings, make_folders

IDENTITY = "identity"
LOCK = "lock"
FORMAT = 1

_NEW = f"{IDENTITY}.new"
_OURS = frozenset({LOCK, _NEW, CHUNKS, INCOMING, JOURNAL, "lost+found"})


async def open_folder(disk: Disk, identity: Identity, settings: Settings, folder: str) -> None:
    """Make an empty folder ours, or make sure that it is. ``folder``: its name for people.

    FOREIGN_FOLDER says what it is instead; CORRUPT when its identity cannot be read.
    """
    if disk.exists(IDENTITY):
        await _check(disk, identity, folder)
        return
    _check_vacant(disk, folder)
    if disk.exists(JOURNAL):
        disk.remove(JOURNAL)  # of an attempt that did not come to its end
    await make_folders(disk, settings)
    file = disk.open(_NEW, create=True)
    try:
        file.truncate(0)
        file.write(0, [_text(identity).encode()])
        await file.sync()
    finally:
        file.close()
    disk.rename(_NEW, IDENTITY)
    await disk.sync_folder("")


def _check_vacant(disk: Disk, folder: str) -> None:
    strange = sorted(set(disk.names("")) - _OURS)
    if disk.exists(CHUNKS):
        for below in disk.names(CHUNKS):
            strange += [f"{CHUNKS}/{below}/{name}" for name in disk.names(f"{CHUNKS}/{below}")]
    if strange:
        raise TideError(
            Code.FOREIGN_FOLDER,
            f"{folder} holds {', '.join(strange[:3])} and no file called {IDENTITY}: it is not a"
            " chunkserver's; name an empty folder, or a new one",
        )


async def _check(disk: Disk, identity: Identity, folder: str) -> None:
    file = disk.open(IDENTITY)
    try:
        data = await file.read(0, file.size())
    finally:
        file.close()
    try:
        found = tomllib.loads(data.decode())
    except ValueError as error:
        raise TideError(Code.CORRUPT, f"{folder}/{IDENTITY}: {error}") from None
    if found.get("format") != FORMAT:
        raise TideError(
            Code.FOREIGN_FOLDER,
            f"{folder} is in format {found.get('format')}, this program knows format {FORMAT}:"
            " use the version of TideFS that made it",
        )
    for key, ours in identity._asdict().items():
        if key in ("role", "cluster", "server") and found.get(key) != ours:
            raise TideError(
                Code.FOREIGN_FOLDER,
                f"{folder} belongs to {key} {found.get(key)}, not {ours}: check the configuration",
            )


def _text(identity: Identity) -> str:
    return (
        "# Made by TideFS. Do not change it, and do not move it to another folder.\n"
        f"format = {FORMAT}\n"
        f'role = "{identity.role}"\n'
        f'cluster = "{identity.cluster}"\n'
        f"server = {identity.server}\n"
    )
