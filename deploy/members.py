"""The group of metaservers as it is seen from outside: who is there, who leads, and ask the leader.

Everything comes from GetMember, which every member answers at once, and which also tells where the
others are: so one address is enough to begin with.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import trio

from ..fs.errors import Code, TideError
from ..fs.ids import ServerId, server_name
from ..fs.limits import MIB
from ..fs.messages.base import Message, Request
from ..fs.messages.meta import GetStatus, Status
from ..fs.messages.places import ServerPlace
from ..fs.messages.raft import Configuration, GetMember, MemberStatus
from .ask import Asker

R = TypeVar("R", bound=Message)

LEADER = "leader"
JOINING = "joining"
REMOVED = "removed"
OUTSIDE = frozenset({JOINING, REMOVED})
"""What members that belong to no group say of themselves."""
LOOK_EVERY_MS = 300
LOOK_TIMEOUT_MS = 2_000
POLL_MS = 50
STATUS_PATIENCE_MS = 3_000
PATIENCE_MS = 20_000
"""An election takes less than a second; whoever finds no leader for so long says so."""
SAY_AFTER_MS = 2_000
AGAIN = frozenset({Code.NOT_LEADER, Code.DISCONNECTED, Code.TIMED_OUT, Code.BUSY, Code.UNAVAILABLE})
"""What an election, a dead leader or another change of members answers: ask again."""


class Seen(NamedTuple):
    """One member. ``server`` 0: an address that nobody answers at, so it is not known whose it is.

    ``trouble`` is why it did not answer, when ``status`` is None.
    """

    server: int
    addresses: list[str]
    status: MemberStatus | None
    trouble: TideError | None

    @property
    def why(self) -> str:
        """The trouble in words."""
        return "" if self.trouble is None else self.trouble.detail or str(self.trouble)

    @property
    def id(self) -> str:
        """For people."""
        return server_name(ServerId(self.server)) if self.server else "?"


class View(NamedTuple):
    """What was seen at one look."""

    members: list[Seen]

    @property
    def leader(self) -> Seen | None:
        """Who leads. One that was cut off may still believe it: the highest term counts."""
        leaders = [one for one in self.members if one.status and one.status.role == LEADER]
        return max(leaders, key=lambda one: one.status.term if one.status else 0, default=None)

    @property
    def configuration(self) -> Configuration | None:
        """Who belongs to the group, as the leader says, or else who knows the most."""
        leader = self.leader
        if leader is not None and leader.status is not None:
            return leader.status.configuration
        known = [one.status for one in self.members if one.status]
        known = [status for status in known if status.role not in OUTSIDE]
        if not known:
            return None
        return max(known, key=lambda status: (status.term, status.commit_index)).configuration

    def up(self) -> set[int]:
        """Ids of those that answer."""
        return {one.server for one in self.members if one.status is not None}

    def may_elect(self) -> bool:
        """Whether a majority of the group answers, so that it is worth to wait for a leader."""
        now = self.configuration
        return now is not None and 2 * len(self.up() & {*now.voters}) > len(now.voters)

    def find(self, server: int) -> Seen | None:
        """The member of that id."""
        return next((one for one in self.members if one.server == server), None)


class Lookout:
    """Looks at the members of one group; remembers where they were."""

    def __init__(
        self, asker: Asker, known: Iterable[ServerPlace], addresses: Sequence[str]
    ) -> None:
        """``known`` from a cluster's folder, and ``addresses`` of members of any id."""
        self.asker = asker
        self._known = {place.server: list(place.addresses) for place in known}
        self._addresses = list(addresses)

    async def look(self) -> View:
        """Ask all of them at the same time, also those that the others tell about."""
        found: dict[int, Seen] = {}
        nameless: list[Seen] = []
        asked: set[int] = set()
        todo = [Seen(server, places, None, None) for server, places in self._known.items()]
        todo += [Seen(0, [address], None, None) for address in self._addresses]
        while todo:
            answers: list[Seen] = []
            async with trio.open_nursery() as nursery:
                for one in todo:
                    nursery.start_soon(self._ask, one, answers)
            asked |= {one.server for one in todo}
            for one in answers:
                if one.server == 0:
                    nameless.append(one)
                elif one.status is not None or one.server not in found:
                    found[one.server] = one
            places = _places(found.values())
            todo = [
                Seen(server, addresses, None, None)
                for server, addresses in places.items()
                if server not in asked and server not in found
            ]
        claimed = {address for one in found.values() for address in one.addresses}
        lost = [one for one in nameless if not claimed & set(one.addresses)]
        return View([*found.values(), *lost])

    async def _ask(self, one: Seen, answers: list[Seen]) -> None:
        try:
            status = await self.asker.ask(one.addresses, GetMember(), timeout_ms=LOOK_TIMEOUT_MS)
        except TideError as error:
            answers.append(one._replace(trouble=error))
            return
        if one.server not in (0, status.server):
            # Somebody else has taken its address: the one looked for is not there.
            other = server_name(ServerId(status.server))
            words = f"{one.addresses[0]} is the address of server {other} now"
            answers.append(one._replace(trouble=TideError(Code.DISCONNECTED, words)))
        answers.append(Seen(status.server, one.addresses, status, None))

    async def wait_leader(self, patience_ms: int = PATIENCE_MS) -> View:
        """As soon as somebody leads. NOT_LEADER, in words, when nobody does for so long."""
        began = trio.current_time()
        while True:
            view = await self.look()
            if view.leader is not None:
                return view
            if trio.current_time() - began >= patience_ms / 1000:
                raise no_leader(view)
            await trio.sleep(POLL_MS / 1000)

    async def of_leader(
        self,
        request: Request[R],
        *,
        timeout_ms: int,
        say: Callable[[str], None],
        on_look: Callable[[View], None] = lambda view: None,
    ) -> R:
        """The leader's answer, asked again of whoever leads when that changes meanwhile.

        ``on_look`` is told what is seen while the answer is not there yet. TideError: a refusal;
        the last one when nobody could do it for PATIENCE_MS; TIMED_OUT after ``timeout_ms``.
        """
        with trio.move_on_after(timeout_ms / 1000):
            patience = _Patience(say)
            while True:
                view = await self.wait_leader()
                leader = view.leader
                assert leader is not None
                try:
                    return await self._while_it_leads(leader, request, timeout_ms, on_look)
                except TideError as error:
                    if error.code not in AGAIN:
                        raise
                    patience.tried(error)
                await trio.sleep(LOOK_EVERY_MS / 1000)
        raise TideError(Code.TIMED_OUT, f"not done within {timeout_ms // 1000} s")

    async def _while_it_leads(
        self, leader: Seen, request: Request[R], timeout_ms: int, on_look: Callable[[View], None]
    ) -> R:
        """NOT_LEADER as soon as another one leads: a dead one says nothing."""
        outcome: list[R | TideError] = []
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                try:
                    outcome.append(
                        await self.asker.ask(leader.addresses, request, timeout_ms=timeout_ms)
                    )
                except TideError as error:
                    outcome.append(error)
                nursery.cancel_scope.cancel()

            async def watch() -> None:
                while True:
                    await trio.sleep(LOOK_EVERY_MS / 1000)
                    view = await self.look()
                    on_look(view)
                    if view.leader is not None and view.leader.server != leader.server:
                        outcome.append(TideError(Code.NOT_LEADER, f"{view.leader.id} leads now"))
                        nursery.cancel_scope.cancel()

            nursery.start_soon(call)
            nursery.start_soon(watch)
        answer = outcome[0]
        if isinstance(answer, TideError):
            raise answer
        return answer


