"""The crash disk forgets what was not synced, and only that."""

import pytest
from tidefs.fs.errors import Code, TideError
from tidefs.tests.sim.crash_disk import PAGE_BYTES, CrashDisk, Died
from tidefs.tests.sim.ports import SimulatedRandomness


def disk_of(seed: int = 0, **options) -> CrashDisk:
    return CrashDisk(SimulatedRandomness(str(seed)), **options)


async def test_what_was_synced_survives_and_what_was_not_may_be_anything_of_both():
    outcomes = set()
    for seed in range(40):
        disk = disk_of(seed)
        file = disk.open("f", create=True)
        file.write(0, [b"a" * 2 * PAGE_BYTES])
        await file.sync()
        await disk.sync_folder("")
        file.write(0, [b"b" * PAGE_BYTES])
        disk.crash(SimulatedRandomness(f"crash {seed}"))
        found = await disk.open("f").read(0, 3 * PAGE_BYTES)
        assert found[PAGE_BYTES:] == b"a" * PAGE_BYTES
        assert set(found[:PAGE_BYTES]) <= set(b"ab")
        outcomes.add(bytes(sorted(set(found[:PAGE_BYTES]))))
    assert outcomes == {b"a", b"b", b"ab"}


async def test_names_need_the_sync_of_their_folder():
    there = set()
    for seed in range(20):
        disk = disk_of(seed)
        disk.make_folder("d")
        await disk.sync_folder("")
        await disk.open("d/f", create=True).sync()
        disk.crash(SimulatedRandomness(f"crash {seed}"))
        assert disk.exists("d")
        there.add(disk.exists("d/f"))
    assert there == {True, False}


async def test_a_synced_rename_leaves_exactly_the_new_name():
    disk = disk_of()
    disk.open("a", create=True).write(0, [b"x"])
    await disk.open("a").sync()
    disk.rename("a", "b")
    await disk.sync_folder("")
    disk.crash(SimulatedRandomness("crash"))
    assert disk.paths() == ["b"]
    assert await disk.open("b").read(0, 9) == b"x"


async def test_a_killed_process_keeps_the_page_cache_but_not_its_files():
    disk = disk_of()
    file = disk.open("f", create=True)
    file.write(0, [b"x", b"y"])
    disk.kill()
    with pytest.raises(AssertionError, match="process died"):
        file.size()
    assert disk.open("f").read_nowait(0, 9) == b"xy"
    assert disk.boot_id() == "boot-1"


async def test_dying_in_the_middle_of_a_write_leaves_a_prefix():
    disk = disk_of()
    file = disk.open("f", create=True)
    disk.die_after_writes(2, SimulatedRandomness("die"))
    file.write(0, [b"x" * 100])
    with pytest.raises(Died):
        file.write(0, [b"y" * 100])
    disk.kill()
    found = disk.open("f").read_nowait(0, 200)
    assert found is not None
    assert found.rstrip(b"x").strip(b"y") == b""


async def test_a_full_disk_takes_what_fits_and_is_whole_again_after_a_removal():
    disk = disk_of(capacity_bytes=2 * PAGE_BYTES)
    file = disk.open("f", create=True)
    with pytest.raises(TideError) as caught:
        file.write(0, [b"x" * 3 * PAGE_BYTES])
    assert caught.value.code is Code.NO_SPACE
    assert file.size() == 2 * PAGE_BYTES
    assert disk.space().free_bytes == 0
    with pytest.raises(TideError):
        file.allocate(2 * PAGE_BYTES, 1)
    disk.remove("f")
    assert disk.space().free_bytes == 2 * PAGE_BYTES


async def test_a_flipped_bit_is_on_stable_storage():
    disk = disk_of()
    file = disk.open("f", create=True)
    file.write(0, [b"\0\0"])
    await file.sync()
    await disk.sync_folder("")
    disk.flip_bit("f", 1, 3)
    disk.crash(SimulatedRandomness("crash"))
    assert await disk.open("f").read(0, 2) == b"\0\x08"


async def test_a_folder_moves_with_all_it_holds_or_not_at_all():
    for seed in range(20):
        disk = CrashDisk(SimulatedRandomness("x"))
        disk.make_folder("a/new")
        await disk.sync_folder("")
        await disk.sync_folder("a")
        file = disk.open("a/new/f", create=True)
        file.write(0, [b"bytes"])
        await file.sync()
        await disk.sync_folder("a/new")
        disk.rename("a/new", "a/b")
        assert disk.names("a") == ["b"]
        assert disk.names("a/b") == ["f"]
        synced = seed % 2
        if synced:
            await disk.sync_folder("a")
        disk.crash(SimulatedRandomness(str(seed)))
        (name,) = disk.names("a")
        assert name == "b" or not synced
        assert await disk.open(f"a/{name}/f").read(0, 9) == b"bytes"


async def test_what_was_not_synced_moves_along():
    disk = CrashDisk(SimulatedRandomness("x"))
    disk.make_folder("a")
    disk.open("a/f", create=True).write(0, [b"bytes"])
    disk.rename("a", "b")
    await disk.open("b/f").sync()
    await disk.sync_folder("b")
    await disk.sync_folder("")
    disk.crash(SimulatedRandomness("y"))
    assert await disk.open("b/f").read(0, 9) == b"bytes"
