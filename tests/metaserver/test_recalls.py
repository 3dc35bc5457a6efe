"""Promises over real connections: what is told, who is asked before a change, who is waited for."""

import contextlib
import functools

import pytest
import trio
from tidefs.fs.attributes import Kind
from tidefs.fs.config import Duration
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import LOCK_END
from tidefs.fs.messages import locks, meta, raft
from tidefs.metaserver import leader as leader_module
from tidefs.metaserver import recalls as recalls_module
from tidefs.metaserver.promises import Promises

from .live import Metaserver, until
from .promisee import Promisee
from .test_service import refused, step


@pytest.fixture
async def server(tmp_path, nursery):
    return await Metaserver(tmp_path, nursery).start()


class Task:
    """Something that is under way beside the test, and its outcome."""

    def __init__(self, nursery, function, *arguments):
        self.is_over = False
        self.outcome = None
        nursery.start_soon(self._run, function, arguments)

    async def _run(self, function, arguments):
        self.outcome = await function(*arguments)
        self.is_over = True

    async def over(self):
        await until(lambda: self.is_over)
        return self.outcome


def mode(inode, bits):
    return meta.SetAttributes(inode, mode=bits)


async def metrics(server):
    peer = await server.connect()
    values = dict((await peer.call(raft.GetMetrics())).values)
    peer.close("asked")
    return values


async def kept_waiting(task, server):
    """Whatever the server does with what it has: that task does not end."""
    for _ in range(20):
        peer = await server.connect()
        await peer.call(meta.GetSpace())
        peer.close("asked")
    assert not task.is_over


# --- what is promised ----------------------------------------------------------------------------


async def test_what_is_told_is_promised_to_who_wants_it(server):
    ann, bob = await Promisee.begin(server), await server.client()
    nobody = await server.connect()
    made = await ann.change(meta.Create(1, b"file", Kind.FILE, 0o644, 0, 0, 0, True, False))
    assert made.promised
    inode = made.attributes.inode
    for question in (
        meta.Lookup(1, b"file"),
        meta.GetAttributes(inode),
        meta.ReadDirectory(1, 0, 10),
        meta.GetContent(inode, 0),
    ):
        assert (await ann.call(question)).promised
        assert not (await bob.call(question)).promised
        assert not (await nobody.call(question)).promised
    assert (await ann.call(meta.Open(inode, 0))).promised
    assert not (await bob.call(meta.Open(inode, 0))).promised
    assert (await metrics(server))["promises_held"] == 2, "the file and the root"
    assert not (await bob.change(mode(inode, 0o600))).promised


async def test_steps_of_compounds_and_old_answers_promise_nothing(server):
    ann = await Promisee.begin(server)
    create = meta.Create(1, b"file", Kind.FILE, 0o644, 0, 0, 0, True, False)
    inode = (await ann.change(create)).attributes.inode
    again = await ann.change(create, sequence=1)
    assert again.attributes.inode == inode
    assert not again.promised
    bob = await Promisee.begin(server)
    found = await bob.call(meta.Compound([step(meta.Lookup(1, b"file"))]))
    assert found.outcomes[0].fields[2] is False
    await ann.change(mode(inode, 0o600))
    assert bob.recalled == []


async def test_a_session_that_is_over_is_promised_nothing(server):
    ann = await Promisee.begin(server)
    inode = await ann.create("file")
    await ann.promised(inode)
    await ann.call(meta.CloseSession(ann.session))
    assert (await metrics(server))["promises_held"] == 0
    assert not (await ann.call(meta.GetAttributes(inode))).promised


async def test_what_is_reaped_is_forgotten(server):
    ann = await Promisee.begin(server)
    await ann.create("file")
    await ann.change(meta.Unlink(1, b"file"))

    with trio.fail_after(10):
        while (await metrics(server))["promises_held"] != 1:
            await trio.lowlevel.checkpoint()
    assert ann.recalled == []


# --- changes -------------------------------------------------------------------------------------


