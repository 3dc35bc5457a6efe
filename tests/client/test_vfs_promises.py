"""The mode that lives by promises: what costs no question, what a recall ends and waits for."""

import os
from functools import partial

import pytest
import trio
from tidefs.client.fuse.driver import Caller, NewAttributes
from tidefs.fs.attributes import Kind
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import KIB, MIB
from tidefs.fs.messages import meta

ME = Caller(1000, 1000, 1, 0o022)
RW = os.O_RDWR
ROOT = 1


def names(cluster):
    found = [type(call).__name__ for call in cluster.calls]
    cluster.calls.clear()
    return found


async def new_file(mount, data=b"", name=b"file"):
    known, opened = await mount.create(ROOT, name, 0o644, RW | os.O_CREAT, ME)
    if data:
        await mount.write(opened.handle, 0, data)
    return known.attributes.inode, opened.handle


async def open_file(mount, name=b"file"):
    inode = (await mount.lookup(ROOT, name)).attributes.inode
    return inode, (await mount.open(inode, RW)).handle


async def entries(mount):
    handle = (await mount.opendir(ROOT)).handle
    listed = await mount.readdir(handle, 0)
    mount.vfs.releasedir(handle)
    return [entry.name for entry, _ in listed]


async def test_what_is_promised_is_not_asked_again(autojump_clock, cluster, on):
    async with on("strict", "strict") as (first, second):
        await new_file(first, b"bytes")
        inode, handle = await open_file(second)
        assert bytes(await second.read(handle, 0, 100)) == b"bytes"
        assert await entries(second) == [b"file"]
        names(cluster)
        await trio.sleep(300)  # however long
        for _ in range(3):
            known = second.known_to_answer("getattr", inode, None)
            assert known.attributes.size == 5
            assert known.attributes_trust_ms == known.entry_trust_ms == 0, "the kernel asks"
            second.known_to_answer("lookup", ROOT, b"file")
            with pytest.raises(TideError) as caught:
                second.known_to_answer("lookup", ROOT, b"absent")
            assert caught.value.code is Code.NO_ENTRY
            assert bytes(second.known_to_answer("read", handle, 0, 100)) == b"bytes"
            assert await entries(second) == [b"file"]
        assert names(cluster) == []


async def test_what_is_promised_is_opened_without_a_question(autojump_clock, cluster, on):
    async with on("strict") as mount:
        inode, handle = await new_file(mount, b"bytes")
        await mount.release(handle)
        await mount.getattr(inode, None)
        names(cluster)
        for _ in range(3):
            opened = mount.known_to_answer("open", inode, RW)
            assert bytes(mount.known_to_answer("read", opened.handle, 0, 10)) == b"bytes"
            mount.known_to_answer("flush", opened.handle)
            mount.known_to_answer("release", opened.handle)
        assert names(cluster) == []
        assert not mount.meta.held
        assert not mount.vfs.unannounced


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("how", ["unlink", "rename"])
async def test_what_was_opened_so_outlives_its_name(autojump_clock, cluster, on, who, how):
    async with on("strict", "strict") as mounts:
        reader, other = mounts
        inode, handle = await new_file(reader, b"bytes")
        await reader.mknod(ROOT, b"new", Kind.FILE, 0o644, 0, ME)
        await reader.release(handle)
        await reader.getattr(inode, None)
        handle = reader.known_to_answer("open", inode, RW).handle
        remover = mounts[who]
        await remover.lookup(ROOT, b"file")
        if how == "unlink":
            await remover.unlink(ROOT, b"file")
        else:
            await remover.rename(ROOT, b"new", ROOT, b"file", 0)
        reader.vfs.files.peek(inode).drop_clean()
        assert bytes(await reader.read(handle, 0, 10)) == b"bytes"
        await reader.write(handle, 0, b"BYTES")
        assert bytes(await reader.read(handle, 0, 10)) == b"BYTES"
        await reader.release(handle)
        with pytest.raises(TideError) as caught:
            await other.getattr(inode, None)
        assert caught.value.code is Code.STALE_HANDLE, "it went with the last close"


