"""What kind of run one seed is. Drawn differently for every seed: swarm testing."""

import random
from ast import literal_eval
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

from tidefs.client.modes import MODES, Ground

from .nemesis import CHUNK_FAULTS, FAULTS, POWER_FAULTS
from .nemesis_locks import LOCK_FAULTS

KIB = 1024
LOCKS_IN = 0.3
"""So many runs are about locks."""
WITNESSES_IN = 0.15
"""So many of the others are about mounts that work on the same files."""

LINEARIZABLE = tuple(
    name for name, mode in MODES.items() if mode.promises or mode.attributes.ground is Ground.NEVER
)
"""The modes in which nothing is believed that is not true."""


class Patience(NamedTuple):
    """How often a leader is heard, and how long a follower waits for it, in milliseconds."""

    heartbeat_ms: int
    election_ms: int


@dataclass(frozen=True)
class Options:
    """Fewer kinds of faults in one run let it get further; over many runs all meet.

    ``clients`` with ``applications`` and ``rivals`` use mounts and chunkservers; ``callers`` ask
    only the metaservers. A run has either, or both.
    """

    members: int
    patience: Patience
    checkpoint_entries: int
    log_segment_bytes: int
    kept_state: bool
    callers: int
    calls: int
    mode: str
    chunkservers: int
    replicas: int
    clients: int
    applications: int
    rivals: int
    steps: int
    wandering: bool
    think_max_s: float
    faults: tuple[str, ...]
    pause_max_s: float
    one_stays_down: bool
    lock_callers: int = 0
    lockers: int = 0
    counters: int = 0
    appenders: int = 0
    name_witnesses: int = 0
    byte_witnesses: int = 0
    attribute_witnesses: int = 0

    @property
    def sharers(self) -> int:
        """Applications that share files under locks."""
        return self.lockers + self.counters + self.appenders

    @property
    def witnesses(self) -> int:
        """Applications whose calls, on all mounts, must be linearizable."""
        return self.name_witnesses + self.byte_witnesses + self.attribute_witnesses

    @classmethod
    def draw(
        cls,
        chance: random.Random,
        of_locks: random.Random | None,
        of_mounts: random.Random | None = None,
    ) -> "Options":
        """One of everything. ``of_locks``: whether it is about locks, and how; None: it is not.
        ``of_mounts``: the same of mounts that work on the same files."""
        options = cls._draw(chance)
        if of_locks is not None and of_locks.random() < LOCKS_IN:
            return options._with_locks(of_locks)
        if of_mounts is not None and of_mounts.random() < WITNESSES_IN:
            return options._with_witnesses(of_mounts)
        return options

    @classmethod
    def _draw(cls, chance: random.Random) -> "Options":
        calling = chance.random() < 0.65
        mounting = not calling or chance.random() < 0.3
        replicas = chance.choice((1, 2, 3))
        clients = chance.choice((1, 1, 2, 3)) if mounting else 0
        return cls(
            members=chance.choice((1, 3, 3, 3, 3, 5)),
            patience=chance.choice((Patience(150, 600), Patience(250, 1000), Patience(400, 1600))),
            checkpoint_entries=chance.choice((10, 30, 100)),
            log_segment_bytes=chance.choice((1, 2, 8)) * KIB,
            kept_state=chance.random() < 0.5,
            callers=chance.choice((2, 3, 4)) if calling else 0,
            calls=chance.choice((50, 100, 150)),
            mode=chance.choice(("nfs", "uncached")),
            chunkservers=replicas + chance.choice((0, 0, 1)) if mounting else 0,
            replicas=replicas,
            clients=clients,
            applications=clients + chance.choice((0, 1)) if mounting else 0,
            rivals=chance.choice((0, 0, 2, 3)) if mounting else 0,
            steps=chance.choice((20, 40, 80)),
            wandering=chance.random() < 0.4,
            think_max_s=chance.choice((0.02, 0.1, 0.3)),
            faults=_draw_faults(chance, mounting=mounting),
            pause_max_s=chance.choice((0.2, 0.6, 2.0)),
            one_stays_down=chance.random() < 0.5,
        )

    def _with_locks(self, chance: random.Random) -> "Options":
        """Files are shared under locks, and nothing else is done; or names and registers beside
        locks, without mounts."""
        if not self.clients or (self.callers and chance.random() < 0.5):
            some = replace(self, clients=0, applications=0, rivals=0, chunkservers=0)
            calling = _draw_faults(chance, mounting=False)
            return replace(some, callers=0, lock_callers=chance.choice((2, 3, 4)), faults=calling)
        faults = _draw_faults(chance, mounting=True)
        return replace(
            self,
            callers=0,
            applications=0,
            rivals=0,
            clients=chance.choice((2, 2, 3)),
            lockers=chance.choice((0, 2, 3, 4)),
            counters=chance.choice((0, 2, 3)),
            appenders=chance.choice((0, 2, 3)),
            steps=chance.choice((10, 20, 40)),
            faults=(*faults, *chance.sample(LOCK_FAULTS, chance.choice((0, 1, len(LOCK_FAULTS))))),
        )

    def _with_witnesses(self, chance: random.Random) -> "Options":
        """Two or three mounts, and about as many who work on the same names, bytes, attributes."""
        faults = _draw_faults(chance, mounting=True)
        lost = chance.sample(LOCK_FAULTS, chance.choice((0, 1, len(LOCK_FAULTS))))
        counts = [chance.choice((0, 2, 3, 4)) for _ in range(3)]
        return replace(
            self,
            callers=0,
            applications=0,
            rivals=0,
            mode=chance.choice(LINEARIZABLE),
            chunkservers=self.replicas + chance.choice((0, 0, 1)),
            clients=chance.choice((2, 2, 3)),
            name_witnesses=counts[0],
            byte_witnesses=counts[1],
            attribute_witnesses=counts[2] if any(counts[:2]) else 3,
            steps=chance.choice((20, 40, 60)),
            think_max_s=chance.choice((0.01, 0.05, 0.3, 1.0)),
            faults=(*faults, *lost),
        )

    def changed(self, text: str) -> "Options":
        """As ``key=value,key=value`` says, for numbers and words."""
        kinds = {key: type(value) for key, value in asdict(self).items()}
        pairs = [pair.split("=") for pair in text.split(",")]
        return replace(self, **{key: kinds[key](literal_eval(value)) for key, value in pairs})

    def with_faults(self, names: str) -> "Options":
        """Only these faults (names, or ``power`` for all machines at once), and work for them."""
        faults = POWER_FAULTS if names == "power" else tuple(names.split(","))
        unknown = {*faults} - {*FAULTS, *LOCK_FAULTS}
        assert not unknown, f"unknown: {unknown}"
        return replace(self, faults=faults, think_max_s=0.1)


def _draw_faults(chance: random.Random, *, mounting: bool) -> tuple[str, ...]:
    """Some of those that there is something for, and members that change more often than not."""
    possible = [fault for fault in FAULTS if mounting or fault not in CHUNK_FAULTS]
    faults = chance.sample(possible, chance.choice((0, 1, 2, 3, 4, 6, 8, len(possible))))
    if faults and chance.random() < 0.5:
        faults += ["change_members"] * (1 + len(faults) // 4)
    return tuple(faults)
