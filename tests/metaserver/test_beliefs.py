"""Several sessions read, change and claim a few inodes at random: nobody ever believes what is not
so, though questions, changes and recalls of all of them cross."""

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
        for _ in range(STEPS):
            kind = self.random.choices((self.read, self.change, self.claim), (6, 3, 1))[0]
            await kind()

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
        answered = trio.Event()
        failed = []

        def done(reply, payload):
            try:
                self.take(request, reply)
            except (AssertionError, TideError) as error:
                failed.append(error)
            answered.set()

        self.who.peer.post(request, mutation=mutation, done=done)
        await answered.wait()
        if failed:
            raise failed[0]

    def take(self, request, reply):
        if isinstance(reply, TideError):
            if reply.code not in (Code.NO_ENTRY, Code.EXISTS):
                raise reply
            return
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
    promised = sum(asker.promised for asker in askers)
    recalled = sum(len(who.recalled) for who in sessions)
    assert promised > STEPS
    assert recalled > STEPS
