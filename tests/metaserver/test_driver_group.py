"""Drivers of one group: who answers what when leaders come and go, disks fill up, members lag."""

import pytest
import trio
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import APPEND_MAX_BYTES, MIB
from tidefs.fs.messages.meta import Entry, MakeDirectory
from tidefs.fs.messages.places import ServerPlace
from tidefs.fs.messages.raft import Append, AppendReply, AskReadIndex, Heartbeat, HeartbeatReply
from tidefs.metaserver import applying, feeding
from tidefs.metaserver.entries import StartSession
from tidefs.metaserver.proposing import Origin
from tidefs.metaserver.raft.contract import Envelope, Role

from .drivers import Members, formatted
from .live import until


def mkdir(name: str) -> MakeDirectory:
    return MakeDirectory(1, name.encode(), 0o755, 0, 0)


class Answers:
    def __init__(self):
        self.outcomes = []

    def __call__(self, outcome, index):
        self.outcomes.append(outcome)

    async def wait(self, count):
        await until(lambda: len(self.outcomes) >= count)

    def codes(self):
        return [getattr(outcome, "code", None) for outcome in self.outcomes]


async def test_three_members_hold_the_same(nursery, autojump_clock):
    members = Members(nursery, 3)
    leader = await formatted(members)
    for number in range(20):
        await leader.perform(mkdir(f"d{number}"))
    await members.settle()
    for driver in members.drivers.values():
        assert len(driver.state.listing(1, 0, 100).entries) == 20
        assert driver.state.tables.servers.group().voters == [1, 2, 3]


async def test_many_proposals_share_syncs_on_every_member(nursery, autojump_clock):
    members = Members(nursery, 3)
    leader = await formatted(members)
    await members.settle()
    for disk in members.disks.values():
        disk.syncs.clear()
    answers = Answers()
    for number in range(64):
        leader.propose(mkdir(f"d{number}"), answers)
    await answers.wait(64)
    await members.settle()
    for disk in members.disks.values():
        assert len(disk.syncs) <= 4


async def test_only_the_leader_acts_on_effects(nursery, autojump_clock):
    members = Members(nursery, 3)
    leader = await formatted(members)
    seen = {server: [] for server in members.drivers}
    for server, driver in members.drivers.items():
        driver.on_effects = seen[server].extend
    await leader.perform(StartSession(bytes(16), "here", 1))
    await members.settle()
    (active,) = [server for server, effects in seen.items() if effects]
    assert active == members.id_of(leader)


# --- leaders come and go -------------------------------------------------------------------------


async def test_a_leader_that_is_cut_off_answers_that_it_does_not_lead(nursery, autojump_clock):
    """What it could not commit has an unknown fate; the next leader gives the first answer."""
    members = Members(nursery, 3)
    leader = await formatted(members)
    opened = await leader.perform(StartSession(bytes(16), "here", 1))
    origin = Origin(opened.session, 0, 1)
    old_term = leader.term
    members.isolate(members.id_of(leader))
    answers = Answers()
    leader.propose(mkdir("lost"), answers, origin=origin)
    await leader.wait_not_leading(old_term)
    await answers.wait(1)
    assert answers.codes() == [Code.NOT_LEADER]
    with pytest.raises(TideError) as caught:
        await leader.perform(mkdir("more"))
    assert caught.value.code is Code.NOT_LEADER

    then = await members.leader(but=members.id_of(leader))
    assert then.term > old_term
    then.propose(mkdir("lost"), answers, origin=origin)
    await answers.wait(2)
    assert isinstance(answers.outcomes[1], Entry)
    members.heal()
    await members.settle()
    assert leader.core.leader == members.id_of(then)
    with pytest.raises(TideError, match=r"metaserver 0{15}\d leads|leads"):
        await leader.perform(mkdir("more"))


async def test_an_answer_that_was_lost_is_given_by_the_next_leader(nursery, autojump_clock):
    """The entry was committed; whoever asked was told NOT_LEADER, or nothing: the same answer."""
    members = Members(nursery, 3)
    leader = await formatted(members)
    opened = await leader.perform(StartSession(bytes(16), "here", 1))
    answers = Answers()
    origin = Origin(opened.session, 3, 7)
    leader.propose(mkdir("once"), answers, origin=origin)
    await answers.wait(1)
    members.stop(members.id_of(leader))
    then = await members.leader()
    then.propose(mkdir("once"), answers, origin=origin)
    await answers.wait(2)
    assert answers.outcomes[0] == answers.outcomes[1]


