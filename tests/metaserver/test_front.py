"""Who answers what, and after which proof: the handler of a member's connections."""

import types

import pytest
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages import meta, raft
from tidefs.fs.messages.hello import Hello
from tidefs.metaserver.front import Front
from tidefs.metaserver.raft.contract import Role


class FakeDriver:
    def __init__(self, state):
        self.state = state
        self.core = types.SimpleNamespace(role=Role.LEADER, leader=1)
        self.term = 7
        self.confirmed = 0
        self.on_confirm = lambda: None

    async def confirm(self):
        self.confirmed += 1
        self.on_confirm()

    def deliver(self, envelope):
        self.delivered = envelope


class FakeTerm:
    """Serves by noting it."""

    def __init__(self, sure=True):
        self.number = 7
        self.sure = sure
        self.leader = types.SimpleNamespace(is_sure=lambda: self.sure)
        self.service = types.SimpleNamespace(handle=self._handle, gone=lambda peer: None)
        self.handled = []

    def _handle(self, incoming):
        self.handled.append(incoming.request)

    def during(self, answering):
        return answering


class FakeIncoming:
    def __init__(self, request, role="client"):
        self.request = request
        self.peer = types.SimpleNamespace(remote=Hello(1, 1, "c", role, 2))
        self.replies = []

    def reply(self, message, payload=()):
        self.replies.append(message)


class FakeView:
    server = 1

    def host_of(self, server):
        return f"host{server}"


class FakeGroup:
    def received(self, incoming):
        return ("envelope", incoming.request)

    def greeted(self, incoming):
        pass


class FakeReceiver:
    def handle(self, incoming):
        incoming.reply("piece")


@pytest.fixture
def driver(cluster):
    return FakeDriver(cluster.state)


@pytest.fixture
def front(driver):
    return Front(driver, FakeGroup(), FakeReceiver(), FakeView())


GET = meta.GetAttributes(1)


def test_with_a_lease_the_leader_answers_at_once(front, driver):
    term = FakeTerm()
    front.lead(term)
    assert front.handle(FakeIncoming(GET)) is None
    assert term.handled == [GET]
    assert not driver.confirmed


async def test_without_one_it_proves_first_that_it_leads(front, driver):
    term = FakeTerm(sure=False)
    front.lead(term)
    later = front.handle(FakeIncoming(GET))
    assert not term.handled
    await later
    assert driver.confirmed == 1
    assert term.handled == [GET]


async def test_who_was_deposed_meanwhile_does_not_answer(front, driver):
    term = FakeTerm(sure=False)
    front.lead(term)

    def depose():
        driver.core.role, driver.core.leader = Role.FOLLOWER, 3
        driver.term = 8

    driver.on_confirm = depose
    with pytest.raises(TideError) as caught:
        await front.handle(FakeIncoming(GET))
    assert caught.value.code is Code.NOT_LEADER
    assert "0000000000000003 on host3 does" in caught.value.detail
    assert not term.handled


async def test_the_next_term_does_not_answer_for_the_one_before(front, driver):
    term = FakeTerm(sure=False)
    front.lead(term)

    def lead_again():
        driver.term = 9

    driver.on_confirm = lead_again
    with pytest.raises(TideError) as caught:
        await front.handle(FakeIncoming(GET))
    assert caught.value.code is Code.UNAVAILABLE
    assert not term.handled


async def test_a_follower_confirms_and_reads_the_state_of_then(front, driver, new_cluster):
    driver.core.role = Role.FOLLOWER
    newer = new_cluster()
    newer.apply(meta.MakeDirectory(1, b"new", 0o755, 1, 2))

    def install():
        driver.state = newer.state

    driver.on_confirm = install
    incoming = FakeIncoming(meta.Lookup(1, b"new"))
    await front.handle(incoming)
    assert driver.confirmed == 1
    assert len(incoming.replies) == 1


@pytest.mark.parametrize(
    ("role", "leader", "code", "words"),
    [
        (Role.FOLLOWER, 3, Code.NOT_LEADER, "does not lead, metaserver 0000000000000003 on host3"),
        (Role.CANDIDATE, 0, Code.NOT_LEADER, "does not know who does"),
        (Role.LEADER, 1, Code.UNAVAILABLE, "has just been elected"),
    ],
)
@pytest.mark.parametrize(
    "request_", [meta.GetStatus(), raft.ChangeMembers([], []), meta.KeepAlive(1)], ids=repr
)
def test_the_rest_is_refused_in_words(front, driver, role, leader, code, words, request_):
    driver.core.role, driver.core.leader = role, leader
    with pytest.raises(TideError) as caught:
        front.handle(FakeIncoming(request_))
    assert caught.value.code is code
    assert words in caught.value.detail


def test_notices_go_to_consensus_whoever_leads(front, driver):
    notice = raft.Heartbeat(1, 0, 1)
    front.handle(FakeIncoming(notice, "metaserver"))
    assert driver.delivered == ("envelope", notice)


def test_snapshots_go_to_the_receiver(front):
    incoming = FakeIncoming(raft.OfferSnapshot(1, 1, 1, 1), "metaserver")
    front.handle(incoming)
    assert incoming.replies == ["piece"]
