"""One run of a litmus test: does the steps in their order or at the same time, and notes them."""

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from ...fs.ports.clock import Clock
from .actor import Actor
from .lanes import Lane, at_once
from .model import ERROR_PREFIX, Event, Litmus, Run, Trips, outcome_of
from .stats import Meter
from .steps import KillLeader, Race, Step, Until

UNTIL_MAX_MS = 10_000
"""So long it is looked whether something old is still shown."""
LOOK_EVERY_MS = 5
HEAD_STARTS_MS = (0, 1, 2, 5, 10, 20, 40)
"""What the others of a race have before one of the mounts: each has its turn, again and again."""
LEADER_DIES = "the leader is killed"


class Faults(Protocol):
    """What may happen to the servers."""

    def kill_leader(self) -> None:
        """Kill the metaserver that leads; it is started again meanwhile."""
        ...

    def now_and_then(self) -> bool:
        """Before a step: perhaps do it; whether it was done."""
        ...


class Stage(NamedTuple):
    """What a run works with. A lane, an actor and a mount point for each mount."""

    lanes: Sequence[Lane]
    actors: Sequence[Actor]
    points: Sequence[Path]
    clock: Clock
    faults: Faults


class _Look(NamedTuple):
    seen: str
    began_us: int
    ended_us: int


class OneRun:
    """Run ``number`` of the test, from 0."""

    def __init__(self, stage: Stage, test: Litmus, number: int) -> None:
        self._stage = stage
        self._test = test
        self._number = number
        self._began_ns = stage.clock.monotonic_ns()
        self._meters: Sequence[Meter] = ()
        self._events: list[Event] = []
        self._seen: dict[str, str] = {}
        self._stale_us: int | None = None
        self._fresh = True

    def run(self, *, measure: bool) -> Run:
        """All steps; with ``measure`` also those that only say how long."""
        self._make_ready()
        for part in self._test.program:
            if self._stage.faults.now_and_then():
                self._note_death(self._now_us())
            match part:
                case Step():
                    self._step(part)
                case Race():
                    self._race(part)
                case Until() if measure:
                    self._until(part)
                case KillLeader():
                    began_us = self._now_us()
                    self._stage.faults.kill_leader()
                    self._note_death(began_us)
        outcome = outcome_of(self._test, self._seen)
        return Run(outcome, self._seen, self._events, self._stale_us, self._fresh)

    def _make_ready(self) -> None:
        """What is done before, in silence, but for what fails. Time begins behind it."""
        for step in self._test.before:
            look = self._stage.lanes[step.who].do(partial(self._look, step))
            self._note(step._replace(seen=""), look)
        self._meters = [
            lane.do(partial(Meter, point))
            for lane, point in zip(self._stage.lanes, self._stage.points, strict=True)
        ]
        self._began_ns = self._stage.clock.monotonic_ns()

    def _now_us(self) -> int:
        return (self._stage.clock.monotonic_ns() - self._began_ns) // 1_000

    def _note_death(self, began_us: int) -> None:
        self._events.append(Event(None, LEADER_DIES, "", began_us, self._now_us()))

    def _trips(self, who: int) -> Trips | None:
        return self._stage.lanes[who].do(self._meters[who].read)

    def _look(self, step: Step | Until) -> _Look:
        """Do it, in the lane of its mount."""
        began_us = self._now_us()
        seen = self._stage.actors[step.who].do(step.action)
        return _Look(seen, began_us, self._now_us())

    def _note(self, step: Step, look: _Look) -> None:
        if step.seen or look.seen.startswith(ERROR_PREFIX):
            self._seen[step.seen or step.action.words] = look.seen

    def _step(self, step: Step) -> None:
        look = self._stage.lanes[step.who].do(partial(self._look, step))
        trips = self._trips(step.who)
        self._note(step, look)
        self._events.append(Event(step.who, step.action.words, *look, trips))

    def _race(self, race: Race) -> None:
        runners = sorted({step.who for step in race.steps})

        def run(who: int) -> list[tuple[Step, _Look]]:
            threading.Event().wait(head_start_ms(who, len(runners), self._number) / 1000)
            return [(step, self._look(step)) for step in race.steps if step.who == who]

        done = at_once([(self._stage.lanes[who], partial(run, who)) for who in runners])
        events: list[Event] = []
        for who, looks in zip(runners, done, strict=True):
            trips = self._trips(who)
            for step, look in looks:
                self._note(step, look)
                events.append(Event(who, step.action.words, *look, raced=True))
            events[-1] = events[-1]._replace(trips=trips, trips_of=len(looks))
        self._events += sorted(events, key=lambda event: event.began_us)

    def _until(self, until: Until) -> None:
        """How long after the last step of another mount the old state is still shown, at least."""
        changed_us = max(event.ended_us for event in self._events if event.who != until.who)
        looks = self._stage.lanes[until.who].do(partial(self._look_until, until))
        trips = self._trips(until.who)
        first, last = looks[0], looks[-1]
        earlier = [
            _Look(event.seen, event.began_us, event.ended_us)
            for event in self._events
            if event.words == until.action.words and event.began_us >= changed_us
        ]
        stale = [look.ended_us for look in (*earlier, *looks) if look.seen != until.wanted]
        self._stale_us = max(stale, default=changed_us) - changed_us
        self._fresh = last.seen == until.wanted
        if len(looks) == 1:
            return  # it is fresh at once: there is nothing to tell
        words = f"{until.action.words} again and again"
        event = Event(until.who, words, last.seen, first.began_us, last.ended_us, trips)
        self._events.append(event._replace(looks=len(looks)))

    def _look_until(self, until: Until) -> list[_Look]:
        looks = [self._look(until)]
        while looks[-1].seen != until.wanted:
            if looks[-1].ended_us - looks[0].began_us > UNTIL_MAX_MS * 1_000:
                break
            threading.Event().wait(LOOK_EVERY_MS / 1000)
            looks.append(self._look(until))
        return looks


def head_start_ms(who: int, mounts: int, number: int) -> int:
    """How long mount ``who`` waits in run ``number`` of a race, so that each meets all others at
    different moments. Pure."""
    turn, whose = divmod(number, mounts)
    return HEAD_STARTS_MS[turn % len(HEAD_STARTS_MS)] if who == whose else 0
