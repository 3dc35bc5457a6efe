"""What consensus needs of the log: kinds, terms, configurations, older formats, a new beginning."""

import struct

import pytest
import trio
from tidefs.fs.codec import checksum, checksum_of, pack
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.raft import Configuration
from tidefs.metaserver.oplog import Log
from tidefs.metaserver.raft.contract import Kind, Record

from .fake_disk import SMALL_SEGMENT_BYTES, FakeDisk


def group(*voters: int) -> Configuration:
    return Configuration(list(voters), [], [], [], [])


def entry(index: int, *, term: int = 1) -> Record:
    return Record(term, index, index.to_bytes(8, "big") + bytes(100))


def members(index: int, *voters: int, term: int = 1) -> Record:
    return Record(term, index, pack(group(*voters)), Kind.MEMBERS)


async def open_log(disk: FakeDisk, **options) -> Log:
    return await Log.open(disk, "cluster", segment_bytes=SMALL_SEGMENT_BYTES, **options)


async def read_all(log: Log) -> list[Record]:
    found: list[Record] = []
    while (first := log.first_index + len(found)) <= log.last_index:
        found += await log.read(first, log.last_index)
    return found


async def test_kinds_are_kept():
    disk = FakeDisk()
    log = await open_log(disk)
    wanted = [Record(1, 1, b"", Kind.NOOP), members(2, 1), entry(3), Record(2, 4, b"", Kind.NOOP)]
    await log.append(wanted)
    assert await read_all(log) == wanted
    assert await read_all(await open_log(disk.crash())) == wanted


async def test_configurations_are_those_of_the_records_that_are_there():
    disk = FakeDisk()
    log = await open_log(disk)
    await log.append([members(1, 1), *(entry(index) for index in range(2, 50)), members(50, 1, 2)])
    await log.append([members(51, 1, 2, 3)])
    known = [(1, group(1)), (50, group(1, 2)), (51, group(1, 2, 3))]
    assert log.configurations == known
    assert log.last_members_index == 51
    assert (await open_log(disk.crash())).configurations == known
    await log.truncate_suffix(51)
    assert log.configurations == known[:2]
    await log.truncate_prefix(45)
    assert log.configurations == known[1:2]
    assert (await open_log(disk.crash())).configurations == known[1:2]
    await log.reset(90, 4)
    assert (log.configurations, log.last_members_index) == ([], 0)


# --- terms ---------------------------------------------------------------------------------------


