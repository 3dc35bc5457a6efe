"""kill -9 of whoever leads a group, on a fixed clock; the killed one is started again meanwhile.

Kill number n is due n * EVERY_S after the start. It happens when every member answers, a majority
names the same leader in the same term, and every application runs; the clock does not wait for
that for longer than LATE_MAX_S.
"""

import os
import signal
from dataclasses import dataclass
from typing import NamedTuple, Never

import trio
from load import PROGRAMS, Load
from stage import CampaignError, Stage, alive, say
from tidefs.deploy.ask import Asker, asking
from tidefs.deploy.members import LEADER
from tidefs.deploy.target import Target
from tidefs.fs.errors import TideError
from tidefs.fs.messages.hello import METASERVER
from tidefs.fs.messages.raft import GetMember, MemberStatus

EVERY_S = 5.0
COUNT = 10
LATE_MAX_S = 0.5
ASK_MS = 250
LOOK_EVERY_S = 0.02


@dataclass
class Kill:
    """One kill; times count from the start of the clock, in s."""

    number: int
    name: str
    term: int
    at_s: float
    answer_age_ms: float
    """How long before the kill the members were asked who leads."""
    next_leader_s: float | None = None
    back_s: float | None = None

    @property
    def due_s(self) -> float:
        """When it was to happen."""
        return self.number * EVERY_S

    @property
    def sentence(self) -> str:
        """For people."""
        return (
            f"kill {self.number:2}, due at {self.due_s:.1f} s: at {self.at_s:.3f} s, of"
            f" {self.name}, which led in term {self.term} (asked {self.answer_age_ms:.1f} ms"
            f" before); {self._later('the next leader was seen', self.next_leader_s)},"
            f" {self._later(f'{self.name} was back', self.back_s)}"
        )

    def _later(self, what: str, when_s: float | None) -> str:
        return f"{what} {'never' if when_s is None else f'{when_s - self.at_s:.2f} s later'}"


class Victim(NamedTuple):
    """Who leads, and when that was asked."""

    status: MemberStatus
    asked_s: float


def kill_leaders(cluster: Stage, load: Load) -> None:
    """COUNT kills while ``load`` is at work. CampaignError, in words: a kill did not happen in
    time, a member did not come back, nobody led, or an application complained."""
    target = Target(str(cluster.cluster))
    kills: list[Kill] = []

    async def work(asker: Asker) -> None:
        await _Clock(cluster, load, target, asker, kills).run()

    try:
        asking(target.cluster_id, work)
    except BaseExceptionGroup as group:
        _raise_first(group)
    finally:
        for kill in kills:
            say(kill.sentence)
    late_ms = [(kill.at_s - kill.due_s) * 1000 for kill in kills]
    say(
        f"{len(kills)} kills, {min(late_ms):.0f} to {max(late_ms):.0f} ms after they were due;"
        f" {', '.join(sorted(PROGRAMS))} ran at each"
    )


def _raise_first(group: BaseExceptionGroup[BaseException]) -> Never:
    """What went wrong first, without the groups around it."""
    found: BaseException = group.subgroup(CampaignError) or group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    raise found from None


class _Clock:
    def __init__(
        self, cluster: Stage, load: Load, target: Target, asker: Asker, kills: list[Kill]
    ) -> None:
        assert target.cluster is not None
        self._cluster = cluster
        self._load = load
        self._target = target
        self._asker = asker
        self._kills = kills
        self._start_s = 0.0
        local = target.cluster
        self._places = [local.place(member) for member in local.file.of(METASERVER)]

    async def run(self) -> None:
        """From the moment that all applications are at work until EVERY_S after the last kill."""
        while self._load.at_work != PROGRAMS:
            await self._pause()
        self._start_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(1, COUNT + 1):
                await self._work_until(number * EVERY_S)
                kill, pid = await self._kill(number)
                nursery.start_soon(self._look_for_another, kill)
                nursery.start_soon(self._bring_back, kill, pid)
            await self._work_until((COUNT + 1) * EVERY_S)

    @property
    def _now_s(self) -> float:
        return trio.current_time() - self._start_s

    async def _pause(self) -> None:
        self._load.check()
        await trio.sleep(LOOK_EVERY_S)

    async def _work_until(self, at_s: float) -> None:
        while self._now_s < at_s - LOOK_EVERY_S:
            await self._pause()
        await trio.sleep_until(self._start_s + at_s)

    async def _kill(self, number: int) -> tuple[Kill, int]:
        due_s = number * EVERY_S
        while True:
            victim = await self._victim()
            if self._now_s > due_s + LATE_MAX_S:
                why = victim if isinstance(victim, str) else "this campaign was not quick enough"
                raise CampaignError(
                    f"kill {number} was due at {due_s:.1f} s and could not happen within"
                    f" {LATE_MAX_S} s: {why}"
                )
            if isinstance(victim, Victim):
                break
            await self._pause()
        os.kill(victim.status.pid, signal.SIGKILL)
        at_s = self._now_s
        kill = Kill(
            number=number,
            name=self._target.name_of(victim.status.server),
            term=victim.status.term,
            at_s=at_s,
            answer_age_ms=(at_s - victim.asked_s) * 1000,
        )
        self._kills.append(kill)
        say(f"kill {number}: {kill.name} led in term {kill.term}")
        return kill, victim.status.pid

    async def _victim(self) -> Victim | str:
        """Who is to be killed now, or why nobody can be."""
        asked_s = self._now_s
        found = await self._ask_all()
        if silent := [place.server for place in self._places if place.server not in found]:
            return f"{', '.join(map(self._target.name_of, silent))} did not answer"
        leader = _leader(found)
        if leader is None:
            return "nobody leads"
        wanted = (leader.server, leader.term)
        agreed = sum((one.leader, one.term) == wanted for one in found.values())
        if 2 * agreed <= len(found):
            return f"only {agreed} of {len(found)} say that {self._target.name_of(wanted[0])} leads"
        if idle := PROGRAMS - self._load.at_work:
            return f"{', '.join(sorted(idle))} did not run"
        return Victim(leader, asked_s)

    async def _ask_all(self) -> dict[int, MemberStatus]:
        """What those say that answer within ASK_MS, by id."""
        found: dict[int, MemberStatus] = {}

        async def ask(server: int, addresses: list[str]) -> None:
            try:
                status = await self._asker.ask(addresses, GetMember(), timeout_ms=ASK_MS)
            except TideError:
                return  # being started, or just killed: who calls sees that it is missing
            found[server] = status

        async with trio.open_nursery() as nursery:
            for place in self._places:
                nursery.start_soon(ask, place.server, list(place.addresses))
        return found

    async def _look_for_another(self, kill: Kill) -> None:
        """Until a member leads in a later term; the next kill complains when there is none."""
        while True:
            leader = _leader(await self._ask_all())
            if leader is not None and leader.term > kill.term:
                break
            await self._pause()
        kill.next_leader_s = self._now_s

    async def _bring_back(self, kill: Kill, pid: int) -> None:
        """`tidefs up`, beside the clock."""
        while alive(pid):
            await self._pause()
        await trio.to_thread.run_sync(self._cluster.up)
        kill.back_s = self._now_s


def _leader(found: dict[int, MemberStatus]) -> MemberStatus | None:
    """One that was cut off may still believe that it leads: the highest term counts."""
    leaders = [one for one in found.values() if one.role == LEADER]
    return max(leaders, key=lambda one: one.term, default=None)
