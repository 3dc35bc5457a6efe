"""Every exit code of ``tidefs`` in one table, and the error that carries one to the shell."""

from enum import IntEnum
from typing import IO, Any

import click

from ..fs.errors import Code, TideError


class Exit(IntEnum):
    """Stable numbers: scripts rely on them."""

    OK = 0
    WRONG = 1
    USAGE = 2
    UNREACHABLE = 3
    BUSY = 4
    LACKING = 5
    FOREIGN = 6
    CONFIG = 7
    PARTLY = 8
    INTERRUPTED = 130


MEANINGS: dict[Exit, str] = {
    Exit.OK: "done; for status: everything is healthy",
    Exit.WRONG: "it failed; for status: something is wrong",
    Exit.USAGE: "the command line is not understood",
    Exit.UNREACHABLE: "the cluster cannot be reached",
    Exit.BUSY: "something is in use: a mount point, a port, a file system, a running server",
    Exit.LACKING: "this machine lacks something: /dev/fuse, a right, room on the disk",
    Exit.FOREIGN: "the folder is not a cluster's, or is damaged",
    Exit.CONFIG: "a configuration is not valid, or an address in it cannot be used",
    Exit.PARTLY: "it works, but not all of it: a server is missing, and was named",
    Exit.INTERRUPTED: "interrupted",
}
assert set(MEANINGS) == set(Exit), "every exit code has its meaning"

_OF_CODE = {
    Code.NO_ENTRY: Exit.LACKING,
    Code.NOT_A_DIRECTORY: Exit.LACKING,
    Code.NOT_SUPPORTED: Exit.LACKING,
    Code.INVALID: Exit.CONFIG,
    Code.BUSY: Exit.BUSY,
    Code.NOT_PERMITTED: Exit.LACKING,
    Code.ACCESS_DENIED: Exit.LACKING,
    Code.NO_SPACE: Exit.LACKING,
    Code.TIMED_OUT: Exit.UNREACHABLE,
    Code.DISCONNECTED: Exit.UNREACHABLE,
    Code.NOT_LEADER: Exit.UNREACHABLE,
    Code.UNAVAILABLE: Exit.UNREACHABLE,
    Code.WRONG_CLUSTER: Exit.FOREIGN,
    Code.CORRUPT: Exit.FOREIGN,
    Code.FOREIGN_FOLDER: Exit.FOREIGN,
    Code.BAD_CONFIG: Exit.CONFIG,
}


class Failure(click.ClickException):
    """What went wrong, in one sentence that names the thing, the reason and the remedy."""

    def __init__(self, exit_code: Exit, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from either

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it on standard error."""
        click.echo(f"tidefs: {self.message}", file=file, err=True)


_REASON_IS_THE_CODE = {
    Code.NO_ENTRY,
    Code.EXISTS,
    Code.NOT_A_DIRECTORY,
    Code.IS_A_DIRECTORY,
    Code.NOT_EMPTY,
    Code.NAME_TOO_LONG,
    Code.NO_SPACE,
    Code.READ_ONLY,
}
"""With these the detail names only the thing; with all others it is a sentence of its own."""


def failure_of(error: TideError) -> Failure:
    """The same for an error that came up from below."""
    named = error.code in _REASON_IS_THE_CODE or not error.detail
    return Failure(_OF_CODE.get(error.code, Exit.WRONG), str(error) if named else error.detail)


def first_error(group: BaseExceptionGroup[BaseException]) -> TideError | None:
    """The TideError that ended tasks which ran together; None when something else did."""
    found: TideError | None = None
    for error in group.exceptions:
        inner = first_error(error) if isinstance(error, BaseExceptionGroup) else error
        if not isinstance(inner, TideError):
            return None
        found = found or inner
    return found


def table() -> str:
    """The exit codes as lines for a help text."""
    return "\n".join(f"{code.value:>5}  {meaning}" for code, meaning in MEANINGS.items())
