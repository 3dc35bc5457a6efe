"""What kind of run one seed is. Drawn differently for every seed: swarm testing."""

import random
from ast import literal_eval
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

from .nemesis import FAULTS, POWER_FAULTS

KIB = 1024


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

    @classmethod
    def draw(cls, chance: random.Random) -> "Options":
        """One of everything."""
        calling = chance.random() < 0.65
        mounting = not calling or chance.random() < 0.3
        replicas = chance.choice((1, 2, 3))
        clients = chance.choice((1, 1, 2, 3)) if mounting else 0
        return cls(
            members=chance.choice((1, 3, 3, 3, 3, 5)),
            patience=chance.choice((Patience(150, 600), Patience(250, 1000), Patience(400, 1600))),
            checkpoint_entries=chance.choice((20, 60, 300)),
            log_segment_bytes=chance.choice((4, 16, 128)) * KIB,
            kept_state=chance.random() < 0.5,
            callers=chance.choice((2, 3, 4)) if calling else 0,
            calls=chance.choice((30, 60, 100)),
            mode=chance.choice(("nfs", "uncached")),
            chunkservers=replicas + chance.choice((0, 0, 1)) if mounting else 0,
            replicas=replicas,
            clients=clients,
            applications=clients + chance.choice((0, 1)) if mounting else 0,
            rivals=chance.choice((0, 0, 2, 3)) if mounting else 0,
            steps=chance.choice((20, 40, 80)),
            wandering=chance.random() < 0.4,
            think_max_s=chance.choice((0.01, 0.1, 0.5)),
            faults=tuple(chance.sample(FAULTS, chance.choice((0, 1, 2, 3, 4, 6, len(FAULTS))))),
            pause_max_s=chance.choice((0.3, 1.0, 3.0)),
            one_stays_down=chance.random() < 0.5,
        )

    def changed(self, text: str) -> "Options":
        """As ``key=value,key=value`` says, for numbers and words."""
        kinds = {key: type(value) for key, value in asdict(self).items()}
        pairs = [pair.split("=") for pair in text.split(",")]
        return replace(self, **{key: kinds[key](literal_eval(value)) for key, value in pairs})

    def with_faults(self, names: str) -> "Options":
        """Only these faults (names, or ``power`` for all machines at once), and work for them."""
        faults = POWER_FAULTS if names == "power" else tuple(names.split(","))
        assert set(faults) <= set(FAULTS), f"unknown: {set(faults) - set(FAULTS)}"
        return replace(self, faults=faults, think_max_s=0.1)