async def test_time_goes_on_whoever_leads(nursery, autojump_clock):
    members = Members(nursery, 3)
    leader = await formatted(members)
    members.clock.wall = 9_000
    await leader.perform(mkdir("a"))
    members.clock.wall = 10
    await members.settle()
    members.stop(members.id_of(leader))
    then = await members.leader()
    await then.perform(mkdir("b"))
    times = [then.state.lookup(1, name).attributes.ctime_ns for name in (b"a", b"b")]
    assert times == [9_000, 9_001]


async def test_all_members_lose_their_power_at_once(nursery, autojump_clock):
    members = Members(nursery, 3)
    leader = await formatted(members)
    for number in range(30):
        await leader.perform(mkdir(f"d{number}"))
        if number % 10 == 9:
            for server in (1, 2, 3):
                members.stop(server)
            await members.start()
            leader = await members.leader()
    assert len(leader.state.listing(1, 0, 100).entries) == 30
    await members.settle()


async def test_leadership_is_handed_over(nursery, autojump_clock):
    members = Members(nursery, 3)
    leader = await formatted(members)
    old_term, began = leader.term, trio.current_time()
    other = members.others(leader)[0]
    await leader.transfer(members.id_of(other))
    assert leader.core.leader == members.id_of(other)
    assert trio.current_time() - began < 0.25, "no time-out had to pass"
    await leader.wait_not_leading(old_term)
    await other.wait_leading()
    await other.perform(mkdir("a"))
    await other.transfer(0)
    then = await members.leader(but=members.id_of(other))
    assert then is not other
    with pytest.raises(TideError) as caught:
        await other.transfer(0)
    assert caught.value.code is Code.NOT_LEADER


async def test_a_voter_that_does_not_answer_does_not_take_over(nursery, autojump_clock):
    members = Members(nursery, 3)
    leader = await formatted(members)
    other = members.id_of(members.others(leader)[0])
    members.stop(other)
    with pytest.raises(TideError, match="has not taken over") as caught:
        await leader.transfer(other)
    assert caught.value.code is Code.UNAVAILABLE
    await leader.perform(mkdir("a"))


# --- strong reads --------------------------------------------------------------------------------


async def test_the_lease_answers_strong_reads_at_once(nursery, autojump_clock):
    members = Members(nursery, 3)
    leader = await formatted(members)
    await until(leader.lease_holds)
    began = trio.current_time()
    await leader.confirm()
    assert trio.current_time() == began


async def test_followers_confirm_through_the_leader(nursery, autojump_clock):
    members = Members(nursery, 3)
    leader = await formatted(members)
    follower = members.others(leader)[0]
    await members.settle()
    members.sent.clear()
    name = 0
    for name in range(5):
        await leader.perform(mkdir(f"d{name}"))
        await follower.confirm()
        assert follower.state.lookup(1, f"d{name}".encode())
    assert not follower.lease_holds()
    assert any(isinstance(one.message, AskReadIndex) for one in members.sent)


async def test_many_reads_share_a_question(nursery, autojump_clock):
    members = Members(nursery, 3)
    leader = await formatted(members)
    follower = members.others(leader)[0]
    await members.settle()
    members.sent.clear()
    async with trio.open_nursery() as readers:
        for _ in range(100):
            readers.start_soon(follower.confirm)
    questions = [one for one in members.sent if isinstance(one.message, AskReadIndex)]
    assert len(questions) <= 2


async def test_nobody_confirms_without_a_majority(nursery, autojump_clock):
    members = Members(nursery, 3)
    leader = await formatted(members)
    follower = members.others(leader)[0]
    for server in members.disks:
        members.isolate(server)
    for driver in (leader, follower):
        await until(lambda driver=driver: not driver.lease_holds())
        with trio.fail_after(2), pytest.raises(TideError) as caught:
            await driver.confirm()
        assert caught.value.code in (Code.UNAVAILABLE, Code.NOT_LEADER)


async def test_a_read_on_a_leader_that_was_replaced_is_not_answered(nursery, autojump_clock):
    members = Members(nursery, 3)
    leader = await formatted(members)
    old = members.id_of(leader)
    members.isolate(old)
    outcome = []

    async def read():
        while True:
            try:
                await leader.confirm()
                outcome.append(leader.state.lookup(1, b"new"))
                return
            except TideError:
                await trio.sleep(0.05)

    then = await members.leader(but=old)
    nursery.start_soon(read)
    await then.perform(mkdir("new"))
    await trio.sleep(1)
    assert not outcome
    members.heal()
    await until(lambda: outcome)


