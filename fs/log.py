"""Logging: one line a record, for people; set up once by whoever owns the process."""

import logging
import sys
from typing import TextIO

from .errors import Code, TideError

LEVELS = ("debug", "info", "warning", "error")
FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s"


class OneLine(logging.Formatter):
    """A record as one line; the lines of a traceback follow it, indented."""

    def __init__(self, who: str) -> None:
        super().__init__(f"{who} {FORMAT}" if who else FORMAT, datefmt="%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", "\n    ")


def set_up(level: str = "info", *, stream: TextIO | None = None, who: str = "") -> None:
    """Send all records at or above ``level`` (of LEVELS) to ``stream`` (stderr).

    ``who`` opens each line where several processes share one stream. BAD_CONFIG for a level that
    does not exist.
    """
    if level not in LEVELS:
        raise TideError(
            Code.BAD_CONFIG, f"{level!r} is not a log level (there are {', '.join(LEVELS)})"
        )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(OneLine(who))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())


THINGS_MAX = 1_000


class Once:
    """Warns once for each thing, until it is well again: no flood while a server is down.

    Of more than THINGS_MAX things it forgets the first: who makes up ever new ones gets no memory.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._said: dict[str, None] = {}

    def warn(self, thing: str, message: str, *arguments: object) -> None:
        """Log a warning about ``thing``, unless that was done already."""
        if thing not in self._said:
            if len(self._said) >= THINGS_MAX:
                del self._said[next(iter(self._said))]
            self._said[thing] = None
            self._logger.warning(message, *arguments)

    def well(self, thing: str, message: str, *arguments: object) -> None:
        """``thing`` works; say so if the contrary was said before."""
        if thing in self._said:
            del self._said[thing]
            self._logger.info(message, *arguments)
