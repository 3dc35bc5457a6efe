"""Feeds decoders with damaged messages and watches for crashes, hangs and growing memory.

    python tests/fuzz/run.py --messages 1000000 [--seed 1] [--target frames]

Every third message goes to each target. Fails at the first exception that is not the target's own,
at a message that takes a second, and when memory grows between the first tenth and the end.
"""

import argparse
import faulthandler
import random
import resource
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tidefs.tests.fuzz.targets import TARGETS, Target

HANG_S = 1.0
GROWTH_MAX_BYTES = 16 << 20
PAGE_BYTES = resource.getpagesize()


class Finding(Exception):  # noqa: N818 - it is what was looked for
    """Something is wrong with a decoder."""


class Figures(NamedTuple):
    """What a run of one target saw."""

    messages: int
    good: int
    slowest_ms: float
    growth_bytes: int
    took_s: float


def resident_bytes() -> int:
    """Memory of this process (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def fuzz(name: str, count: int, seed: int) -> Figures:
    """Feed one target with so many messages. Finding. A hang ends the process."""
    try:
        return _fuzz(name, count, seed)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _fuzz(name: str, count: int, seed: int) -> Figures:
    target: Target = TARGETS[name](random.Random(f"{seed} {name}"))
    good, slowest_s, warm_bytes = 0, 0.0, resident_bytes()
    began = time.perf_counter()
    for number in range(count):
        if number == count // 10:
            warm_bytes = resident_bytes()
        faulthandler.dump_traceback_later(10 * HANG_S, exit=True)
        before = time.process_time()
        try:
            good += target.feed()
        except Exception as error:
            raise Finding(f"{name}, message {number}: {target.last.hex()}") from error
        took_s = time.process_time() - before
        slowest_s = max(slowest_s, took_s)
        if took_s > HANG_S:
            raise Finding(f"{name}, message {number} took {took_s:.1f} s: {target.last.hex()}")
    growth_bytes = resident_bytes() - warm_bytes
    if growth_bytes > GROWTH_MAX_BYTES:
        raise Finding(f"{name}: memory grew by {growth_bytes} bytes over {count} messages")
    return Figures(count, good, slowest_s * 1000, growth_bytes, time.perf_counter() - began)


def main() -> None:
    """Fuzz all targets, or one."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--messages", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=TARGETS)
    options = parser.parse_args()
    names = [options.target] if options.target else list(TARGETS)
    sys.stdout.write("| decoder | messages | good | slowest ms | growth KiB | took s |\n")
    sys.stdout.write("|---|---:|---:|---:|---:|---:|\n")
    for name in names:
        seen = fuzz(name, -(-options.messages // len(names)), options.seed)
        sys.stdout.write(
            f"| {name} | {seen.messages:,} | {seen.good:,} | {seen.slowest_ms:.1f} |"
            f" {seen.growth_bytes / 1024:,.0f} | {seen.took_s:.0f} |\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