async def test_the_lease_shows_nothing_older_than_what_a_follower_has_shown(
    nursery, autojump_clock
):
    """A follower's read may be answered while the leader has yet to apply what it has committed."""
    members = Members(nursery, 3)
    leader = await formatted(members)
    follower = members.others(leader)[0]
    await members.settle()
    held, deliver = [], leader.deliver
    leader.deliver = held.append
    leader.propose(mkdir("x"), Answers())
    seen = trio.Event()

    async def read():
        await follower.confirm()
        seen.set()

    nursery.start_soon(read)
    for kind in (AppendReply, AskReadIndex):
        await until(lambda kind=kind: any(isinstance(one.message, kind) for one in held))
    apply, slow = leader._applier.apply_slice, trio.Event()

    async def apply_slowly():
        await slow.wait()
        await apply()

    leader._applier.apply_slice = apply_slowly
    leader.deliver = deliver
    for envelope in held:
        deliver(envelope)
    await seen.wait()
    assert follower.state.lookup(1, b"x")
    nursery.start_soon(_set_later, slow)
    await leader.confirm()
    assert leader.state.lookup(1, b"x")


async def _set_later(event):
    await trio.sleep(0.05)
    event.set()


# --- who lags ------------------------------------------------------------------------------------


async def test_records_that_are_not_in_memory_come_from_the_log(
    nursery, autojump_clock, monkeypatch
):
    monkeypatch.setattr(feeding, "TAIL_MAX_RECORDS", 16)
    members = Members(nursery, 3)
    leader = await formatted(members)
    behind = members.id_of(members.others(leader)[0])
    members.stop(behind)
    for number in range(300):
        await leader.perform(mkdir(f"d{number}"))
    await members.start(behind)
    await members.settle()
    assert len(members.drivers[behind].state.listing(1, 0, 1000).entries) == 300
    assert leader.leads()


async def test_appends_are_split_by_their_bytes(nursery, autojump_clock):
    members = Members(nursery, 3)
    leader = await formatted(members)
    behind = members.id_of(members.others(leader)[0])
    members.stop(behind)
    answers = Answers()
    for number in range(8):
        leader.propose(mkdir(f"d{number}"), answers, payload=bytes(400_000))
    leader.propose(mkdir("large"), answers, payload=bytes(3 * MIB))
    await answers.wait(9)
    members.sent.clear()
    await members.start(behind)
    await members.settle()
    sizes = [
        sum(len(record.body) for record in one.records)
        for one in members.sent
        if isinstance(one.message, Append) and len(one.records) > 1
    ]
    assert max(sizes) <= APPEND_MAX_BYTES
    for one in members.sent:
        if isinstance(one.message, Append):
            assert one.message.count == len(one.records)
            indexes = [record.index for record in one.records]
            first = one.message.previous_index + 1
            assert indexes == list(range(first, first + len(indexes)))


async def test_who_has_much_to_apply_still_answers_heartbeats(nursery, autojump_clock, monkeypatch):
    """It is restarted with a long log and no state: 2,000 entries, in slices of 10."""
    monkeypatch.setattr(applying, "SLICE_ENTRIES", 10)
    members = Members(nursery, 3)
    leader = await formatted(members)
    answers = Answers()
    for number in range(2_000):
        leader.propose(mkdir(f"d{number}"), answers)
    await answers.wait(2_000)
    await members.settle()
    behind = members.id_of(members.others(leader)[0])
    members.stop(behind)
    await members.start(behind)
    driver = members.drivers[behind]
    beat = Envelope(members.id_of(leader), behind, Heartbeat(leader.term, 0, 1))
    answered = []
    send = driver.send

    def ask():
        if driver.state.totals.applied_index == 100:
            driver.deliver(beat)

    def note(envelopes):
        answered.extend(
            driver.state.totals.applied_index
            for one in envelopes
            if isinstance(one.message, HeartbeatReply)
        )
        send(envelopes)

    driver.on_applied, driver.send = ask, note
    await members.settle()
    assert any(100 <= index <= 200 for index in answered)


# --- full disks ----------------------------------------------------------------------------------