async def test_a_change_waits_for_who_was_promised_otherwise(server, nursery):
    ann, bob = await Promisee.begin(server), await server.client()
    inode = await bob.create("file")
    await ann.promised(inode)
    ann.holds_back = True
    change = Task(nursery, bob.change, mode(inode, 0o600))
    await until(lambda: ann.held_back)
    assert ann.recalled == [[inode]]
    node = await ann.call(meta.GetAttributes(inode))
    assert (node.attributes.mode, node.promised) == (0o644, False)
    await kept_waiting(change, server)
    ann.answer_all()
    assert (await change.over()).attributes.mode == 0o600
    assert (await ann.promised(inode)).mode == 0o600
    told = await metrics(server)
    assert (told["recalls_sent_total"], told["recalls_answered_total"]) == (1, 1)
    assert told["recalls_waiting"] == 0


async def test_what_was_recalled_is_not_recalled_again(server):
    ann, bob = await Promisee.begin(server), await server.client()
    inode = await bob.create("file")
    await ann.promised(inode)
    for bits in (0o600, 0o640):
        await bob.change(mode(inode, bits))
    assert ann.recalled == [[inode]]
    await ann.promised(inode)
    await bob.change(mode(inode, 0o600))
    assert ann.recalled == [[inode]] * 2


async def test_ones_own_changes_recall_nothing(server):
    ann = await Promisee.begin(server)
    inode = await ann.create("file")
    await ann.promised(inode)
    assert (await ann.change(mode(inode, 0o600))).promised
    bob = await server.client()
    await ann.change(meta.Rename(1, b"file", 1, b"name", 0))
    assert ann.recalled == []
    await bob.change(meta.Rename(1, b"name", 1, b"other", 0))
    assert [sorted(inodes) for inodes in ann.recalled] == [[1, inode]], "one for all"


async def test_what_fails_recalls_nothing(server):
    ann, bob = await Promisee.begin(server), await server.client()
    await ann.call(meta.ReadDirectory(1, 0, 10))
    await refused(Code.NO_ENTRY, bob.change(meta.Unlink(1, b"x")))
    assert ann.recalled == []


async def test_what_fails_only_after_the_recall_fails(server, nursery):
    ann, bob = await Promisee.begin(server), await server.client()
    inode = await ann.create("file")
    await ann.promised(inode)
    ann.holds_back = True
    unlink = Task(nursery, refused, Code.NO_ENTRY, bob.change(meta.Unlink(1, b"file")))
    await until(lambda: ann.held_back)
    await ann.change(meta.Unlink(1, b"file"))
    with trio.fail_after(10):
        while (await ann.call(meta.GetSpace())).inodes > 1:  # it is reaped, by one more entry
            await trio.lowlevel.checkpoint()
    logged = (await metrics(server))["log_last_index"]
    ann.answer_all()
    await unlink.over()
    assert (await metrics(server))["log_last_index"] == logged
    carl = await server.client()
    assert (await carl.change(meta.MakeDirectory(1, b"file", 0o755, 0, 0))).attributes.inode
    await refused(Code.NO_ENTRY, bob.change(meta.Unlink(1, b"file"), sequence=1))


async def test_nothing_is_promised_while_another_changes_it(server, nursery):
    ann, bob = await Promisee.begin(server), await Promisee.begin(server)
    inode = await bob.create("file")
    before = len(server.disk.syncs)
    server.disk.sync_gate = trio.Event()
    change = Task(nursery, bob.change, mode(inode, 0o600))
    await until(lambda: len(server.disk.syncs) > before)
    assert not (await ann.call(meta.GetAttributes(inode))).promised
    assert not (await ann.call(meta.ReadDirectory(1, 0, 10))).promised
    assert (await bob.call(meta.GetAttributes(inode))).promised
    assert (await ann.call(meta.GetAttributes(1))).promised
    server.disk.sync_gate.set()
    assert (await change.over()).promised
    assert (await ann.promised(inode)).mode == 0o600


async def test_a_reply_is_promised_only_if_nobody_else_changes_what_it_tells(server, nursery):
    ann, bob = await Promisee.begin(server), await Promisee.begin(server)
    before = len(server.disk.syncs)
    server.disk.sync_gate = trio.Event()
    made = []
    for who, name in ((ann, b"a"), (bob, b"b")):
        request = meta.Create(1, name, Kind.FILE, 0o644, 0, 0, 0, True, False)
        made.append(Task(nursery, who.change, request))
        await until(lambda: len(server.disk.syncs) > before)
    peer = await server.connect()
    await peer.call(meta.GetAttributes(1))
    server.disk.sync_gate.set()
    first, second = [await one.over() for one in made]
    assert (first.promised, second.promised) == (False, True), "bob's was under way when ann's was"


