"""SOURCE on the command line: a folder with a cluster, or addresses of metaservers."""

import re
from pathlib import Path
from typing import NamedTuple

from .exits import Exit, Failure

_HOST_AND_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:/,\[\]]+):(?P<port>\d+)")

HELP = "a folder, or addresses: host:port[,host:port...] (also tcp:host:port, unix:/path)"


class Source(NamedTuple):
    """One of both: the folder of a cluster on this machine, or addresses of metaservers."""

    folder: Path | None
    addresses: list[str]


def parse_source(text: str) -> Source:
    """What SOURCE means. Failure(USAGE) when it means nothing.

    ``./name:1`` is a folder, ``name:1`` an address.
    """
    if not text:
        raise Failure(Exit.USAGE, f"SOURCE is empty: give {HELP}")
    words = text.split(",")
    if text.startswith(("unix:", "tcp:")) or all(_HOST_AND_PORT.fullmatch(word) for word in words):
        return Source(None, [_address(word) for word in words])
    return Source(Path(text), [])


def parse_addresses(text: str) -> list[str]:
    """Addresses only. Failure(USAGE) when it is something else."""
    source = parse_source(text)
    if source.folder is not None:
        raise Failure(Exit.USAGE, f"{text!r} is not an address; give host:port")
    return source.addresses


def _address(word: str) -> str:
    """``unix:/path`` or ``tcp:host:port``."""
    if word.startswith("unix:"):
        if not word.startswith("unix:/"):
            raise Failure(Exit.USAGE, f"{word}: the path of a socket begins with /: unix:/path")
        return word
    host_and_port = word.removeprefix("tcp:")
    found = _HOST_AND_PORT.fullmatch(host_and_port)
    if found is None:
        raise Failure(Exit.USAGE, f"{word!r} is not an address; give host:port")
    if not 0 < int(found["port"]) < 1 << 16:
        raise Failure(Exit.USAGE, f"{word}: a port is a number from 1 to 65535")
    return f"tcp:{host_and_port}"