async def test_a_leader_whose_disk_is_full_lets_another_lead(nursery, autojump_clock):
    """Its records may be on the others' disks: so those it was asked for are of unknown fate."""
    members = Members(nursery, 3)
    leader = await formatted(members)
    disk = members.disks[members.id_of(leader)]
    disk.capacity_bytes = disk.used_bytes
    answers = Answers()
    for number in range(40):
        leader.propose(mkdir(f"d{number}"), answers, payload=b"x" * 8_000)
    await answers.wait(40)
    refused = {code for code in answers.codes() if code is not None}
    assert refused == {Code.NOT_LEADER}
    then = await members.leader(but=members.id_of(leader))
    await then.perform(mkdir("after"))
    disk.capacity_bytes *= 10
    await members.settle()


async def test_a_follower_whose_disk_is_full_does_no_harm(nursery, autojump_clock):
    members = Members(nursery, 3)
    leader = await formatted(members)
    behind = members.others(leader)[0]
    disk = members.disks[members.id_of(behind)]
    disk.capacity_bytes = disk.used_bytes
    answers = Answers()
    for number in range(40):
        leader.propose(mkdir(f"d{number}"), answers, payload=b"x" * 8_000)
    await answers.wait(40)
    assert set(answers.codes()) == {None}
    assert leader.leads()
    assert behind.core.role is Role.FOLLOWER
    disk.capacity_bytes *= 10
    await leader.perform(mkdir("after"))
    await members.settle()


# --- members -------------------------------------------------------------------------------------


async def test_members_come_and_go(nursery, autojump_clock):
    members = Members(nursery, 1)
    leader = await formatted(members)
    await members.start(2, 3)
    places = [ServerPlace(server, "", []) for server in (1, 2, 3)]
    await leader.change_members([1], [2, 3], places)
    await members.settle()
    await leader.change_members([1, 2, 3], [], places)
    await leader.perform(mkdir("a"))
    await members.settle()
    assert members.drivers[2].core.role is Role.FOLLOWER
    await leader.change_members([2], [], [places[1]])
    then = await members.leader(but=1)
    assert members.id_of(then) == 2
    assert then.state.tables.servers.group().voters == [2]
    await then.perform(mkdir("b"))
    assert not leader.leads()


async def test_a_change_of_members_that_cannot_be_is_refused_in_words(nursery, autojump_clock):
    members = Members(nursery, 1)
    leader = await formatted(members)
    places = [ServerPlace(server, "", []) for server in (1, 2)]
    with pytest.raises(TideError) as caught:
        await leader.change_members([1, 2], [], places)
    assert caught.value.code is Code.INVALID


async def test_a_change_that_loses_its_leader_says_so(nursery, autojump_clock):
    members = Members(nursery, 3)
    leader = await formatted(members)
    members.isolate(members.id_of(leader))
    with trio.fail_after(10), pytest.raises(TideError) as caught:
        await leader.change_members([members.id_of(leader)], [], [])
    assert caught.value.code in (Code.NOT_LEADER, Code.INVALID)


async def test_what_a_member_is_told_wrongly_is_logged_once(nursery, autojump_clock, caplog):
    members = Members(nursery, 3)
    leader = await formatted(members)
    other = members.others(leader)[0]
    stray = Envelope(members.id_of(other), 99, Heartbeat(term=1, commit_index=0, round=1))
    for _ in range(5):
        leader.deliver(stray)
    await leader.perform(mkdir("a"))
    assert caplog.text.count("is refused") == 1


async def test_what_is_committed_is_answered_before_the_next_sync(nursery, autojump_clock):
    """The next batch is on its way to the disk when the last one is known to be committed."""
    members = Members(nursery, 3)
    leader = await formatted(members)
    await members.settle()
    held = []
    deliver = leader.deliver
    leader.deliver = held.append
    first, second = Answers(), Answers()
    leader.propose(mkdir("first"), first)
    await until(lambda: any(isinstance(one.message, AppendReply) for one in held))
    disk = members.disks[members.id_of(leader)]
    disk.sync_gate = trio.Event()
    leader.propose(mkdir("second"), second)
    for envelope in held:
        deliver(envelope)
    leader.deliver = deliver
    await trio.testing.wait_all_tasks_blocked()
    assert len(first.outcomes) == 1
    assert not second.outcomes
    disk.sync_gate.set()
    await second.wait(1)
