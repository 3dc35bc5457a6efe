"""Who belongs to the group: configurations in the log, their majorities, and how they change. Pure.

Joint consensus (Raft section 6; thesis section 4.3): from C_old by way of C_old,new to C_new, each
a record in the log and in force as soon as it is there, committed or not.
"""

from collections.abc import Callable, Iterable, Sequence

from ...fs.errors import Code, TideError
from ...fs.limits import MEMBERS_MAX
from ...fs.messages.places import ServerPlace
from ...fs.messages.raft import Configuration


class Membership:
    """The configurations that this member knows of, and what follows from the latest."""

    def __init__(
        self,
        server: int,
        configuration: Configuration,
        later: Sequence[tuple[int, Configuration]],
        *,
        index: int,
    ) -> None:
        """``configuration`` is committed, and in force at ``index`` (0: it never was in the log);
        ``later`` stand behind that in the log."""
        self._server = server
        self._known: list[tuple[int, Configuration]] = [(index, configuration), *later]
        """Indexes rise strictly. The first one is committed, those behind it may be rolled back."""
        self._refresh()

    def _refresh(self) -> None:
        self.index, self.current = self._known[-1]
        now = self.current
        self.halves = (now.voters, now.voters_before) if now.voters_before else (now.voters,)
        """Whatever needs a majority needs one of each of these."""
        self.voters = frozenset(now.voters) | frozenset(now.voters_before)
        self.is_voter = self._server in self.voters
        self.is_sole = self.voters == {self._server}
        """Whether this member is a majority on its own."""
        self.peers = tuple(
            server
            for server in dict.fromkeys((*now.voters, *now.voters_before, *now.learners))
            if server != self._server
        )

    @property
    def is_joint(self) -> bool:
        return bool(self.current.voters_before)

    @property
    def may_lead(self) -> bool:
        """Whether this member is a voter, or will be one again if a record is rolled back.

        Who is not in its own latest configuration still stands for election until that one is
        committed: perhaps nobody else has a log that is long enough (thesis section 4.2.2).
        """
        return self.is_voter or any(
            self._server in known.voters or self._server in known.voters_before
            for _, known in self._known
        )

    @property
    def always_sole(self) -> bool:
        """Whether this member is the only voter by whichever of them is committed."""
        return all(
            {self._server} == {*known.voters, *known.voters_before} for _, known in self._known
        )

    def is_removed(self, server: int) -> bool:
        """Whether it was a member, and no roll-back can make it one again."""
        return server in self._known[0][1].removed

    # --- what happens to the log -----------------------------------------------------------------

    def appended(self, index: int, configuration: Configuration) -> None:
        """The record at ``index`` is a configuration."""
        assert index > self.index, (index, self.index)
        self._known.append((index, configuration))
        self._refresh()

    def truncated_from(self, index: int) -> bool:
        """Records from ``index`` on are gone: go back. Whether anything changed."""
        if self.index < index:
            return False
        while self._known[-1][0] >= index:
            self._known.pop()
            assert self._known, "a committed configuration is never rolled back"
        self._refresh()
        return True

    def committed(self, index: int) -> None:
        """Records up to ``index`` are applied: who is removed by them is so for ever."""
        while len(self._known) > 1 and self._known[1][0] <= index:
            del self._known[0]

    def restored(self, index: int, configuration: Configuration) -> None:
        """A snapshot took the place of the log."""
        self._known = [(index, configuration)]
        self._refresh()

    # --- majorities --------------------------------------------------------------------------

    def agreed(self, value_of: Callable[[int], int]) -> int:
        """The highest value that a majority (of each half) has reached."""
        return min(_majority_value(half, value_of) for half in self.halves)

    def is_majority(self, servers: Iterable[int]) -> bool:
        """Whether ``servers`` hold a majority (of each half)."""
        chosen = frozenset(servers)
        return all(len(chosen.intersection(half)) * 2 > len(half) for half in self.halves)


def _majority_value(half: Sequence[int], value_of: Callable[[int], int]) -> int:
    values = sorted([value_of(server) for server in half])
    return values[(len(values) - 1) // 2]


# --- changes -----------------------------------------------------------------------------------


def plan_change(
    now: Configuration,
    voters: Sequence[int],
    learners: Sequence[int],
    places: Sequence[ServerPlace],
) -> Configuration:
    """The next configuration on the way from ``now`` to these members: joint when the voters
    change (Raft section 6). INVALID, in words, when that group must not be.

    A voter that is to become a learner stands in both lists of the joint one: until that is over
    it votes.
    """
    _check_members(now, voters, learners, places)
    staying = {*voters, *learners}
    if set(voters) == set(now.voters):
        gone = [server for server in now.learners if server not in staying]
        return Configuration(
            list(voters), [], list(learners), _places(places, staying), [*now.removed, *gone]
        )
    gone = [server for server in now.learners if server not in staying]
    everybody = {place.server: place for place in (*now.places, *places)}
    return Configuration(
        list(voters),
        list(now.voters),
        list(learners),
        _places(everybody.values(), staying | set(now.voters)),
        [*now.removed, *gone],
    )


def after_joint(joint: Configuration) -> Configuration:
    """C_new, to which a committed C_old,new leads."""
    staying = {*joint.voters, *joint.learners}
    gone = [server for server in joint.voters_before if server not in staying]
    return Configuration(
        joint.voters,
        [],
        joint.learners,
        _places(joint.places, staying),
        [*joint.removed, *gone],
    )


def is_same_group(now: Configuration, then: Configuration) -> bool:
    """Whether nothing would change."""
    return (
        set(now.voters) == set(then.voters)
        and not now.voters_before
        and set(now.learners) == set(then.learners)
        and {place.server: place for place in now.places}
        == {place.server: place for place in then.places}
    )


def _places(places: Iterable[ServerPlace], servers: Iterable[int]) -> list[ServerPlace]:
    return [place for place in places if place.server in servers]


def _check_members(
    now: Configuration,
    voters: Sequence[int],
    learners: Sequence[int],
    places: Sequence[ServerPlace],
) -> None:
    members = [*voters, *learners]
    if not voters:
        raise _invalid("a group without voters could never decide anything; leave at least one")
    for server in members:
        if members.count(server) > 1:
            raise _invalid(f"{server:016x} is listed twice; list each member once")
        if server <= 0:
            raise _invalid(f"{server} is not the id of a server")
        if server in now.removed:
            raise _invalid(
                f"{server:016x} was removed from the group, and its id is never used again; "
                "format its folder anew to get a new one"
            )
    if len(voters) % 2 == 0:
        raise _invalid(
            f"{len(voters)} voters survive no more failures than {len(voters) - 1} do; "
            "an odd number is needed"
        )
    if len(members) > MEMBERS_MAX:
        raise _invalid(f"{len(members)} members are too many; at most {MEMBERS_MAX} are possible")
    if sorted(place.server for place in places) != sorted(members):
        raise _invalid("each member needs exactly one place, which says how to reach it")


def _invalid(why: str) -> TideError:
    return TideError(Code.INVALID, why)
