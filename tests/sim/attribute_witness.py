"""Witnesses of attributes: mode and time, by path and through open files, and one extended one."""

from collections.abc import Awaitable, Callable
from functools import partial

from tidefs.client.fuse.driver import NewAttributes
from tidefs.fs.attributes import Attributes
from tidefs.fs.messages.meta import XattrFlags

from .attribute_objects import SetAttributes, Show, Shown
from .model import Path
from .objects import EXISTS, NO_ATTRIBUTE, Clear, Read, Write
from .user import User
from .witness import Witness, is_done, make

FILE = "x"
PATH: Path = (FILE.encode(),)
XATTR = b"user.value"
MODES_COUNT = 0o1000
S_IN_NS = 1_000_000_000

FLAGS = {None: XattrFlags.NONE, EXISTS: XattrFlags.CREATE, NO_ATTRIBUTE: XattrFlags.REPLACE}

LOOKS = ("show", "show", "show", "read", "read")
DOINGS = ("set", "set", "set", "write", "write", "clear", *LOOKS)


class AttributeWitness(Witness):
    """One of them."""

    async def prepare(self, user: User) -> None:
        if self._is_first:
            await (await make(user, PATH)).close()
            await self._change(user, SetAttributes(FILE, 0o644, 0))

    async def _witness_something(self) -> None:
        doing = self._random.choice(LOOKS if self._only_looks else DOINGS)
        await getattr(self, f"_{doing}")()

    async def _set(self) -> None:
        tag = self._tag()
        mode, mtime_s = self._random.choice(
            ((tag % MODES_COUNT, None), (None, tag), (tag % MODES_COUNT, tag))
        )
        await self._change(self.user, SetAttributes(FILE, mode, mtime_s))

    async def _change(self, user: User, what: SetAttributes) -> None:
        mtime_ns = None if what.mtime_s is None else what.mtime_s * S_IN_NS
        new = NewAttributes(mode=what.mode, mtime_ns=mtime_ns)
        await self._witness(what, partial(user.change, PATH, new), is_done)

    async def _show(self) -> None:
        look: Callable[[], Awaitable[Attributes]] = partial(self.user.look, PATH)
        if self._random.random() < 0.5:
            look = (await self._open(PATH)).attributes
        await self._witness(Show(FILE), look, _shown)

    async def _write(self) -> None:
        what = Write(FILE, self._tag(), self._random.choice((None, EXISTS, NO_ATTRIBUTE)))
        value = b"%d" % what.value
        set_xattr = partial(self.user.set_xattr, PATH, XATTR, value, FLAGS[what.only])
        await self._witness(what, set_xattr, is_done)

    async def _clear(self) -> None:
        await self._witness(Clear(FILE), partial(self.user.remove_xattr, PATH, XATTR), is_done)

    async def _read(self) -> None:
        await self._witness(Read(FILE), partial(self.user.get_xattr, PATH, XATTR), int)


def _shown(found: Attributes) -> Shown:
    return Shown(found.mode, found.mtime_ns // S_IN_NS)
