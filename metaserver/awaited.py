"""Sessions that a new leader finds in the state, until each has resumed or ended. Pure.

What they hold of its predecessor only they know: files that are open, promises. Until they have
told it, or are over, nothing is decided that could be wrong.
"""

from collections.abc import Iterable

from .records import SessionRecord


class Awaited:
    """Those of one leader. Who begins its session afterwards is never awaited."""

    def __init__(self, sessions: Iterable[SessionRecord] = ()) -> None:
        records = list(sessions)
        self._all = {record.session for record in records}
        self._promised = {record.session for record in records if record.promises}

    def heard(self, session: int) -> None:
        """It has told what it holds, or is over."""
        self._all.discard(session)
        self._promised.discard(session)

    @property
    def is_any(self) -> bool:
        """Whether somebody is missing."""
        return bool(self._all)

    @property
    def promised(self) -> int:
        """How many are missing that may hold promises."""
        return len(self._promised)

    def promised_to_others(self, session: int) -> bool:
        """Whether one of them is another one than ``session``."""
        return len(self._promised) > (session in self._promised)