async def test_what_was_opened_so_is_told_on_a_new_connection(autojump_clock, cluster, on):
    async with on("strict", "nfs") as (strict, nfs):
        inode, handle = await new_file(strict, b"bytes")
        await strict.release(handle)
        await strict.getattr(inode, None)
        handle = strict.known_to_answer("open", inode, RW).handle
        cluster.promises.clear()
        strict.vfs.linked()
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(1)
        await nfs.unlink(ROOT, b"file")
        assert bytes(await strict.read(handle, 0, 10)) == b"bytes"
        await strict.release(handle)


async def test_an_absent_name_is_absent_whatever_others_do_elsewhere(autojump_clock, cluster, on):
    async with on("strict", "strict") as (first, second):
        folder = (await first.mkdir(ROOT, b"folder", 0o755, ME)).attributes.inode
        assert await entries(second) == [b"folder"]
        with pytest.raises(TideError):
            await second.lookup(folder, b"file")
        await trio.sleep(1)
        await first.mknod(folder, b"file", Kind.FILE, 0o644, 0, ME)
        await second.lookup(folder, b"file")
        names(cluster)
        with pytest.raises(TideError):
            second.known_to_answer("lookup", ROOT, b"absent")


@pytest.mark.parametrize("size", [100, 100 * KIB])
async def test_a_write_is_seen_by_the_next_read_of_all(autojump_clock, cluster, on, size):
    async with on("strict", "strict") as (first, second):
        _, mine = await new_file(first, b"0" * size)
        _, theirs = await open_file(second)
        for number in range(1, 6):
            both = (first, mine), (second, theirs)
            for writer, reader in (both, both[::-1]):
                data = b"%d" % number * size
                await writer[0].write(writer[1], 0, data)
                assert bytes(await reader[0].read(reader[1], 0, 2 * size)) == data


async def test_a_change_of_names_is_seen_at_once(autojump_clock, cluster, on):
    async with on("strict", "strict") as (first, second):
        inode, _ = await new_file(first)
        assert (await second.lookup(ROOT, b"file")).attributes.inode == inode
        assert await entries(second) == [b"file"]
        await first.rename(ROOT, b"file", ROOT, b"moved", 0)
        with pytest.raises(TideError):
            await second.lookup(ROOT, b"file")
        assert await entries(second) == [b"moved"]
        await first.setattr(inode, NewAttributes(mode=0o600), None)
        assert (await second.getattr(inode, None)).attributes.mode == 0o600
        await first.setxattr(inode, b"user.x", b"1", 0)
        assert await second.getxattr(inode, b"user.x") == b"1"
        await first.setxattr(inode, b"user.x", b"2", 0)
        assert await second.getxattr(inode, b"user.x") == b"2"
        await second.unlink(ROOT, b"moved")
        with pytest.raises(TideError):
            await first.lookup(ROOT, b"moved")


async def test_small_bytes_come_with_the_promise(autojump_clock, cluster, on):
    async with on("strict", "strict") as (first, second):
        _, mine = await new_file(first, b"1")
        _, theirs = await open_file(second)
        await first.write(mine, 0, b"2")
        names(cluster)
        assert bytes(await second.read(theirs, 0, 10)) == b"2"
        assert names(cluster) == ["GetContent"]


async def test_who_writes_claims_the_file_once(autojump_clock, cluster, on):
    async with on("strict", "strict") as (first, second):
        _, mine = await new_file(first, b"x" * 100_000)
        names(cluster)
        await first.write(mine, 0, b"a")
        await first.write(mine, 50_000, b"b")
        assert names(cluster) == ["Commit", "Commit"], "it has it alone still"
        _, theirs = await open_file(second)
        assert bytes(await second.read(theirs, 0, 2)) == b"ax"
        names(cluster)
        await first.write(mine, 1, b"c")
        assert names(cluster)[0] == "Claim", "before any byte goes out"
        assert bytes(await second.read(theirs, 0, 2)) == b"ac"


