"""The trace of one run: a line for everything that happened, with its virtual time.

Two runs of one seed must give the same lines in the same order; comparing their digests is enough
to see whether they did. The last lines are kept for the person who reads about a failure.
"""

import hashlib
from collections import deque
from typing import IO

import trio

TAIL_LINES = 60


class Trace:
    """Collects lines. ``copy_to`` also gets each one as text."""

    def __init__(self, copy_to: IO[str] | None = None) -> None:
        self._copy_to = copy_to
        self._hash = hashlib.blake2b(digest_size=8)
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.count = 0

    def note(self, kind: str, text: str) -> None:
        """``kind`` is one word (``net``, ``disk``, ``fault``, ``op``, ``answer``, ``check``)."""
        line = f"{trio.current_time():12.6f} {kind:<6} {text}"
        self._hash.update(line.encode("utf-8", "backslashreplace"))
        self.tail.append(line)
        self.count += 1
        if self._copy_to is not None:
            self._copy_to.write(line + "\n")

    def digest(self) -> str:
        """16 hex digits over all lines so far."""
        return self._hash.hexdigest()
