"""What a change of the group's members comes to, and why one is refused, in words. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from ..fs.errors import Code, TideError
from ..fs.ids import ServerId, server_name
from ..fs.limits import MEMBERS_MAX
from ..fs.messages.places import ServerPlace
from ..fs.messages.raft import Configuration

SERVER_END = 1 << 63


class Plan(NamedTuple):
    """The members as they are to be."""

    voters: list[int]
    learners: list[int]
    places: list[ServerPlace]  # of each of them
    new: list[int]  # the voters that have no vote yet: they must catch up first

    def as_learners(self, now: Configuration) -> "Plan":
        """The step before: nobody has gone, the new ones get the log and have no vote."""
        learners = [*now.learners, *(one for one in self.new if one not in now.learners)]
        places = {place.server: place for place in [*now.places, *self.places]}
        return Plan(
            now.voters, learners, [places[one] for one in [*now.voters, *learners]], self.new
        )


def plan_change(
    now: Configuration, add: Sequence[ServerPlace], remove: Sequence[int]
) -> Plan | None:
    """Where ``now`` (not joint) leads to; None: it is like that already. INVALID, in words."""
    _check_asked(add, remove)
    adding = [place.server for place in add]
    _check_ids(now, adding, remove)
    places = {place.server: place for place in [*now.places, *add]}
    voters = [one for one in now.voters if one not in remove]
    voters += [one for one in adding if one not in voters]
    learners = [one for one in now.learners if one not in remove and one not in adding]
    if not voters:
        raise TideError(
            Code.INVALID,
            "the last metaserver cannot be removed: the cluster would be gone with it",
        )
    if sorted(voters) != sorted(now.voters):
        _check_size(len(now.voters), len(voters))
    plan = Plan(
        voters,
        learners,
        [places[one] for one in [*voters, *learners]],
        [one for one in voters if one not in now.voters],
    )
    return None if _is_now(plan, now) else plan


def check_majority(voters: Sequence[int], up: Collection[int], now: Configuration) -> None:
    """UNAVAILABLE, naming those that are down, when too few of ``voters`` are up."""
    down = [one for one in voters if one not in up]
    needed = len(voters) // 2 + 1
    if len(voters) - len(down) >= needed:
        return
    hosts = {place.server: place.host for place in now.places}
    raise TideError(
        Code.UNAVAILABLE,
        f"{needed} of the {len(voters)} metaservers that would be left must be up, and"
        f" {names_of(down, hosts)} {'is' if len(down) == 1 else 'are'} not: start what is down, or"
        " remove that one instead",
    )


def name_of(server: int, host: str = "") -> str:
    """How a metaserver is called in messages to people."""
    return f"metaserver {server_name(ServerId(server))}" + (f" on {host}" if host else "")


def names_of(servers: Iterable[int], hosts: Mapping[int, str] | None = None) -> str:
    """Several of them."""
    return ", ".join(name_of(server, (hosts or {}).get(server, "")) for server in servers)


def _check_asked(add: Sequence[ServerPlace], remove: Sequence[int]) -> None:
    adding = [place.server for place in add]
    for server in adding:
        if not 0 < server < SERVER_END:
            raise TideError(Code.INVALID, f"{server} is no server id: 1 to 2^63 - 1 can be")
        if server in remove:
            raise TideError(Code.INVALID, f"{name_of(server)} is to be added and to be removed")
    for asked, word in ((adding, "added"), (list(remove), "removed")):
        for server in asked:
            if asked.count(server) > 1:
                raise TideError(Code.INVALID, f"{name_of(server)} is to be {word} twice")
    for place in add:
        if not place.addresses:
            raise TideError(Code.INVALID, f"{name_of(place.server)} needs an address")


def _check_ids(now: Configuration, adding: Sequence[int], remove: Sequence[int]) -> None:
    for server in adding:
        if server in now.removed:
            raise TideError(
                Code.INVALID,
                f"{name_of(server)} was removed once and cannot come back: format an empty folder"
                " with a new server id, and add that one",
            )
    for server in remove:
        if server not in (*now.voters, *now.learners, *now.removed):
            raise TideError(
                Code.INVALID,
                f"{name_of(server)} is not a member; there are {names_of(now.voters)}",
            )


def _check_size(before: int, after: int) -> None:
    if after > MEMBERS_MAX:
        raise TideError(
            Code.INVALID, f"the group would have {after} members, {MEMBERS_MAX} can be at most"
        )
    if after % 2 == 0:
        raise TideError(
            Code.INVALID,
            f"the group of {before} would have {after} members: an even number survives no more"
            " failures than one less, and needs one more to be up. Add or remove two, or replace"
            " one by another (`tidefs cluster replace`)",
        )


def _is_now(plan: Plan, now: Configuration) -> bool:
    where = {place.server: place for place in now.places}
    return (
        sorted(plan.voters) == sorted(now.voters)
        and sorted(plan.learners) == sorted(now.learners)
        and all(where.get(place.server) == place for place in plan.places)
    )
