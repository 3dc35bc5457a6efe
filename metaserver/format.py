"""Formatting a data folder, once and on purpose: as a founder of a new group, or to join one.

A metaserver never starts on a folder that is not formatted: one whose disk was lost would vote a
second time in a term, and give up what it had promised.
"""

from collections.abc import Sequence
from typing import Any

from ..fs.codec import convert
from ..fs.errors import Code, TideError
from ..fs.handshake import Identity
from ..fs.identity import make_ours, not_vacant, quoted, read_identity, strange_names
from ..fs.ids import ServerId, server_name
from ..fs.messages.places import ServerPlace
from ..fs.messages.raft import Configuration
from ..fs.ports.disk import Disk
from .hard_state import NAMES as HARD_STATE_NAMES
from .hard_state import PATH as HARD_STATE
from .hard_state import HardStateFile

_FOUNDERS = "founders"
_JOINING = "joining"


async def format_folder(
    disk: Disk, identity: Identity, folder: str, founders: Sequence[ServerPlace] | None
) -> bool:
    """Prepare an empty folder: for one of the ``founders`` of a new group, None: to join one.

    Durable when this returns; a crash on the way leaves a folder that can be formatted again. The
    answer is False when the folder was formatted in the very same way before. FOREIGN_FOLDER, in
    words, when it was in another one, or holds other things; ``folder`` is its name for people.
    """
    found = await read_identity(disk, identity, folder)
    if found is not None:
        before = _founders_in(found, folder, ServerPlace(identity.server, "", []))
        if _ids(before) != _ids(founders):
            raise _formatted_already(identity, folder, before)
        return False
    if strange := strange_names(disk, HARD_STATE_NAMES):
        raise not_vacant(folder, strange)
    (await HardStateFile.open(disk)).close()
    await make_ours(disk, identity, _lines(founders))
    return True


async def open_folder(
    disk: Disk, identity: Identity, folder: str, own: ServerPlace
) -> Configuration:
    """The founding configuration of a formatted folder: without voters when it is to join a group.

    ``own`` is where the server is: a folder made before there were groups does not say. For a
    folder that is not formatted: FOREIGN_FOLDER, with the remedy.
    """
    found = await read_identity(disk, identity, folder)
    if found is None:
        if strange := strange_names(disk, HARD_STATE_NAMES):
            raise not_vacant(folder, strange)
        raise TideError(
            Code.FOREIGN_FOLDER,
            f"{folder} is not formatted. For a new cluster: `tidefs metaserver --format`, once for"
            " each of its metaservers. If its disk was lost, this server must not come back:"
            " `tidefs cluster replace` puts a new one in its place",
        )
    founders = _founders_in(found, folder, own)
    if not _is_old(found) and not disk.exists(HARD_STATE):
        raise TideError(
            Code.CORRUPT,
            f"{folder}/{HARD_STATE} is missing: what this server promised is not known any more."
            " Restore the file, or have a new member take its place: `tidefs cluster replace`",
        )
    return configuration_of(founders or [])


def configuration_of(founders: Sequence[ServerPlace]) -> Configuration:
    """The group as its founders begin it."""
    return Configuration(
        voters=[place.server for place in founders],
        voters_before=[],
        learners=[],
        places=list(founders),
        removed=[],
    )


def _lines(founders: Sequence[ServerPlace] | None) -> list[str]:
    """For the identity file."""
    if founders is None:
        return [f"{_JOINING} = true"]
    lines = []
    for place in founders:
        addresses = ", ".join(map(quoted, place.addresses))
        lines.append(
            f"  {{ server = {place.server}, host = {quoted(place.host)},"
            f" addresses = [{addresses}] }},"
        )
    return [f"{_FOUNDERS} = [", *lines, "]"]


def _founders_in(
    found: dict[str, Any], folder: str, own: ServerPlace
) -> Sequence[ServerPlace] | None:
    """None: it was made to join a group. CORRUPT when the file is not what was written."""
    if _JOINING in found:
        return None
    if _is_old(found):
        return [own]
    try:
        rows = [[row["server"], row["host"], row["addresses"]] for row in found[_FOUNDERS]]
        return convert(list[ServerPlace], rows)
    except (TypeError, LookupError, TideError):
        raise TideError(
            Code.CORRUPT, f"{folder}/identity: the list of founders is damaged"
        ) from None


def _is_old(found: dict[str, Any]) -> bool:
    """Made before there were groups: it does not say for which one."""
    return _JOINING not in found and _FOUNDERS not in found


def _ids(founders: Sequence[ServerPlace] | None) -> list[int] | None:
    """Who they are: where they were does not matter any more."""
    return None if founders is None else sorted(place.server for place in founders)


def _formatted_already(
    identity: Identity, folder: str, founders: Sequence[ServerPlace] | None
) -> TideError:
    if founders is None:
        what = "to join a group"
    elif len(founders) == 1:
        what = "as a group of one"
    else:
        what = "as a founder of the group of " + ", ".join(
            server_name(ServerId(place.server)) for place in founders
        )
    return TideError(
        Code.FOREIGN_FOLDER,
        f"{folder} was formatted already, {what}, for metaserver"
        f" {server_name(ServerId(identity.server))}: start it as it is, or name an empty folder",
    )
