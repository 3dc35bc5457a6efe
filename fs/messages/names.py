"""Whoever shows inodes to people, to metaserver: what they are called.

Inodes do not know their names, for nothing else asks for them: this looks through all names, a
piece at a time.
"""

from .base import Message, Request, method


class FoundName(Message):
    """A directory calls an inode so."""

    inode: int
    directory: int
    name: bytes


class FoundNames(Message):
    """What was found; and the last name that was looked at, where the next piece begins.

    ``end``: there was no further one.
    """

    found: list[FoundName]
    directory: int
    name: bytes
    end: bool


@method(0x0110)
class FindNames(Request[FoundNames]):
    """The names of these inodes among the ``count_max`` names behind ``name`` in ``directory``.

    Names are looked at by the number of their directory, and in it in the order of their bytes. An
    empty name is before all others of the directory. A directory has one name, in its parent.
    """

    inodes: list[int]
    directory: int
    name: bytes
    count_max: int
