"""Ask a group to change its members, or its leader; and what is refused before it is asked."""

from collections.abc import Iterable, Sequence

from ..fs.errors import Code, TideError
from ..fs.messages.places import ServerPlace
from ..fs.messages.raft import (
    ChangeMembers,
    Configuration,
    GetMember,
    MemberStatus,
    TransferLeadership,
)
from .ask import Asker, asking
from .cluster_file import check_odd
from .exits import Exit, Failure
from .members import JOINING, View
from .processes import elapsed_ms, now_ns
from .sources import parse_addresses
from .target import Target
from .tell import say

PROGRESS_EVERY_MS = 2_000


def wait_leader(target: Target) -> View:
    """The members, as soon as one of them leads; TideError when none does."""
    return asking(target.cluster_id, lambda asker: target.lookout(asker).wait_leader())


def configuration_of(view: View) -> Configuration:
    """Who belongs to the group of a leader that was found."""
    assert view.configuration is not None
    return view.configuration


def change(
    target: Target, add: Sequence[ServerPlace], leave: Sequence[int], timeout_ms: int
) -> None:
    """Have the group change its members, and tell how far it is. TideError says why not."""
    progress = _Progress(target, [place.server for place in add])
    _of_leader(target, ChangeMembers(list(add), list(leave)), timeout_ms, progress)


def hand_over(target: Target, server: int, timeout_ms: int) -> None:
    """Have a voter lead."""
    _of_leader(target, TransferLeadership(server), timeout_ms, _Progress(target, []))


def _of_leader(
    target: Target,
    request: ChangeMembers | TransferLeadership,
    timeout_ms: int,
    progress: "_Progress",
) -> None:
    async def work(asker: Asker) -> None:
        await target.lookout(asker).of_leader(
            request,
            timeout_ms=timeout_ms,
            say=lambda text: say(target.named(text)),
            on_look=progress.look,
        )

    remedy = (
        "it may still come to its end by itself; look with `tidefs cluster status"
        f" {target.name}`, and repeat the command"
    )
    try:
        asking(target.cluster_id, work)
    except KeyboardInterrupt:
        raise Failure(Exit.INTERRUPTED, f"interrupted: {remedy}") from None
    except TideError as error:
        if error.code is Code.TIMED_OUT:
            raise Failure(Exit.UNREACHABLE, f"{error.detail}: {remedy}") from None
        error.detail = target.named(error.detail)
        if error.code is Code.INVALID:
            raise Failure(Exit.USAGE, error.detail) from None
        raise


class _Progress:
    """Tells a person how far new members have got."""

    def __init__(self, target: Target, servers: Sequence[int]) -> None:
        self._target = target
        self._servers = servers
        self._said_ns = now_ns()
        self._said = ""

    def look(self, view: View) -> None:
        """Say it, now and then."""
        leader = view.leader.status if view.leader else None
        if leader is None or elapsed_ms(self._said_ns) < PROGRESS_EVERY_MS:
            return
        words = []
        for server, match_index, _ in leader.lag:
            if server in self._servers:
                far = f"has {match_index:,} of {leader.last_index:,} records"
                if match_index + 1 < leader.first_index:
                    far = f"is being sent a snapshot of {leader.checkpoint_index:,} records"
                words.append(f"{self._target.name_of(server)} {far}")
        sentence = "; ".join(words)
        if sentence and sentence != self._said:
            say(sentence)
            self._said, self._said_ns = sentence, now_ns()


def places_of(target: Target, view: View, texts: Sequence[str]) -> list[ServerPlace]:
    """Who answers at these addresses: each text has one server's, separated by commas.

    Failure(USAGE) for one that is neither made to join a group nor a member of this one.
    """
    wanted = [parse_addresses(text) for text in texts]

    async def work(asker: Asker) -> list[MemberStatus]:
        return [await asker.ask(addresses, GetMember()) for addresses in wanted]

    assert view.leader is not None
    assert view.leader.status is not None
    now = configuration_of(view)
    found = []
    for status, addresses in zip(asking(view.leader.status.cluster, work), wanted, strict=True):
        if status.role != JOINING and status.server not in [*now.voters, *now.learners]:
            raise Failure(
                Exit.USAGE,
                f"{addresses[0]} is not waiting to join a group: prepare its folder with `tidefs"
                " metaserver --format --join`",
            )
        found.append(ServerPlace(status.server, status.host, addresses))
    return found


def still_there(now: Configuration, servers: Iterable[int]) -> list[int]:
    """Those that are still to be removed."""
    return [one for one in servers if one in now.voters or one in now.learners]


def check_growth(now: Configuration, more: int, what: str) -> None:
    """Failure(USAGE) when no group can have so many more members; ``what`` asked for them."""
    if more < 1:
        raise Failure(Exit.USAGE, f"{what}: nothing is to be added")
    check_odd(len(now.voters) + more, f"{len(now.voters)} metaservers and {what}")


def check_without(target: Target, view: View, leaving: Sequence[int], *, replaced: bool) -> None:
    """Failure when too few others are up to do without these, or the number cannot be.

    ``replaced``: as many new ones come in their place.
    """
    now = configuration_of(view)
    names = ", ".join(target.name_of(one) for one in leaving)
    rest = [one for one in now.voters if one not in leaving]
    if not rest:
        raise Failure(
            Exit.USAGE,
            f"{names}: without the last metaserver there is nobody who has the names of the files;"
            " `tidefs down` stops a cluster",
        )
    if not replaced and len(rest) < len(now.voters):
        check_odd(len(rest), f"{len(now.voters)} metaservers without {names}")
    size = len(now.voters) if replaced else len(rest)
    down = [one for one in rest if one not in view.up()]
    if len(rest) - len(down) < size // 2 + 1:
        silent = ", ".join(target.name_of(one) for one in down)
        whose = (
            f"{silent} does not answer: start it, or name that one instead"
            if down
            else (f"{len(rest)} of {size} is none: add two first (`tidefs cluster add`)")
        )
        raise Failure(
            Exit.UNREACHABLE,
            f"without {names} there is no majority of metaservers that are up; {whose}",
        )