async def test_a_claim_comes_before_the_bytes(autojump_clock, cluster, on):
    """A chunkserver shows what is written before it is committed."""
    async with on("strict", "strict") as (first, second):
        _, mine = await new_file(first, b"x" * 100_000)
        inode, theirs = await open_file(second)
        await second.read(theirs, 0, 100_000)
        promised = []
        first.chunks.before_write = lambda: promised.append(first.vfs.attributes.claimed(inode))
        await first.write(mine, 0, b"y" * 100_000)
        assert promised
        assert all(promised)
        assert bytes(await second.read(theirs, 0, 100_000)) == b"y" * 100_000


async def test_a_recall_waits_for_a_read_that_began_before(autojump_clock, cluster, on):
    async with on("strict", "strict") as (first, second):
        _, mine = await new_file(first, b"x" * MIB)
        inode, theirs = await open_file(second)
        await second.read(theirs, 0, 1)  # the rest is to be fetched
        second.vfs.files.peek(inode).drop_clean()
        order = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_note, order, "read", partial(second.read, theirs, 0, MIB))
            await trio.testing.wait_all_tasks_blocked()
            recall = second.vfs.recalled([inode])
            assert recall is not None
            nursery.start_soon(_note, order, "let go", lambda: recall)
        assert [what for what, _ in order] == ["read", "let go"]
        await first.write(mine, 0, b"y" * MIB)
        assert bytes(order[0][1]) == b"x" * MIB, "of one version"
        assert bytes(await second.read(theirs, 0, MIB)) == b"y" * MIB


async def _note(order, what, call):
    order.append((what, await call()))


async def test_a_recall_waits_for_a_write_under_way(autojump_clock, cluster, on):
    async with on("strict") as first:
        inode, mine = await new_file(first, b"x" * 100_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.write, mine, 0, b"y" * 100_000)
            await trio.testing.wait_all_tasks_blocked()
            assert first.vfs.files.peek(inode).modified
            recall = first.vfs.recalled([inode])
            assert recall is not None
            await recall
            assert cluster.content(inode) == b"y" * 100_000
        assert not first.vfs.attributes.claimed(inode)


async def test_a_recall_of_what_nobody_uses_is_answered_at_once(autojump_clock, cluster, on):
    async with on("strict") as mount:
        inode, _ = await new_file(mount, b"x")
        assert mount.vfs.recalled([inode, ROOT, 999]) is None
        names(cluster)
        await mount.getattr(inode, None)
        assert names(cluster) == ["GetAttributes"]


async def test_nothing_is_believed_after_the_lease(autojump_clock, cluster, on):
    async with on("strict") as mount:
        inode, handle = await new_file(mount, b"x")
        await mount.getattr(inode, None)
        names(cluster)
        mount.meta.lease_until_ns = mount.vfs.clock.monotonic_ns()
        with trio.move_on_after(1):
            await mount.read(handle, 0, 1)
            raise AssertionError("nothing can be promised now")
        assert set(names(cluster)) == {"GetContent"}
        mount.meta.lease_until_ns = 1 << 62
        assert bytes(await mount.read(handle, 0, 1)) == b"x"


async def test_nothing_is_believed_on_a_new_connection(autojump_clock, cluster, on):
    async with on("strict") as mount:
        inode, handle = await new_file(mount, b"x")
        await mount.getattr(inode, None)
        names(cluster)
        mount.vfs.linked()
        await mount.read(handle, 0, 1)
        await mount.write(handle, 0, b"y")
        assert names(cluster)[:2] == ["GetContent", "Claim"]


async def test_what_is_being_written_stays_claimed_on_a_new_connection(autojump_clock, cluster, on):
    async with on("strict") as mount:
        inode, handle = await new_file(mount, b"x" * 100_000)
        other, _ = await new_file(mount, b"x", name=b"other")
        claimed = mount.vfs.attributes.claimed
        assert claimed(inode)
        assert claimed(other)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.write, handle, 0, b"y" * 100_000)
            await trio.testing.wait_all_tasks_blocked()
            assert mount.vfs.claims() == [inode], "the other one is not being written"
            mount.vfs.linked()
            assert claimed(inode)
            assert not claimed(other)
        mount.vfs.expired(mount.meta.session)
        assert not claimed(inode)
        assert mount.vfs.claims() == []


