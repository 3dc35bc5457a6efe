"""The identity file of a data folder: whose it is, in which format. Foreign ones are refused."""

import tomllib

from ..fs.errors import Code, TideError
from ..fs.handshake import Identity
from ..fs.ports.disk import Disk

PATH = "identity"
_NEW_PATH = "identity.new"
FORMAT = 1

LOCK = "lock"
_NOT_OURS_BUT_HARMLESS = frozenset({LOCK, _NEW_PATH, "lost+found"})


async def open_folder(disk: Disk, identity: Identity, folder: str) -> bool:
    """Make an empty folder ours, or make sure that it is; whether it was empty.

    ``folder`` is its name for people. FOREIGN_FOLDER says what it is instead.
    """
    if disk.exists(PATH):
        await _check(disk, identity, folder)
        return False
    strange = sorted(set(disk.names("")) - _NOT_OURS_BUT_HARMLESS)
    if strange:
        raise TideError(
            Code.FOREIGN_FOLDER,
            f"{folder} holds {', '.join(strange[:3])} and is not a data folder of TideFS: name an"
            " empty folder, or a new one",
        )
    file = disk.open(_NEW_PATH, create=True)
    try:
        file.truncate(0)
        file.write(0, [_text(identity).encode()])
        await file.sync()
    finally:
        file.close()
    disk.rename(_NEW_PATH, PATH)
    await disk.sync_folder("")
    return True


async def _check(disk: Disk, identity: Identity, folder: str) -> None:
    file = disk.open(PATH)
    try:
        data = await file.read(0, file.size())
    finally:
        file.close()
    try:
        found = tomllib.loads(data.decode())
    except ValueError as error:
        raise TideError(Code.CORRUPT, f"{folder}/{PATH}: {error}") from None
    if found.get("format") != FORMAT:
        raise TideError(
            Code.FOREIGN_FOLDER,
            f"{folder} is in format {found.get('format')}, this program knows format {FORMAT}: use"
            " the version of TideFS that made it",
        )
    for key, ours in (
        ("role", identity.role),
        ("cluster", identity.cluster),
        ("server", identity.server),
    ):
        if found.get(key) != ours:
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