async def test_changes_that_cross_wait_for_nothing_but_answers(server, nursery):
    ann, bob = await Promisee.begin(server), await Promisee.begin(server)
    one, two = await ann.create("one"), await ann.create("two")
    await ann.promised(one)
    await bob.promised(two)
    await bob.promised(one)
    await ann.promised(two)
    ann.holds_back = bob.holds_back = True
    changes = [
        Task(nursery, ann.change, mode(two, 0o600)),
        Task(nursery, bob.change, mode(one, 0o600)),
    ]
    await until(lambda: ann.held_back and bob.held_back)
    assert (ann.recalled, bob.recalled) == ([[one]], [[two]])
    ann.answer_all()
    await changes[1].over()
    await kept_waiting(changes[0], server)
    bob.answer_all()
    await changes[0].over()


async def test_names_that_moved_meanwhile_are_looked_at_again(server, nursery):
    ann, bob, carl = [await Promisee.begin(server) for _ in range(3)]
    await bob.create("x")
    other = await bob.create("y")
    await ann.promised(1)
    ann.holds_back = carl.holds_back = True
    unlink = Task(nursery, bob.change, meta.Unlink(1, b"x"))
    await until(lambda: ann.held_back)
    await ann.change(meta.Rename(1, b"y", 1, b"x", 0))
    await carl.promised(other)
    ann.answer_all()
    await until(lambda: carl.held_back)
    assert carl.recalled == [[other]]
    await kept_waiting(unlink, server)
    carl.answer_all()
    assert (await unlink.over()).attributes.inode == other


async def test_a_repetition_of_a_change_that_waits_waits_with_it(server, nursery):
    ann, bob = await Promisee.begin(server), await server.client()
    inode = await bob.create("file")
    await ann.promised(inode)
    ann.holds_back = True
    change = mode(inode, 0o600)
    tasks = [Task(nursery, functools.partial(bob.change, sequence=2), change) for _ in range(2)]
    await until(lambda: ann.held_back)
    await refused(Code.BUSY, bob.change(change, sequence=3))
    ann.answer_all()
    first, second = [await task.over() for task in tasks]
    assert first.attributes == second.attributes
    assert ann.recalled == [[inode]]


async def test_a_change_in_a_compound_waits_as_well(server, nursery):
    ann, bob = await Promisee.begin(server), await server.client()
    inode = await bob.create("file")
    await ann.promised(inode)
    ann.holds_back = True
    compound = meta.Compound([step(mode(inode, 0o600)), step(meta.GetAttributes(inode))])
    found = Task(nursery, bob.change, compound)
    await until(lambda: ann.held_back)
    await kept_waiting(found, server)
    ann.answer_all()
    assert (await found.over()).code == 0


# --- who does not answer -------------------------------------------------------------------------


async def test_who_is_gone_is_waited_for_until_it_resumes(server, nursery):
    ann, bob = await Promisee.begin(server), await server.client()
    inode = await bob.create("file")
    await ann.promised(inode)
    ann.peer.close("gone")
    change = Task(nursery, bob.change, mode(inode, 0o600))
    await kept_waiting(change, server)
    await ann.resume()
    await change.over()
    assert ann.recalled == []
    await ann.promised(inode)
    await bob.change(mode(inode, 0o640))
    assert ann.recalled == [[inode]], "on the new connection"


async def test_who_goes_while_it_is_recalled_is_waited_for(server, nursery):
    ann, bob = await Promisee.begin(server), await server.client()
    inode = await bob.create("file")
    await ann.promised(inode)
    ann.holds_back = True
    change = Task(nursery, bob.change, mode(inode, 0o600))
    await until(lambda: ann.held_back)
    ann.peer.close("gone")
    await kept_waiting(change, server)
    await ann.resume()
    await change.over()
    assert (await metrics(server))["recalls_waiting"] == 0


@contextlib.asynccontextmanager
async def kept_alive(*clients):
    """Their sessions live on meanwhile, whatever becomes of their connections."""

    async def keep(client):
        peer = await client.server.connect()
        with contextlib.suppress(TideError):
            while True:
                await peer.call(meta.KeepAlive(client.session))
                await trio.sleep(0.02)

    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(keep, client)
        yield
        nursery.cancel_scope.cancel()


LEASE_S = 0.4


