"""Locks that end with a close which the kernel does not wait for."""

import os

import pytest
import trio
from tidefs.client.fuse.driver import Caller, LockRange
from tidefs.fs.limits import LOCK_END

ME = Caller(1000, 1000, 1, 0o022)
OLD, NEW = 0xA, 0xB
WHOLE = LockRange(True, 0, LOCK_END, 4711)


@pytest.mark.parametrize("flock", [True, False])
async def test_who_locks_anew_does_not_meet_what_it_has_closed(autojump_clock, cluster, on, flock):
    async with on("nfs") as mount:
        known, opened = await mount.create(1, b"file", 0o644, os.O_RDWR, ME)
        again = await mount.open(known.attributes.inode, os.O_RDWR)
        for _ in range(20):
            await mount.setlk(opened.handle, OLD, WHOLE, wait=False, flock=flock)
            await mount.write(opened.handle, 0, b"under the lock")
            closing = mount.vfs.release(opened.handle, OLD if flock else None)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda closing=closing: closing)
                nursery.start_soon(mount.getlk, again.handle, NEW, WHOLE)
                await mount.setlk(again.handle, NEW, WHOLE, wait=False, flock=flock)
            opened, again = again, await mount.open(known.attributes.inode, os.O_RDWR)
            await mount.unlock(opened.handle, NEW, 0, LOCK_END, flock=flock)
