"""Exclusive promises over real connections: who has an inode alone, and who may ask about it."""

import pytest
import trio
from tidefs.fs.attributes import Kind
from tidefs.fs.errors import Code
from tidefs.fs.messages import meta
from tidefs.fs.messages.promises import Claim
from tidefs.metaserver import consent as consent_module

from .live import Metaserver, until
from .promisee import Promisee
from .test_recalls import Task, kept_waiting, mode
from .test_service import refused, step


@pytest.fixture
async def server(tmp_path, nursery):
    return await Metaserver(tmp_path, nursery).start()


@pytest.fixture
async def ann(server):
    return await Promisee.begin(server)


@pytest.fixture
async def bob(server):
    return await Promisee.begin(server)


@pytest.fixture
async def inode(bob):
    return await bob.create("file")


def questions(inode):
    return [
        meta.Lookup(1, b"file"),
        meta.GetAttributes(inode),
        meta.ReadDirectory(1, 0, 10),
        meta.ListXattrs(inode),
        meta.Open(inode, 0),
        meta.GetContent(inode, 0),
        meta.GetLayout(inode, 0, 1, False),
        meta.GetExtents(inode, 0),
        meta.Compound([step(meta.GetAttributes(1)), step(meta.GetAttributes(inode))]),
    ]


@pytest.mark.parametrize("at", range(9))
async def test_who_asks_waits_until_the_holder_was_recalled(server, nursery, ann, bob, inode, at):
    question = questions(inode)[at]
    assert await ann.claim(inode)
    ann.holds_back = True
    for _ in range(3):
        await ann.call(question)
    assert ann.recalled == [], "it may ask itself"
    asked = Task(nursery, bob.call, question)
    await until(lambda: ann.held_back)
    assert ann.recalled == [[inode]]
    await ann.change(meta.Commit(inode, 5, None, [], [], 0, False))
    await kept_waiting(asked, server)
    ann.answer_all()
    answer = await asked.over()
    if isinstance(answer, meta.Content | meta.Layout | meta.Extents | meta.Node):
        assert answer.attributes.size == 5


async def test_who_has_no_session_waits_as_well(server, nursery, ann, inode):
    assert await ann.claim(inode)
    ann.holds_back = True
    nobody = await server.connect()
    asked = Task(nursery, nobody.call, meta.GetAttributes(inode))
    await until(lambda: ann.held_back)
    ann.answer_all()
    await asked.over()


async def test_a_directory_that_is_held_alone_hides_what_is_not_in_it(server, nursery, ann, bob):
    assert await ann.claim(1)
    ann.holds_back = True
    asked = Task(nursery, refused, Code.NO_ENTRY, bob.call(meta.Lookup(1, b"x")))
    await until(lambda: ann.held_back)
    await kept_waiting(asked, server)
    ann.answer_all()
    await asked.over()


async def test_a_claim_recalls_what_was_promised(server, nursery, ann, bob, inode):
    carl = await Promisee.begin(server)
    await ann.promised(inode)
    await carl.promised(inode)
    ann.holds_back = True
    claim = Task(nursery, bob.claim, inode)
    await until(lambda: ann.held_back and carl.recalled)
    assert not (await carl.call(meta.GetAttributes(inode))).promised, "somebody wants it alone"
    await kept_waiting(claim, server)
    ann.answer_all()
    assert await claim.over()
    assert bob.recalled == []


async def test_a_change_recalls_what_is_held_alone(server, nursery, ann, bob, inode):
    assert await ann.claim(inode)
    ann.holds_back = True
    change = Task(nursery, bob.change, mode(inode, 0o600))
    await until(lambda: ann.held_back)
    assert not (await ann.change(mode(inode, 0o640))).promised, "bob's is under way"
    await kept_waiting(change, server)
    ann.answer_all()
    assert (await change.over()).attributes.mode == 0o600


async def test_a_create_that_finds_a_file_recalls_who_has_it_alone(server, nursery, ann, bob):
    inode = await ann.create("file")
    assert await ann.claim(inode)
    ann.holds_back = True
    create = meta.Create(1, b"file", Kind.FILE, 0o644, 0, 0, 0, False, False)
    found = Task(nursery, bob.change, create)
    await until(lambda: [inode] in ann.recalled)
    ann.answer_all()
    assert (await found.over()).promised


async def test_a_claim_waits_for_a_change_that_is_under_way(server, nursery, ann, bob, inode):
    before = len(server.disk.syncs)
    server.disk.sync_gate = trio.Event()
    change = Task(nursery, bob.change, mode(inode, 0o600))
    await until(lambda: len(server.disk.syncs) > before)
    claim = Task(nursery, ann.call, Claim(inode))
    await kept_waiting(claim, server)
    server.disk.sync_gate.set()
    await change.over()
    node = await claim.over()
    assert (node.attributes.mode, node.promised) == (0o600, True)


async def test_claims_of_two_take_turns(server, nursery, ann, bob, inode):
    await ann.promised(inode)
    await bob.promised(inode)
    ann.holds_back = bob.holds_back = True
    first = Task(nursery, ann.claim, inode)
    await until(lambda: bob.held_back)
    second = Task(nursery, bob.claim, inode)
    await kept_waiting(second, server)
    assert ann.recalled == []
    bob.answer_all()
    assert await first.over()
    await until(lambda: ann.held_back)
    await kept_waiting(second, server)
    ann.answer_all()
    assert await second.over()
    assert (ann.recalled, bob.recalled) == ([[inode]], [[inode]])


class Greedy(Promisee):
    """Claims it again in the same breath in which it gives it up."""

    def answer(self, incoming):
        super().answer(incoming)
        self.peer.post(Claim(incoming.request.inodes[0]), done=lambda reply, payload: None)


async def test_who_claims_again_and_again_lets_others_have_it(server, bob, inode, monkeypatch):
    monkeypatch.setattr(consent_module, "CLAIM_PATIENCE_MS", 1_000)
    greedy = await Greedy.begin(server)
    carl = await server.client()
    for _ in range(10):
        assert await greedy.claim(inode)
        assert await bob.claim(inode)
        await carl.call(meta.GetAttributes(inode))
        assert await greedy.claim(inode)
        given_up = len(greedy.recalled)
        await carl.call(meta.GetAttributes(inode))
        await carl.call(meta.GetSpace())
        assert len(greedy.recalled) == given_up + 1


async def test_a_claim_ends_in_time(server, ann, bob, inode, monkeypatch):
    monkeypatch.setattr(consent_module, "CLAIM_PATIENCE_MS", 50)
    await bob.promised(inode)
    bob.holds_back = True
    assert not await ann.claim(inode)
    bob.answer_all()
    assert await ann.claim(inode)


async def test_who_wants_no_promises_claims_nothing(server, ann, inode):
    client = await server.client()
    await refused(Code.INVALID, client.call(Claim(inode)))
    await refused(Code.INVALID, (await server.connect()).call(Claim(inode)))
    await refused(Code.STALE_HANDLE, ann.call(Claim(999)))


async def test_what_was_held_alone_ends_with_the_session(server, nursery, ann, bob, inode):
    assert await ann.claim(inode)
    ann.peer.close("gone")
    asked = Task(nursery, bob.call, meta.GetAttributes(inode))
    await kept_waiting(asked, server)
    await ann.resume()
    assert (await asked.over()).promised
    assert await ann.claim(inode)
    await ann.call(meta.CloseSession(ann.session))
    await bob.promised(inode)
