"""The kernel's FUSE protocol: layouts, negotiation, and replies as <linux/fuse.h> has them."""

import struct

import pytest
from tidefs.client.fuse.driver import Known, LockRange, Opened, OpenedDirectory
from tidefs.client.fuse.protocol import notices, replies
from tidefs.client.fuse.protocol import structures as s
from tidefs.client.fuse.protocol.listing import Listing
from tidefs.client.fuse.protocol.negotiation import (
    NEEDED,
    DisagreementError,
    agree,
    init_reply,
)
from tidefs.client.fuse.protocol.opcodes import InitFlag
from tidefs.fs.attributes import Attributes, Kind
from tidefs.fs.limits import LOCK_END
from tidefs.fs.messages.meta import DirectoryEntry, Space

SIZES = {
    "IN_HEADER": 40, "FORGET_IN": 8, "FORGET_ONE": 16, "BATCH_FORGET_IN": 8, "GETATTR_IN": 16,
    "SETATTR_IN": 88, "MKNOD_IN": 16, "MKDIR_IN": 8, "RENAME_IN": 8, "RENAME2_IN": 16,
    "LINK_IN": 8, "OPEN_IN": 8, "CREATE_IN": 16, "READ_IN": 40, "WRITE_IN": 40, "RELEASE_IN": 24,
    "FLUSH_IN": 24, "FSYNC_IN": 16, "SETXATTR_IN": 16, "GETXATTR_IN": 8, "LK_IN": 48,
    "INTERRUPT_IN": 8, "FALLOCATE_IN": 32, "LSEEK_IN": 24, "COPY_FILE_RANGE_IN": 56,
    "OUT_HEADER": 16, "ENTRY_REPLY": 16 + 128, "ATTR_REPLY": 16 + 104, "OPEN_REPLY": 16 + 16,
    "CREATE_REPLY": 16 + 128 + 16, "WRITE_REPLY": 16 + 8, "SIZE_REPLY": 16 + 8,
    "OFFSET_REPLY": 16 + 8, "LK_REPLY": 16 + 24, "STATFS_REPLY": 16 + 80, "INIT_REPLY": 16 + 64,
    "DIRENT": 24, "DIRENTPLUS": 128 + 24, "INVAL_INODE": 16 + 24, "INVAL_ENTRY": 16 + 16,
}  # fmt: skip
"""sizeof of the structures in <linux/fuse.h>, replies and notifications with their header."""

FILE = Attributes(
    7, Kind.FILE, 0o640, 2, 11, 12, 0, 1000, 1 << 26, -1, 10**18 + 5, 3, change=1, data_version=1
)
ALL = (1 << 63) - 1


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_those_of_the_header(name):
    assert getattr(s, name).size == SIZES[name]


def test_an_entry_says_what_is_known():
    found = struct.unpack("=IiQ QQQQII QQQqqqIIIIIIIIII", replies.entry(9, Known(FILE, 1500, 2750)))
    assert found[:3] == (144, 0, 9)
    assert found[3:9] == (7, 0, 2, 1, 750_000_000, 500_000_000)
    assert found[9:12] == (7, 1000, 2), "inode, size, blocks"
    assert found[12:18] == (-1, 10**9, 0, 999_999_999, 5, 3), "before 1970 too"
    assert found[18:23] == (0o100640, 2, 11, 12, 0)
    assert replies.attr(9, Known(FILE, 1500, 0))[32:] == replies.entry(9, Known(FILE, 0, 0))[56:]


def test_errors_and_flags():
    assert struct.unpack("=IiQ", replies.failed(5, 2)) == (16, -2, 5)
    flags = struct.unpack_from("=QI", replies.opened(5, Opened(3, True, False)), 16)
    assert flags == (3, 1 << 1)
    flags = struct.unpack_from("=QI", replies.opened(5, Opened(3, False, True)), 16)
    assert flags == (3, 1 << 0 | 1 << 6)