async def test_who_loses_a_claim_gets_it_again_before_it_writes_again(autojump_clock, cluster, on):
    async with on("strict") as mount:
        inode, handle = await new_file(mount, b"x" * 100_000)
        failure = TideError(Code.LAYOUT_CHANGED, "for once")
        cluster.weather.call_failures[meta.Commit] = [failure]
        claimed = []
        mount.chunks.before_write = lambda: claimed.append(mount.vfs.attributes.claimed(inode))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.write, handle, 0, b"y" * 100_000)
            await trio.testing.wait_all_tasks_blocked()
            mount.vfs.attributes.recall(inode)
        assert claimed[0]
        assert claimed[-1]
        assert cluster.content(inode) == b"y" * 100_000


async def test_a_read_that_outlived_its_connection_is_done_again(autojump_clock, cluster, on):
    async with on("strict") as mount:
        inode, handle = await new_file(mount, b"x" * MIB)
        mount.vfs.files.peek(inode).drop_clean()
        async with trio.open_nursery() as nursery:
            order = []
            nursery.start_soon(_note, order, "read", partial(mount.read, handle, 0, MIB))
            await trio.testing.wait_all_tasks_blocked()
            names(cluster)
            mount.vfs.linked()
        assert bytes(order[0][1]) == b"x" * MIB
        assert "GetAttributes" in names(cluster)


async def test_who_is_promised_nothing_asks_until_it_is(autojump_clock, cluster, on):
    async with on("strict") as mount:
        inode, handle = await new_file(mount, b"x")
        mount.vfs.linked()
        names(cluster)
        mount.meta.contested = 3
        assert bytes(await mount.read(handle, 0, 1)) == b"x"
        assert names(cluster) == ["GetContent"] * 4
        mount.vfs.linked()
        mount.meta.contested = 3
        await mount.write(handle, 0, b"y")
        assert names(cluster) == ["Claim"] * 4 + ["Commit"]
        assert cluster.content(inode) == b"y"


async def test_while_a_change_of_ours_is_under_way_others_may_see_it_first(
    autojump_clock, cluster, on
):
    async with on("strict") as mount:
        inode, _ = await new_file(mount)
        await mount.getattr(inode, None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.setattr, inode, NewAttributes(mode=0o600), None)
            await trio.testing.wait_all_tasks_blocked()
            names(cluster)
            await mount.getattr(inode, None)
            assert "GetAttributes" in names(cluster)
        assert mount.known_to_answer("getattr", inode, None).attributes.mode == 0o600


async def test_appends_of_two_mounts(autojump_clock, cluster, on):
    async with on("strict", "strict") as mounts:
        await new_file(mounts[0])
        inode = (await mounts[0].lookup(ROOT, b"file")).attributes.inode
        handles = [(await mount.open(inode, RW | os.O_APPEND)).handle for mount in mounts]

        async def append(mount, handle, letter):
            for _ in range(10):
                await mount.write(handle, 0, letter * 1000)

        async with trio.open_nursery() as nursery:
            for mount, handle, letter in zip(mounts, handles, (b"a", b"b"), strict=True):
                nursery.start_soon(append, mount, handle, letter)
        content = cluster.content(inode)
        records = [content[at : at + 1000] for at in range(0, len(content), 1000)]
        assert sorted(records) == [b"a" * 1000] * 10 + [b"b" * 1000] * 10


async def test_other_modes_recall_too(autojump_clock, cluster, on):
    async with on("strict", "nfs", "uncached") as (strict, nfs, uncached):
        _, mine = await new_file(strict, b"0")
        _, cached = await open_file(nfs)
        _, direct = await open_file(uncached)
        assert bytes(await strict.read(mine, 0, 10)) == b"0"
        await uncached.write(direct, 0, b"1")
        assert bytes(await strict.read(mine, 0, 10)) == b"1"
        await nfs.write(cached, 0, b"2")
        await nfs.flush(cached)
        assert bytes(await strict.read(mine, 0, 10)) == b"2"
        await strict.write(mine, 0, b"3")
        assert bytes(await uncached.read(direct, 0, 10)) == b"3"
