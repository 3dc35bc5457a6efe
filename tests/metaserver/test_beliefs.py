"""Several sessions read, change and claim a few inodes at random, and come back on new connections:
nobody ever believes what is not so, though questions, changes and recalls of all of them cross."""

import random

import pytest
import trio
from tidefs.fs.attributes import Kind
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages import meta
from tidefs.fs.messages.base import Done
from tidefs.fs.messages.promises import Claim
from tidefs.fs.rpc import Mutation

from .live import Metaserver
from .promisee import Promisee

NAMES = [b"a", b"b", b"c", b"d"]
PASSING = [b"e", b"f"]
"""Names that come and go."""
STEPS = 150
AT_ONCE = 6


class Believer(Promisee):
    """Learns of replies as they come in, in the order of the connection."""

    def __init__(self, server):
        super().__init__(server)
        self.others = []
        self.alone = {}
        """Inodes that are held alone, and their ``change``."""
        self.is_back = trio.Event()
        self.is_back.set()

    async def come_back(self):
        """On a new connection. Until the server may know of it, all is believed still."""
        self.is_back = trio.Event()
        self.peer.close("for another one")
        self.alone.clear()
        await self.resume()
        self.is_back.set()

    def learn(self, attributes):
        for other in self.others:
            assert attributes.inode not in other.alone, "told while another has it alone"
        self.believed[attributes.inode] = attributes.change

    def answer(self, incoming):
        for inode in incoming.request.inodes:
            self.alone.pop(inode, None)
            self.believed.pop(inode, None)
        incoming.reply(Done())

    def check_others(self, attributes):
        """Of what was changed by this session: whoever believes anything, believes this."""
        for other in self.others:
            believed = other.believed.get(attributes.inode, attributes.change)
            assert believed >= attributes.change, "a promise was broken"


class Asker:
    """One of the things that a session does at the same time."""

    def __init__(self, who, slot, seed, inodes):
        self.who = who
        self.slot = slot
        self.sequence = 0
        self.random = random.Random(seed)
        self.inodes = inodes
        self.promised = 0

    async def run(self):
        kinds = [self.read] * 60 + [self.change] * 30 + [self.claim] * 10
        if self.slot == 1:
            kinds += [self.who.come_back] * 2
        for _ in range(STEPS):
            await self.random.choice(kinds)()

    async def read(self):
        inode = self.random.choice(self.inodes)
        question = self.random.choice(
            [
                meta.GetAttributes(inode),
                meta.GetContent(self.random.choice(self.inodes[1:]), 0),
                meta.Lookup(1, self.random.choice(NAMES + PASSING)),
                meta.ReadDirectory(1, 0, 10),
            ]
        )
        await self.ask(question)

    async def change(self):
        inode, name, other = self.random.choice(self.inodes), *self.random.sample(NAMES, 2)
        passing = self.random.choice(PASSING)
        request = self.random.choice(
            [
                meta.SetAttributes(inode, mtime_now=True),
                meta.SetXattr(inode, b"trusted.x", b"x", 0),
                meta.Rename(1, name, 1, other, meta.RenameFlags.EXCHANGE),
                meta.Create(1, passing, Kind.FILE, 0o644, 0, 0, 0, False, False),
                meta.Link(self.random.choice(self.inodes[1:]), 1, passing),
                meta.Unlink(1, passing),
            ]
        )
        self.sequence += 1
        mutation = Mutation(self.who.session, self.slot, self.sequence)
        await self.ask(request, mutation)

    async def claim(self):
        await self.ask(Claim(self.random.choice(self.inodes)))

    async def ask(self, request, mutation=None):
        """Until it is answered, on whatever connection."""
        while not await self.ask_once(request, mutation):
            await self.who.is_back.wait()

    async def ask_once(self, request, mutation):
        answered = trio.Event()
        outcome = []

        def done(reply, payload):
            try:
                outcome.append(self.take(request, reply))
            except (AssertionError, TideError) as error:
                outcome.append(error)
            answered.set()

        self.who.peer.post(request, mutation=mutation, done=done)
        await answered.wait()
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    def take(self, request, reply):
        """Look at an answer as it comes in; whether it is one."""
        if isinstance(reply, TideError):
            if reply.code not in (Code.NO_ENTRY, Code.EXISTS, Code.DISCONNECTED):
                raise reply
            return reply.code is not Code.DISCONNECTED
        found = told(reply)
        if isinstance(request, meta.Change):
            for attributes in found:
                # A Create may have found a file, which somebody changes who has not heard yet.
                if not isinstance(request, meta.Create):
                    self.who.check_others(attributes)
                # Its own promise goes on, with what it knows now.
                if attributes.inode in self.who.believed:
                    before = self.who.believed[attributes.inode]
                    self.who.believed[attributes.inode] = max(before, attributes.change)
        if getattr(reply, "promised", False):
            self.promised += 1
            for attributes in found:
                self.who.learn(attributes)
            if isinstance(request, Claim):
                for other in self.who.others:
                    assert request.inode not in other.believed, "it is not alone"
                self.who.alone[request.inode] = reply.attributes.change
        return True


def told(reply):
    if isinstance(reply, meta.Listing):
        return [reply.directory, *(entry.attributes for entry in reply.entries)]
    fields = ("attributes", "parent", "displaced")
    return [getattr(reply, field) for field in fields if getattr(reply, field, None)]


@pytest.mark.parametrize("seed", range(3))
async def test_nobody_believes_what_is_not_so(tmp_path, nursery, seed):
    server = await Metaserver(tmp_path, nursery).start()
    sessions = [await Believer.begin(server) for _ in range(4)]
    inodes = [1, *[await sessions[0].create(name.decode()) for name in NAMES]]
    for one in sessions:
        one.others = [other for other in sessions if other is not one]
    sessions[0].believed.clear()
    await sessions[1].change(meta.SetAttributes(1, mtime_now=True))
    askers = [
        Asker(who, slot + 1, f"{seed} {number} {slot}", inodes)
        for number, who in enumerate(sessions)
        for slot in range(AT_ONCE)
    ]
    with trio.fail_after(60):
        async with trio.open_nursery() as asking:
            for asker in askers:
                asking.start_soon(asker.run)
    beliefs = [dict(who.believed) for who in sessions]
    assert any(beliefs)
    peer = await server.connect()
    for inode in inodes:
        change = (await peer.call(meta.GetAttributes(inode))).attributes.change
        assert {believed.get(inode, change) for believed in beliefs} == {change}
    promised = sum(asker.promised for asker in askers)
    recalled = sum(len(who.recalled) for who in sessions)
    assert promised > STEPS
    assert recalled > STEPS