@pytest.mark.parametrize(
    ("keep", "cache", "flags"),
    [(False, False, 0), (True, False, 2), (False, True, 8), (True, True, 10)],
)
def test_what_the_kernel_may_do_with_a_listing(keep: bool, cache: bool, flags: int) -> None:
    reply = replies.directory_opened(5, OpenedDirectory(3, keep, cache))
    assert struct.unpack_from("=QI", reply, 16) == (3, flags)


def test_locks_end_with_their_last_byte():
    told = struct.unpack_from("=QQII", replies.lock(5, LockRange(True, 10, 20, 42)), 16)
    assert told == (10, 19, 1, 42)
    told = struct.unpack_from("=QQII", replies.lock(5, LockRange(False, 0, LOCK_END, 42)), 16)
    assert told == (0, ALL, 0, 42)
    assert struct.unpack_from("=QQI", replies.lock(5, None), 16)[2] == 2


def test_statfs():
    told = struct.unpack_from("=QQQQQIII", replies.statfs(5, Space(1 << 30, 1 << 29, 17)), 16)
    assert told == (1 << 18, 1 << 17, 1 << 17, 17 + (1 << 17), 1 << 17, 4096, 255, 4096)


@pytest.mark.parametrize("plus", [False, True])
def test_a_listing_takes_what_fits(plus):
    entries = [
        (DirectoryEntry(b"x" * (number + 1), number + 1, FILE), Known(FILE, 1, 1))
        for number in range(20)
    ]
    for room in range(0, 4500, 7):
        listing = Listing(room, plus=plus)
        fitted = listing.add_dot(b".", 1, 1)
        assert fitted == (room >= (184 - 24 if plus else 32))
        listing.add(entries, 2)
        payload = listing.payload()
        assert len(payload) <= room
        assert len(payload) % 8 == 0
        names = list(_names(payload, plus))
        named = [entry.name for entry, _ in entries]
        assert names == [b"."] * fitted + named[: len(names) - fitted]
        assert len(listing.inodes) == (len(names) - fitted if plus else 0)


def _names(payload, plus):
    at = 0
    while at < len(payload):
        at += 128 if plus else 0
        _, _, length, kind = s.DIRENT.unpack_from(payload, at)
        at += 24
        yield bytes(payload[at : at + length])
        assert kind in (4, 8)
        at += -(-length // 8) * 8


def test_an_agreement_takes_what_is_offered():
    agreement = agree(7, 45, 131072, 0xFFFFFFFF, 0xFFFF)
    assert agreement.flags & InitFlag.DIRECT_IO_ALLOW_MMAP
    assert not agreement.flags & InitFlag.WRITEBACK_CACHE
    told = struct.unpack_from("=IIIIHHIIHHI", init_reply(1, agreement), 16)
    assert told[:3] == (7, 45, 131072)
    assert told[3] | told[10] << 32 == agreement.flags
    assert told[6:9] == (1 << 20, 1, 256)
    old = agree(7, 33, 131072, int(NEEDED), 0xFFFF)
    assert old.flags == NEEDED, "flags2 counts only with INIT_EXT"
    assert agree(7, 99, 131072, 0xFFFFFFFF, 0).minor == 99


@pytest.mark.parametrize(
    ("major", "minor", "flags", "said"),
    [
        (7, 31, 0xFFFFFFFF, "7.31"),
        (8, 50, 0xFFFFFFFF, "8.50"),
        (7, 45, int(NEEDED & ~InitFlag.SETXATTR_EXT), "SETXATTR_EXT"),
    ],
)
def test_a_kernel_that_is_too_old_is_told_apart_in_words(major, minor, flags, said):
    with pytest.raises(DisagreementError, match=said) as caught:
        agree(major, minor, 131072, flags, 0)
    assert "driver=pyfuse3" in str(caught.value)


def test_notices():
    assert struct.unpack("=IiQQqq", notices.forget_attributes(7)) == (40, 2, 0, 7, -1, 0)
    assert struct.unpack("=IiQQqq", notices.forget_pages(7)) == (40, 2, 0, 7, 0, 0)
    told = notices.forget_name(1, b"name")
    assert struct.unpack_from("=IiQQII", told) == (37, 3, 0, 1, 4, 0)
    assert told[32:] == b"name\0"
