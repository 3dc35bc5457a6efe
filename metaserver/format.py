"""The data folder: an empty one is made ours, a foreign one refused."""

from ..fs.handshake import Identity
from ..fs.identity import is_ours, make_ours, not_vacant, strange_names
from ..fs.ports.disk import Disk


async def open_folder(disk: Disk, identity: Identity, folder: str) -> None:
    """Make an empty folder ours, or make sure that it is. ``folder``: its name for people.

    FOREIGN_FOLDER says what it is instead; CORRUPT when its identity cannot be read.
    """
    if await is_ours(disk, identity, folder):
        return
    if strange := strange_names(disk):
        raise not_vacant(folder, strange)
    await make_ours(disk, identity)
