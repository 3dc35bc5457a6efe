"""Who shares files under locks in one run, and what."""

import random
from collections.abc import Iterator

from .appenders import Appender, Journal
from .cluster import Cluster
from .lock_book import Book
from .lockers import Locker
from .options import Options
from .sharers import Sharer
from .tallies import Counter, Tally

POWER_LOSSES = frozenset({"crash_chunkserver", "crash_chunkservers"})


def make_sharers(cluster: Cluster, options: Options, chance: random.Random) -> Iterator[Sharer]:
    """As the options say."""
    if not options.sharers:
        return
    sync = not POWER_LOSSES.isdisjoint(options.faults)
    book = Book(cluster.watch.locks.ledger)
    for number in range(options.lockers):
        yield Locker(cluster, f"l{number}", number, book)
    tallies = [
        Tally(
            (name,),
            options.counters,
            on_chunks=on_chunks,
            flock=chance.random() < 0.5,
            sync=on_chunks and sync,
        )
        for name, on_chunks in ((b"inline", False), (b"chunks", True))
    ]
    for number in range(options.counters):
        yield Counter(cluster, f"n{number}", number, tallies)
    journal = Journal((b"journal",), sync=sync)
    length_max = chance.choice((100, 3_000, 40_000))
    for number in range(options.appenders):
        yield Appender(cluster, f"a{number}", number, journal, length_max)
