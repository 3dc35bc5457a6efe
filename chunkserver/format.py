"""The data folder: an empty one is made ours, a foreign one refused."""

from ..fs.handshake import Identity
from ..fs.identity import is_ours, make_ours, not_vacant, strange_names
from ..fs.ports.disk import Disk
from .layout import CHUNKS, INCOMING
from .records import JOURNAL
from .store import Settings, make_folders


async def open_folder(disk: Disk, identity: Identity, settings: Settings, folder: str) -> None:
    """Make an empty folder ours, or make sure that it is. ``folder``: its name for people.

    FOREIGN_FOLDER says what it is instead; CORRUPT when its identity cannot be read.
    """
    if await is_ours(disk, identity, folder):
        return
    strange = strange_names(disk, (CHUNKS, INCOMING, JOURNAL))
    if disk.exists(CHUNKS):
        for below in disk.names(CHUNKS):
            strange += [f"{CHUNKS}/{below}/{name}" for name in disk.names(f"{CHUNKS}/{below}")]
    if strange:
        raise not_vacant(folder, strange)
    if disk.exists(JOURNAL):
        disk.remove(JOURNAL)  # of an attempt that did not come to its end
    await make_folders(disk, settings)
    await make_ours(disk, identity)
