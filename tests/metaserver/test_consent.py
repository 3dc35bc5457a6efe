"""What a change waits for, and what it touches once it need not wait any more: without a server."""

from types import SimpleNamespace

import pytest
import trio
import trio.testing
from tidefs.fs.attributes import Kind
from tidefs.fs.messages import meta
from tidefs.metaserver.awaited import Awaited
from tidefs.metaserver.consent import Consent
from tidefs.metaserver.promises import Promises

ANN, BOB = 10, 20
EXCHANGE = meta.Rename(1, b"a", 1, b"b", meta.RenameFlags.EXCHANGE)


class FakeRecalls:
    """Nobody is told; whoever waits, waits until a test ends what is out."""

    async def all_over(self, recalls):
        over = trio.Event()
        for recalled in recalls:
            recalled.then(lambda recalled: over.set())
        await over.wait()

    def send(self, taken):
        pass


@pytest.fixture
def files(cluster):
    return {name: cluster.file(name) for name in (b"a", b"b")}


@pytest.fixture
def promises():
    return Promises()


@pytest.fixture
def consent(cluster, files, promises):
    leader = SimpleNamespace(promises=promises, awaited=Awaited())
    return Consent(cluster.state, leader, FakeRecalls())


def create(name, *, exclusive):
    return meta.Create(1, name, Kind.FILE, 0o644, 0, 0, 0, exclusive, False)


async def test_who_follows_a_name_waits_for_what_moves_it(cluster, consent, files):
    first = consent.begin(ANN, EXCHANGE)
    assert consent.is_free(first)
    consent.proposed(first)
    for change in (
        meta.Unlink(1, b"a"),
        meta.RemoveDirectory(1, b"b"),
        meta.Rename(1, b"c", 1, b"b", 0),
        create(b"a", exclusive=False),
    ):
        assert not consent.is_free(consent.begin(BOB, change)), change
    for change in (
        meta.Unlink(1, b"c"),
        create(b"a", exclusive=True),
        meta.SetAttributes(files[b"a"], mode=0o600),
        meta.Link(files[b"a"], 1, b"b"),
    ):
        assert consent.is_free(consent.begin(BOB, change)), change
    second = consent.begin(BOB, meta.Unlink(1, b"a"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(consent.obtain, second)
        await trio.testing.wait_all_tasks_blocked()
        cluster.do(EXCHANGE)
        consent.end(first)
    assert {1, files[b"b"]} <= set(second.inodes), "what it is called now"
    assert consent.is_free(consent.begin(ANN, meta.Unlink(1, b"b")))


async def test_what_moved_before_it_began_to_wait_counts(cluster, consent, files, promises):
    promises.promise(ANN, (1,))
    change = consent.begin(BOB, meta.Unlink(1, b"a"))
    assert not consent.is_free(change)
    cluster.do(EXCHANGE)
    promises.end(ANN)
    await consent.obtain(change)
    assert files[b"b"] in change.inodes
    promises.promise(ANN, (files[b"a"],))
    assert not promises.promise(ANN, (files[b"b"],)), "it is marked"
    consent.end(change)
    assert promises.promise(ANN, (files[b"b"],))


async def test_what_is_found_later_is_recalled_as_well(cluster, consent, files, promises):
    promises.promise(ANN, (1,))
    change = consent.begin(BOB, meta.Unlink(1, b"a"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(consent.obtain, change)
        await trio.testing.wait_all_tasks_blocked()
        promises.promise(ANN, (files[b"b"],))
        cluster.do(EXCHANGE)
        for at in (1, files[b"b"]):
            (out,) = promises.out(BOB, (at,))
            promises.over(out)
            await trio.testing.wait_all_tasks_blocked()
    assert promises.count == 0


def test_a_change_that_is_disowned_is_nobodys(consent, files, promises):
    change = consent.begin(ANN, meta.SetAttributes(files[b"a"], mode=0o600))
    assert promises.promise(ANN, (files[b"a"],))
    consent.disown(change)
    assert not promises.promise(ANN, (files[b"a"],))
    assert not consent.is_free(change), "not even the session of which it was"
    consent.end(change)
    assert promises.promise(ANN, (files[b"a"],))
