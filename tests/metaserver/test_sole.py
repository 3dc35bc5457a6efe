"""Consensus in a group of one, and the term and vote on disk."""

import pytest
from tidefs.fs.errors import Code, TideError
from tidefs.metaserver.hard_state import load_hard_state, store_hard_state
from tidefs.metaserver.raft.contract import HardState
from tidefs.metaserver.raft.sole import SoleCore

from .fake_disk import FakeDisk


def test_each_start_is_a_new_term_that_is_stored_first():
    core = SoleCore(7, HardState(3, 7), last_index=0, applied_index=0)
    assert (core.term, core.leader) == (4, 7)
    ready = core.ready()
    assert ready is not None
    assert ready.hard_state == HardState(4, 7)
    core.advance(ready)
    assert core.ready() is None


def test_what_the_log_holds_is_committed():
    core = SoleCore(7, HardState(3, 7), last_index=10, applied_index=4)
    ready = core.ready()
    assert ready is not None
    assert (ready.committed_index, ready.records) == (10, ())
    core.advance(ready)
    assert core.ready() is None
    assert core.next_index == 11


def test_proposals_are_committed_with_their_own_ready():
    core = SoleCore(7, HardState(0, 0), last_index=2, applied_index=2)
    core.propose([b"a"])
    records = core.propose([b"b", b"c"])
    assert [(r.term, r.index) for r in records] == [(1, 4), (1, 5)]
    ready = core.ready()
    assert ready is not None
    assert [r.body for r in ready.records] == [b"a", b"b", b"c"]
    assert ready.committed_index == 5
    core.advance(ready)
    assert core.ready() is None


def test_what_found_no_room_was_never_there():
    core = SoleCore(7, HardState(0, 0), last_index=0, applied_index=0)
    core.propose([b"a", b"b"])
    ready = core.ready()
    assert ready is not None
    core.abandon(ready)
    assert core.ready() is None
    assert core.propose([b"c"])[0].index == 1


async def test_term_and_vote_survive_a_crash():
    disk = FakeDisk()
    assert await load_hard_state(disk) == HardState(0, 0)
    await store_hard_state(disk, HardState(3, 9))
    await store_hard_state(disk, HardState(4, 1 << 62))
    assert await load_hard_state(disk.crash()) == HardState(4, 1 << 62)


@pytest.mark.parametrize("at", range(32))
async def test_a_damaged_hard_state_is_refused(at):
    disk = FakeDisk()
    await store_hard_state(disk, HardState(3, 9))
    disk.files["hard_state"].data[at] ^= 1
    with pytest.raises(TideError, match="hard_state") as caught:
        await load_hard_state(disk)
    assert caught.value.code is Code.CORRUPT


async def test_a_short_hard_state_is_refused():
    disk = FakeDisk()
    await store_hard_state(disk, HardState(3, 9))
    del disk.files["hard_state"].data[5:]
    with pytest.raises(TideError, match="5 bytes"):
        await load_hard_state(disk)
