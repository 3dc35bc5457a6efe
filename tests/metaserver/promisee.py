"""A session that wants promises, and what it makes of recalls is what a test says."""

from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages import meta
from tidefs.fs.messages.base import Done
from tidefs.fs.messages.promises import Claim, Recall

from .live import Client


class Promisee(Client):
    """Believes what was promised until it is recalled; answers at once, or later, or never."""

    def __init__(self, server):
        super().__init__(server)
        self.recalled = []
        """The inodes of each Recall, in their order."""
        self.believed = {}
        """Inode to the ``change`` that was promised."""
        self.holds_back = False
        self.held_back = []
        self.fails = False

    @classmethod
    async def begin(cls, server):
        made = cls(server)
        await made.open_session()
        return made

    async def open_session(self):
        self.peer = await self.server.connect(self.handle)
        opened = await self.peer.call(meta.OpenSession(self.nonce, "here", 1, promises=True))
        self.session = opened.session

    async def resume(self, open_inodes=(), reserved=(), claims=()):
        self.believed.clear()
        self.peer = await self.server.connect(self.handle)
        request = meta.ResumeSession(
            self.session, list(open_inodes), list(reserved), False, list(claims)
        )
        return await self.peer.call(request)

    def handle(self, incoming):
        assert isinstance(incoming.request, Recall), incoming.request
        self.recalled.append(incoming.request.inodes)
        if self.fails:
            raise TideError(Code.INTERNAL, "told to fail")
        if self.holds_back:
            self.held_back.append(incoming)
        else:
            self.answer(incoming)

    def answer(self, incoming):
        for inode in incoming.request.inodes:
            self.believed.pop(inode, None)
        incoming.reply(Done())

    def answer_all(self):
        """What was held back, and from now on at once."""
        self.holds_back = False
        held_back, self.held_back = self.held_back, []
        for incoming in held_back:
            self.answer(incoming)

    async def promised(self, inode):
        """Ask for an inode, and have it promised."""
        node = await self.call(meta.GetAttributes(inode))
        assert node.promised
        return node.attributes

    async def claim(self, inode):
        return (await self.call(Claim(inode))).promised
