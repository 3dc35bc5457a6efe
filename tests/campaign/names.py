"""A loop over names that notices every answer that is not the one of a local disk.

    python names.py FOLDER SECONDS

It makes, renames, links and removes, and knows what each call must answer: a mutation that was
done twice shows as EEXIST or ENOENT, one that was lost shows at the next look. Ends with 1 and one
line at the first wrong answer.
"""

import errno
import os
import sys
import time
from pathlib import Path


class WrongAnswerError(Exception):
    """Not what a local disk would have said."""


def expect(what: str, good: bool) -> None:
    """Stop at the first wrong answer."""
    if not good:
        raise WrongAnswerError(what)


def refused(path: Path, wanted: int, call: str, *arguments: object) -> None:
    """``os.CALL(path, ...)`` must fail with that errno."""
    try:
        getattr(os, call)(path, *arguments)
    except OSError as error:
        expect(f"{call} {path}: {error}, not {errno.errorcode[wanted]}", error.errno == wanted)
    else:
        raise WrongAnswerError(f"{call} {path} succeeded, where {errno.errorcode[wanted]} was due")


def one_round(top: Path, number: int) -> int:
    """Every kind of change of names once; how many calls that were."""
    here, there = top / f"d{number}", top / f"moved{number}"
    os.mkdir(here)
    refused(here, errno.EEXIST, "mkdir")
    one, two = here / "one", here / "two"
    os.close(os.open(one, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    refused(one, errno.EEXIST, "open", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.link(one, two)
    expect(f"two names of {one}", os.stat(one).st_nlink == 2)
    refused(one, errno.EEXIST, "symlink", two)
    os.rename(here, there)
    refused(here, errno.ENOENT, "stat")
    refused(there, errno.ENOTEMPTY, "rmdir")
    os.rename(there / "two", there / "three")
    expect(f"names in {there}", sorted(os.listdir(there)) == ["one", "three"])
    os.unlink(there / "one")
    refused(there / "one", errno.ENOENT, "unlink")
    expect(f"one name of {there}/three", os.stat(there / "three").st_nlink == 1)
    os.unlink(there / "three")
    os.rmdir(there)
    refused(there, errno.ENOENT, "rmdir")
    return 18


def main() -> int:
    """Until the time is over."""
    top, seconds = Path(sys.argv[1]), float(sys.argv[2])
    end = time.monotonic() + seconds
    number = calls = 0
    longest = 0.0
    while time.monotonic() < end:
        began = time.monotonic()
        try:
            calls += one_round(top, number)
        except (WrongAnswerError, OSError) as error:
            sys.stdout.write(f"round {number}: {type(error).__name__}: {error}\n")
            return 1
        longest = max(longest, time.monotonic() - began)
        number += 1
    expect(f"{top} is empty", os.listdir(top) == [])
    sys.stdout.write(f"{number} rounds, {calls} calls, longest round {longest:.2f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
