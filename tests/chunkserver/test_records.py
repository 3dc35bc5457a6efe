"""The formats on disk: what was packed is read back, and nothing else passes for it."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidefs.chunkserver.layout import (
    BLOCK_BYTES,
    HEADER_MAX_BYTES,
    Header,
    block_sum,
    chunk_path,
    handle_of,
    spans,
    unpack_header,
)
from tidefs.chunkserver.records import (
    SEGMENT_START,
    Kind,
    SegmentHead,
    Version,
    number_body,
    pack_record,
    pack_segment_head,
    read_number,
    read_sync,
    read_version,
    read_write,
    record_at,
    record_bytes,
    records_anywhere,
    sync_body,
    unpack_segment_head,
    version_body,
    write_body,
)
from tidefs.chunkserver.replay import Segment, read_journal
from tidefs.fs.codec import checksum
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import BLOCKS_PER_CHUNK, CHUNK_BYTES

U64 = st.integers(0, 2**64 - 1)
OWNER = 0xABCD


@given(st.integers(0, CHUNK_BYTES - 1), st.integers(1, 4 << 20))
def test_spans_cover_a_range_exactly(offset, length):
    length = min(length, CHUNK_BYTES - offset)
    at = offset
    for span in spans(offset, length):
        assert span.block * BLOCK_BYTES + span.start == at
        assert 0 <= span.start < span.stop <= BLOCK_BYTES
        at += span.stop - span.start
    assert at == offset + length


def test_the_checksum_of_a_block_counts_the_zeros_behind_its_bytes():
    assert block_sum(b"abc") == block_sum(b"abc".ljust(BLOCK_BYTES, b"\0"))
    assert block_sum(b"abc") == checksum(b"abc".ljust(BLOCK_BYTES, b"\0"))
    assert block_sum(b"abc") != block_sum(b"abd")


@given(U64)
def test_names_and_handles(handle):
    name = chunk_path(handle).rpartition("/")[2]
    assert handle_of(name) == handle
    assert handle_of(name + ".tmp") is None
    assert handle_of(name[1:]) is None


@given(U64, U64, U64, st.booleans(), st.lists(U64, max_size=BLOCKS_PER_CHUNK))
def test_a_header_is_read_back_and_any_flipped_bit_is_seen(handle, version, at, clean, sums):
    header = Header(handle, version, at, at // 2, version, clean, not clean, array("Q", sums))
    packed = header.pack()
    assert unpack_header(packed.ljust(HEADER_MAX_BYTES, b"\0")) == header
    for bit in range(0, len(packed) * 8, 61):
        damaged = bytearray(packed)
        damaged[bit // 8] ^= 1 << bit % 8
        assert unpack_header(damaged) is None
    assert unpack_header(packed[:-1]) is None


@given(st.sampled_from(Kind), U64, U64, U64, st.lists(st.binary(max_size=50), max_size=3))
def test_a_record_is_read_back_and_any_flipped_bit_is_seen(kind, handle, at, synced, body):
    packed = b"".join(map(bytes, pack_record(kind, handle, at, synced, OWNER, body)))
    assert len(packed) == record_bytes(sum(map(len, body)))
    found = record_at(memoryview(b"-" * 8 + packed), 8, OWNER)
    assert found is not None
    assert found[:4] == (kind, handle, at, synced)
    assert found.body == b"".join(body)
    assert found.end == 8 + len(packed)
    assert record_at(memoryview(packed), 0, OWNER + 1) is None
    padding = len(packed) - len(packed.rstrip(b"\0")) if body else 0
    for bit in range(0, (len(packed) - min(padding, 7)) * 8, 7):
        damaged = bytearray(packed)
        damaged[bit // 8] ^= 1 << bit % 8
        again = record_at(memoryview(damaged), 0, OWNER)
        assert again is None or again.body == b"".join(body), "only the padding may change"


def test_bodies_are_read_back():
    sums = array("Q", [5, 0, 7])
    offset = BLOCK_BYTES - 3
    data = bytes(BLOCK_BYTES + 6)
    body = b"".join(map(bytes, write_body(9, offset, sums, [data[:5], data[5:]])))
    content = read_write(memoryview(body))
    assert (content.version, content.offset, content.sums) == (9, offset, sums)
    assert content.data == data
    entries = [(0, 2**64 - 1), (1023, 1)]
    assert read_sync(memoryview(sync_body(entries))) == entries
    for version in (Version(7, -1, 0), Version(8, 5, 2**64 - 1)):
        assert read_version(memoryview(version_body(version))) == version
    assert read_number(memoryview(number_body(2**64 - 1))) == 2**64 - 1


# --- the journal as a whole --------------------------------------------------------------------


def segment(first: int, count: int, *, dead: int = 1, synced: int = 0, length: int = 4000) -> bytes:
    """A segment with ``count`` DELETE records; the handle of each is its number."""
    data = pack_segment_head(SegmentHead(first, dead))
    for number in range(first, first + count):
        data += b"".join(
            map(
                bytes,
                pack_record(Kind.DELETE, number, number, synced, OWNER, [number_body(2**64 - 1)]),
            )
        )
    return data.ljust(length, b"\0")


SIZE = record_bytes(8)


def journal(*segments: tuple[int, bytes | bytearray]):
    return read_journal([Segment(first, memoryview(data)) for first, data in segments], OWNER)


def test_a_journal_of_several_segments_is_one_run():
    history = journal((1, segment(1, 3)), (4, segment(4, 2)), (6, segment(6, 1)))
    assert [record.sequence for record in history.records] == [1, 2, 3, 4, 5, 6]
    assert (history.next_sequence, history.last, history.useless) == (7, 6, [])
    assert history.end == SEGMENT_START + SIZE
    assert not history.torn


@pytest.mark.parametrize("cut", range(1, SIZE))
def test_a_torn_record_at_the_end_is_cut_off(cut):
    data = bytearray(segment(1, 3))
    end = SEGMENT_START + 3 * SIZE
    data[end - cut : end] = bytes(cut)
    history = journal((1, data))
    assert len(history.records) == 2
    assert history.next_sequence == 3
    assert history.torn


def test_everything_behind_a_torn_record_goes_with_it():
    data = bytearray(segment(1, 3))
    data[SEGMENT_START + SIZE + 30] ^= 1
    history = journal((1, data), (4, segment(4, 2)))
    assert [record.sequence for record in history.records] == [1]
    assert history.useless == [4]
    assert history.torn


def test_damage_to_what_had_been_synced_is_refused_and_named():
    data = bytearray(segment(1, 3))
    data[SEGMENT_START + SIZE + 30] ^= 1
    with pytest.raises(TideError, match="journal/0000000000000001: record 2 is damaged") as caught:
        journal((1, data), (4, segment(4, 2, synced=3)))
    assert caught.value.code is Code.CORRUPT
    with pytest.raises(TideError, match="record 4 is damaged or missing"):
        journal((1, segment(1, 3)), (6, segment(6, 2, synced=5)))


def test_a_segment_that_a_crash_left_without_a_beginning_is_useless():
    torn = bytearray(segment(4, 0))
    torn[0] = 0
    history = journal((1, segment(1, 3)), (4, torn))
    assert (history.next_sequence, history.useless) == (4, [4])
    with pytest.raises(TideError, match="the journal is gone"):
        journal((4, torn))


def test_dead_segments_may_come_back_or_be_missing():
    last = segment(6, 2, dead=5, synced=6)
    history = journal((4, segment(4, 2)), (6, last))
    assert [record.sequence for record in history.records] == [5, 6, 7]
    history = journal((1, segment(1, 2)), (4, segment(4, 2)), (6, last))
    assert [record.sequence for record in history.records] == [5, 6, 7]
    with pytest.raises(TideError, match="record 5 is damaged or missing"):
        journal((1, segment(1, 2)), (6, last))


def test_records_of_another_server_that_stand_in_the_data_are_not_believed():
    foreign = b"".join(map(bytes, pack_record(Kind.TRIM, 0, 900, 899, OWNER + 1, [bytes(8)])))
    inner = b"".join(map(bytes, pack_record(Kind.WRITE, 7, 1, 0, OWNER, [foreign])))
    assert [r.sequence for r in records_anywhere(memoryview(inner), 0, OWNER)] == [1]
    damaged = bytearray(pack_segment_head(SegmentHead(1, 1)) + inner)
    damaged[SEGMENT_START + 16] ^= 1
    history = journal((1, damaged))
    assert not history.records


@given(st.binary(max_size=200))
def test_garbage_is_no_segment(data):
    assert unpack_segment_head(data) is None
    assert unpack_header(data) is None
    assert list(records_anywhere(memoryview(data), 0, OWNER)) == []