@pytest.fixture
async def hasty(tmp_path, nursery):
    """A server that waits for nobody for long."""
    lease = Duration(int(LEASE_S * 1000))
    return await Metaserver(tmp_path, nursery, session_lease=lease).start()


async def test_who_never_comes_back_is_waited_for_as_long_as_its_lease(hasty):
    ann, bob = await Promisee.begin(hasty), await hasty.client()
    inode = await ann.create("file")
    await ann.promised(inode)
    ann.peer.close("gone")
    async with kept_alive(bob):
        await bob.change(mode(inode, 0o600))
    await refused(Code.SESSION_EXPIRED, ann.resume())
    told = await metrics(hasty)
    assert (told["promises_held"], told["recall_sessions_ended_total"]) == (0, 0)
    assert told["recall_longest_ms"] > 0


async def test_who_lives_and_does_not_answer_is_ended(hasty):
    ann, bob = await Promisee.begin(hasty), await hasty.client()
    inode = await ann.create("file")
    await ann.promised(inode)
    ann.holds_back = True
    async with kept_alive(ann, bob):
        began = trio.current_time()
        await bob.change(mode(inode, 0o600))
        assert trio.current_time() - began >= LEASE_S
        await until(lambda: ann.peer.closed)
    await refused(Code.SESSION_EXPIRED, ann.resume())
    assert (await metrics(hasty))["recall_sessions_ended_total"] == 1


async def test_who_fails_to_answer_begins_anew(server, nursery):
    ann, bob = await Promisee.begin(server), await server.client()
    inode = await bob.create("file")
    await ann.promised(inode)
    ann.fails = True
    change = Task(nursery, bob.change, mode(inode, 0o600))
    await until(lambda: ann.peer.closed)
    await kept_waiting(change, server)
    await ann.resume()
    await change.over()


async def test_a_change_of_before_a_resumption_is_somebody_elses(server, nursery):
    """Its answer went to the old connection, and may never be asked for again."""
    ann = await Promisee.begin(server)
    inode = await ann.create("file")
    before = len(server.disk.syncs)
    server.disk.sync_gate = trio.Event()
    nursery.start_soon(refused, Code.DISCONNECTED, ann.change(mode(inode, 0o600)))
    await until(lambda: len(server.disk.syncs) > before)
    await ann.resume()
    assert not (await ann.call(meta.GetAttributes(inode))).promised
    again = Task(nursery, functools.partial(ann.change, sequence=2), mode(inode, 0o600))
    await kept_waiting(again, server)
    server.disk.sync_gate.set()
    assert (await again.over()).promised
    assert (await ann.promised(inode)).mode == 0o600


# --- the bound -----------------------------------------------------------------------------------


async def test_the_oldest_promises_make_room(tmp_path, nursery, monkeypatch):
    monkeypatch.setattr(leader_module, "Promises", lambda: Promises(most=4))
    monkeypatch.setattr(recalls_module, "PROMISES_RECALLED_AT_ONCE", 2)
    server = await Metaserver(tmp_path, nursery).start()
    bob, ann = await server.client(), await Promisee.begin(server)
    inodes = [await bob.create(f"file{number}") for number in range(6)]
    for inode in inodes[:4]:
        await ann.promised(inode)
    assert ann.recalled == []
    await ann.promised(inodes[4])
    await until(lambda: ann.recalled == [inodes[:2]])
    assert (await metrics(server))["promises_held"] == 3
    for inode in inodes[:4]:
        assert await ann.claim(inode)
    assert ann.recalled[1:] == [inodes[2:4], [inodes[4]]], "what is held alone stays"
    assert not (await ann.call(meta.GetAttributes(inodes[5]))).promised
    assert not await ann.claim(inodes[5])


# --- locks ---------------------------------------------------------------------------------------


async def test_a_lock_recalls_what_is_held_alone_and_nothing_else(server):
    ann, bob, carl = await Promisee.begin(server), await server.client(), await server.client()
    inode = await bob.create("file")

    def lock(*, exclusive):
        kind = locks.LockKind.RANGE
        return locks.SetLock(inode, kind, 1, exclusive, 0, LOCK_END, False, 1)

    await ann.promised(inode)
    await bob.change(lock(exclusive=False))
    assert ann.recalled == []
    assert await ann.claim(inode)
    await carl.change(lock(exclusive=False))
    assert ann.recalled == [[inode]]