async def leader_status(lookout: Lookout) -> tuple[Status | TideError, View]:
    """The cluster as its leader sees it, or why there is no answer; and the members."""
    view = await lookout.look()
    try:
        if view.leader is None:
            if not view.may_elect():
                return no_leader(view), view
            view = await lookout.wait_leader(STATUS_PATIENCE_MS)
        assert view.leader is not None
        return await lookout.asker.ask(view.leader.addresses, GetStatus()), view
    except TideError as error:
        # Who led a moment ago may have found out meanwhile that nobody follows.
        view = await lookout.look()
        return (error if view.leader or view.may_elect() else no_leader(view)), view


class _Patience:
    """How long it is worth to try again, and that a person hears why."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said = ""
        self._began = trio.current_time()
        self._last = self._began

    def tried(self, error: TideError) -> None:
        """It failed once more; raises the error when that has gone on for too long."""
        now = trio.current_time()
        if now - self._last > SAY_AFTER_MS / 1000:
            self._began = now  # it was at work in between
        self._last = now
        if now - self._began > PATIENCE_MS / 1000:
            raise error
        words = error.detail or str(error)
        if now - self._began > SAY_AFTER_MS / 1000 and words != self._said:
            self._said = words
            self._say(f"trying again: {words}")


def no_leader(view: View) -> TideError:
    """That nobody leads, and why that may be so."""
    up = view.up()
    configuration = view.configuration
    if configuration is None:
        troubles = [one for one in view.members if one.trouble is not None]
        whys = "; ".join(dict.fromkeys(one.why for one in troubles))
        codes = [one.trouble.code for one in troubles if one.trouble is not None]
        return TideError(
            next(iter(codes), Code.DISCONNECTED), whys or "no member of a group answers"
        )
    voters = set(configuration.voters)
    majority = len(voters) // 2 + 1
    if len(voters & up) >= majority:
        return TideError(Code.NOT_LEADER, "no metaserver leads at the moment, though enough are up")
    return TideError(
        Code.NOT_LEADER,
        f"no metaserver can lead: {len(voters & up)} of {len(voters)} answer, and a majority is"
        f" {majority}; start the others",
    )


def full_disk(name: str, status: MemberStatus) -> list[str]:
    """A sentence for a person when a member has no room for what it is sent."""
    if status.spare_bytes >= 0:
        return []
    missing_mib = -(status.spare_bytes // MIB)
    return [f"the disk with the metadata of {name} is full: free {missing_mib} MiB on it"]


def _places(found: Iterable[Seen]) -> dict[int, list[str]]:
    """Where the members are, as they tell of each other."""
    return {
        place.server: list(place.addresses)
        for one in found
        if one.status is not None
        for place in one.status.configuration.places
    }
