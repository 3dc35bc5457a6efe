"""``tidefs locks``: who holds locks on which files, and who waits for them."""

import json
from typing import NamedTuple

import click
import msgspec

from ..fs.errors import TideError
from ..fs.limits import LOCK_END
from ..fs.messages.locks import ListLocks, Lock, LockKind
from .ask import Asker, asking
from .exits import Exit, Failure
from .paths import NO_SUCH_PATH, inode_at, paths_of
from .questions import Questions
from .sources import HELP
from .target import Target
from .tell import table

LOCKS_PER_QUESTION = 1_000

KIND_NAMES = {LockKind.RANGE: "fcntl", LockKind.WHOLE: "flock", LockKind.APPEND: "append"}


class LockReport(msgspec.Struct):
    """One lock. ``paths``: what its file is called, none when it has no name any more.

    ``kind``: flock, fcntl, or append (whose turn it is to append with O_APPEND). ``end`` is the
    byte behind the last one; null: wherever the file may grow to. ``pid`` is the process on
    ``host`` that asked. ``token`` fences writes (docs/semantics.md); 0 while it waits, and then
    ``place`` is its place among those who wait for this file, from 1.
    """

    paths: list[str]
    inode: int
    kind: str
    mode: str
    start: int
    end: int | None
    state: str
    place: int
    host: str
    pid: int
    session: int
    owner: int
    token: int


class _Found(NamedTuple):
    locks: list[Lock]
    paths: dict[int, list[str]]


@click.command(
    help="Say who holds locks on files, and who waits for them: all, or those of PATH, which is"
    f" given as seen from the root of the file system.\n\nSOURCE is {HELP}."
)
@click.argument("source", metavar="SOURCE")
@click.argument("path", metavar="[PATH]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def locks(source: str, path: str | None, as_json: bool) -> None:
    """Exit code 0 whether there are locks or not."""
    target = Target(source)

    async def ask(asker: Asker) -> _Found:
        return await _find(Questions(target.lookout(asker)), path)

    try:
        reports = in_reports(*asking(target.cluster_id, ask))
    except TideError as error:
        if error.code in NO_SUCH_PATH:
            raise Failure(Exit.WRONG, str(error)) from None
        raise
    if as_json:
        click.echo(json.dumps({"locks": msgspec.to_builtins(reports)}, indent=2))
    else:
        click.echo("\n".join(_lines(reports)))


async def _find(questions: Questions, path: str | None) -> _Found:
    inode = 0 if path is None else await inode_at(questions, path)
    found: list[Lock] = []
    after, end = 0, False
    while not end:
        piece = await questions.ask(ListLocks(inode, after, LOCKS_PER_QUESTION))
        found += piece.locks
        after = piece.locks[-1].inode if piece.locks else after
        end = piece.end or not piece.locks
    if path is not None:
        return _Found(found, {inode: ["/" + path.strip("/")]})
    return _Found(found, await paths_of(questions, {lock.inode for lock in found}))


def in_reports(found: list[Lock], paths: dict[int, list[str]]) -> list[LockReport]:
    """The same for people and programs, by path; who has no name comes last."""
    waiting: dict[tuple[int, LockKind], int] = {}
    reports = []
    for lock in found:
        place = 0
        if not lock.token:
            place = waiting[lock.inode, lock.kind] = waiting.get((lock.inode, lock.kind), 0) + 1
        reports.append(_report(lock, paths.get(lock.inode, []), place))
    return sorted(reports, key=lambda one: (not one.paths, one.paths, one.inode))


def _report(lock: Lock, paths: list[str], place: int) -> LockReport:
    return LockReport(
        paths=paths,
        inode=lock.inode,
        kind=KIND_NAMES[lock.kind],
        mode="exclusive" if lock.exclusive else "shared",
        start=lock.start,
        end=None if lock.end >= LOCK_END else lock.end,
        state="held" if lock.token else "waiting",
        place=place,
        host=lock.host,
        pid=lock.pid,
        session=lock.session,
        owner=lock.owner,
        token=lock.token,
    )


def _lines(reports: list[LockReport]) -> list[str]:
    """For a person."""
    if not reports:
        return ["no locks"]
    heading = ["FILE", "LOCK", "MODE", "BYTES", "STATE", "TOKEN", "HOST", "PID", "SESSION"]
    return table([heading, *(_row(one) for one in reports)])


def _row(one: LockReport) -> list[str]:
    return [
        " = ".join(one.paths) or f"inode {one.inode}",
        one.kind,
        one.mode,
        _bytes(one),
        f"waits, number {one.place}" if one.place else one.state,
        str(one.token) if one.token else "-",
        one.host,
        str(one.pid),
        str(one.session),
    ]


def _bytes(one: LockReport) -> str:
    """The first and the last byte."""
    if one.end is None:
        return "all" if one.start == 0 else f"{one.start}-"
    return f"{one.start}-{one.end - 1}"
