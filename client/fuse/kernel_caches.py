"""Tells the kernel what to forget: from a thread, but for attributes, which are told at once.

A notification about a name blocks while a request in that directory is unanswered, and one about
pages while they are written back: so these never come from the task that answers requests.
Forgetting attributes waits for nothing, and must take effect before the open that asked for it is
answered.
"""

import errno
import logging
import os
from collections.abc import Iterable

import trio

from .protocol import notices

log = logging.getLogger(__name__)

NOT_KNOWN_THERE = (errno.ENOENT, errno.ENOTCONN, errno.ENODEV, errno.EBADF)
"""ENOENT: the kernel did not know it. ENOTCONN, ENODEV, EBADF: it is unmounted."""


class KernelNotices:
    """Implements ``KernelCaches`` on /dev/fuse."""

    def __init__(self, device: int) -> None:
        self._device = device
        self._wanted: dict[tuple[int, bytes | None], None] = {}
        self._more = trio.Event()
        self._under_way: set[trio.Event] = set()
        self._closed = False

    def invalidate_inode(self, inode: int, *, attributes_only: bool) -> None:
        """Forget the attributes and, without ``attributes_only``, the pages of an inode."""
        if not attributes_only:
            self._want(inode, None)
        elif not self._closed:
            self._send(inode, None, notices.forget_attributes(inode))

    def invalidate_entry(self, parent: int, name: bytes) -> None:
        """Forget what a name leads to."""
        self._want(parent, name)

    async def forget_inode(self, inode: int) -> None:
        """Forget attributes and pages; done when this returns."""
        await self._in_thread([(inode, None)])

    def _want(self, inode: int, name: bytes | None) -> None:
        self._wanted[inode, name] = None
        self._more.set()

    async def send_forever(self) -> None:
        """Send what is wanted, in order, until cancelled."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            wanted, self._wanted = self._wanted, {}
            await self._in_thread(wanted)

    async def close(self) -> None:
        """Send nothing more, and wait until nothing is being sent."""
        self._closed = True
        while self._under_way:
            await next(iter(self._under_way)).wait()

    async def _in_thread(self, wanted: Iterable[tuple[int, bytes | None]]) -> None:
        """Who is cancelled does not wait for it, but ``close`` does."""
        if self._closed:
            return
        token = trio.lowlevel.current_trio_token()
        sent = trio.Event()
        self._under_way.add(sent)

        def send_all() -> None:
            for inode, name in wanted:
                if name is None:
                    self._send(inode, name, notices.forget_pages(inode))
                else:
                    self._send(inode, name, notices.forget_name(inode, name))

        trio.lowlevel.start_thread_soon(send_all, lambda _: token.run_sync_soon(self._ended, sent))
        await sent.wait()

    def _ended(self, sent: trio.Event) -> None:
        self._under_way.discard(sent)
        sent.set()

    def _send(self, inode: int, name: bytes | None, notice: bytes) -> None:
        try:
            os.write(self._device, notice)
        except OSError as error:
            if error.errno not in NOT_KNOWN_THERE:
                log.warning("the kernel did not forget inode %d %r: %s", inode, name, error)