async def test_the_term_before_the_log_is_known_also_after_a_restart():
    disk = FakeDisk()
    log = await open_log(disk)
    await log.append([entry(index, term=index // 10 + 1) for index in range(1, 100)])
    await log.truncate_prefix(80)
    first = log.first_index
    assert 1 < first <= 80
    before = (first - 1) // 10 + 1
    assert log.terms.at(first - 1) == before
    again = await open_log(disk.crash())
    assert [again.terms.at(index) for index in range(first - 1, 100)] == [
        index // 10 + 1 for index in range(first - 1, 100)
    ]


async def test_a_log_that_begins_anew_behind_a_snapshot():
    disk = FakeDisk()
    log = await open_log(disk)
    await log.append([entry(index) for index in range(1, 100)])
    await log.reset(500, 7)
    for found in (log, await open_log(disk.crash())):
        assert (found.first_index, found.last_index, found.last_term) == (501, 500, 7)
        assert found.terms.at(500) == 7
        assert found.terms.at(499) is None
    await log.append([entry(501, term=7), entry(502, term=9)])
    again = await open_log(disk.crash())
    assert (again.last_index, again.last_term) == (502, 9)


# --- what is settled is looked at only when it is read --------------------------------------------


async def long_log(disk: FakeDisk) -> Log:
    log = await open_log(disk)
    await log.append([entry(index, term=1 if index < 100 else 3) for index in range(1, 400)])
    return log


def count_reads(disk: FakeDisk) -> list[str]:
    """The paths of files that are read as a whole from now on."""
    whole = []
    open_file = disk.open

    def opened(path, *, create=False):
        file = open_file(path, create=create)
        read = file.read

        async def counted(offset, length):
            if length == file.size():
                whole.append(path)
            return await read(offset, length)

        file.read = counted
        return file

    disk.open = opened
    return whole


async def test_settled_segments_are_not_read_at_a_start():
    disk = FakeDisk()
    log = await long_log(disk)
    disk = disk.crash()
    whole = count_reads(disk)
    again = await open_log(disk, settled_index=350, applied_index=350)
    segments = [name for name in disk.names("log") if name.endswith(".log")]
    assert len(whole) <= 5 < len(segments), "the one where the term changes, and those behind 350"
    assert again.last_index == 399
    for index in range(400):
        assert again.terms.at(index) == log.terms.at(index)
    assert await read_all(again) == await read_all(log)


async def test_a_start_that_settles_nothing_reads_everything():
    disk = FakeDisk()
    await long_log(disk)
    disk = disk.crash()
    whole = count_reads(disk)
    await open_log(disk)
    assert len(whole) == len([name for name in disk.names("log") if name.endswith(".log")])


async def test_damage_in_a_settled_segment_is_found_when_it_is_read():
    disk = FakeDisk()
    await long_log(disk)
    disk = disk.crash()
    path = f"log/{disk.names('log')[1]}"
    first = int(disk.names("log")[1].partition(".")[0])
    disk.files[path].data[500] ^= 1
    log = await open_log(disk, settled_index=350, applied_index=350)
    for _ in range(2):
        with pytest.raises(TideError, match=rf"{path} is damaged.*tidefs cluster replace") as found:
            await log.read(first, first + 20)
        assert found.value.code is Code.CORRUPT
    assert await log.read(300, 310)


async def test_settled_segments_are_cut_off_like_others():
    disk = FakeDisk()
    await long_log(disk)
    log = await open_log(disk.crash(), settled_index=390, applied_index=390)
    await log.truncate_prefix(200)
    assert 150 < log.first_index <= 200
    assert log.terms.at(log.first_index - 1) == 3
    await log.truncate_suffix(log.first_index + 3)
    await log.append([entry(log.first_index + 3, term=5)])
    assert len(await read_all(log)) == 4


async def test_who_reads_while_the_log_is_cut_gets_nothing_or_what_was_there():
    disk = FakeDisk()
    log = await long_log(disk)
    old = await read_all(log)
    found = []

    async def read(first):
        found.append((first, await log.read(first, first + 10)))

    async with trio.open_nursery() as nursery:
        for first in (1, 50, 300, 380):
            nursery.start_soon(read, first)
        nursery.start_soon(log.reset, 900, 9)
    for first, got in found:
        assert list(got) in ([], old[first - 1 : first - 1 + len(got)])


# --- format 1 ------------------------------------------------------------------------------------


def old_segment(first_index: int, last_index: int, term: int) -> bytes:
    """As a program wrote it that knew neither kinds nor the term before."""
    head = struct.pack("<8sI4x32sQ", b"TIDELOG\n", 1, b"cluster", first_index)
    salt = checksum(head)
    data = head + salt.to_bytes(8, "little")
    for index in range(first_index, last_index + 1):
        body = entry(index).body
        start = struct.pack("<4sIQQQ", b"\xb6REC", len(body), term, index, index - 1)
        digest = checksum_of((start, body), salt ^ len(data))
        data += start + digest.to_bytes(8, "little") + body
    return data.ljust(SMALL_SEGMENT_BYTES, b"\0")


def old_disk(*segments: tuple[int, int, int]) -> FakeDisk:
    disk = FakeDisk()
    disk.make_folder("log")
    for first, last, term in segments:
        disk.open(f"log/{first:020d}.log", create=True).write(0, [old_segment(first, last, term)])
    return disk


async def test_the_older_format_is_read_and_never_written_to():
    disk = old_disk((1, 5, 1), (6, 9, 2))
    before = bytes(disk.files["log/00000000000000000006.log"].data)
    log = await open_log(disk)
    assert (log.first_index, log.last_index, log.last_term) == (1, 9, 2)
    more = [Record(2, 10, b"", Kind.NOOP), members(11, 1, term=2)]
    await log.append(more)
    assert [record.kind for record in await read_all(log)] == [Kind.ENTRY] * 9 + [
        Kind.NOOP,
        Kind.MEMBERS,
    ]
    assert bytes(disk.files["log/00000000000000000006.log"].data) == before
    again = await open_log(disk)
    assert again.last_index == 11
    assert (await read_all(again))[9:] == more


async def test_an_older_log_that_was_cut_off_does_not_guess_the_term_before_it():
    log = await open_log(old_disk((31, 40, 4)))
    assert (log.first_index, log.last_index) == (32, 40)
    assert (log.terms.at(31), log.terms.at(30)) == (4, None)


async def test_an_empty_last_segment_of_the_older_format_is_replaced():
    disk = old_disk((1, 5, 1), (6, 5, 1))
    log = await open_log(disk)
    await log.append([entry(6, term=2)])
    again = await open_log(disk)
    assert (again.last_index, again.last_term) == (6, 2)


async def test_a_file_that_is_being_read_is_closed_when_that_is_done():
    disk = FakeDisk()
    log = await long_log(disk)
    reading, go_on = trio.Event(), trio.Event()
    events = []
    segment = log._segments[0].file

    async def read(offset, length):
        reading.set()
        await go_on.wait()
        events.append("read")
        return b""

    segment.read, segment.close = read, lambda: events.append("closed")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.read, 1, 5)
        await reading.wait()
        await log.truncate_prefix(300)
        go_on.set()
    assert events == ["read", "closed"]
