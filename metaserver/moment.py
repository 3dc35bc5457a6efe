"""When an entry is applied, and what its application asks of the world outside."""

from typing import NamedTuple

from .effects import Effect


class Moment(NamedTuple):
    """Given to the second half of an operation: the log entry's index and time."""

    log_index: int
    time_ns: int
    effects: list[Effect]
    """Added to by whatever has one."""
