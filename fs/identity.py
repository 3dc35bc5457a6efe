"""The identity file of a server's folder: whose it is, and in which format.

It is written last when a folder is made, so a folder without one holds nothing that matters.
"""

import json
import tomllib
from collections.abc import Iterable, Sequence
from typing import Any

from .errors import Code, TideError
from .handshake import Identity
from .ports.disk import Disk

IDENTITY = "identity"
LOCK = "lock"
FORMAT = 1

_NEW = f"{IDENTITY}.new"
_HARMLESS = frozenset({LOCK, _NEW, "lost+found"})


async def read_identity(disk: Disk, identity: Identity, folder: str) -> dict[str, Any] | None:
    """What stands in the folder's identity file, which must be this server's; None: no file.

    ``folder`` is its name for people. FOREIGN_FOLDER says whose it is instead, CORRUPT that the
    file cannot be read.
    """
    if not disk.exists(IDENTITY):
        return None
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
            f"{folder} is in format {found.get('format')}, this program knows format {FORMAT}: use"
            " the version of TideFS that made it",
        )
    for key in ("role", "cluster", "server"):
        ours = getattr(identity, key)
        if found.get(key) != ours:
            raise TideError(
                Code.FOREIGN_FOLDER,
                f"{folder} belongs to {key} {found.get(key)}, not {ours}: check the configuration",
            )
    return found


async def is_ours(disk: Disk, identity: Identity, folder: str) -> bool:
    """Whether the folder has an identity file; it must be this server's then.

    Raises what ``read_identity`` raises.
    """
    return await read_identity(disk, identity, folder) is not None


def strange_names(disk: Disk, known: Iterable[str] = ()) -> list[str]:
    """What is in a folder without identity that no attempt of ours to make one left there."""
    return sorted(set(disk.names("")) - _HARMLESS - set(known))


def not_vacant(folder: str, strange: list[str]) -> TideError:
    """That the folder cannot be made a server's, for it holds other things."""
    return TideError(
        Code.FOREIGN_FOLDER,
        f"{folder} holds {', '.join(strange[:3])} and no file called {IDENTITY}: it is not a data"
        " folder of TideFS; name an empty folder, or a new one",
    )


async def make_ours(disk: Disk, identity: Identity, more: Sequence[str] = ()) -> None:
    """Write the identity file; durable when this returns.

    ``more``: lines of TOML that this role wants to find in it later.
    """
    file = disk.open(_NEW, create=True)
    try:
        file.truncate(0)
        file.write(0, [_text(identity, more).encode()])
        await file.sync()
    finally:
        file.close()
    disk.rename(_NEW, IDENTITY)
    await disk.sync_folder("")


def quoted(text: str) -> str:
    """As a string of TOML. What JSON writes is one, but for the one control character it leaves."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _text(identity: Identity, more: Sequence[str]) -> str:
    lines = (
        "# Made by TideFS. Do not change it, and do not move it to another folder.",
        f"format = {FORMAT}",
        f"role = {quoted(identity.role)}",
        f"cluster = {quoted(identity.cluster)}",
        f"server = {identity.server}",
        *more,
    )
    return "\n".join(lines) + "\n"
