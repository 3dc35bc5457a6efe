"""What is known of the group of metaservers: who they are, how to reach each, who leads. Pure.

Its user was told some addresses when it was started. Members tell of each other: a user that has
spoken to one of them finds all the others, also after every one that it was started with has been
replaced.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from .messages.places import ServerPlace
from .messages.raft import MemberStatus

UNIX = "unix:"
Readdress = Callable[[], Awaitable[Sequence[str]]]
"""Gives the addresses that a user is started with anew, for somebody may have changed them since;
none when they cannot be had just now."""

LEADER = "leader"
"""MemberStatus.role of a member that leads, or thinks so."""


class Contact(NamedTuple):
    """A member, or an address that nobody has answered at yet."""

    server: int  # 0: not known, or not a member as far as is known
    addresses: tuple[str, ...]  # the best one first

    @property
    def key(self) -> int | str:
        """What it is known by from one question to the next."""
        return self.server or self.addresses[0]


class Members:
    """``configured``: addresses that are always tried. ``host``: the name of this machine."""

    def __init__(self, configured: Sequence[str], host: str) -> None:
        assert configured, "at least one address"
        self.configure(configured)
        self.led_term = 0
        """The highest term of which it is known that somebody led it. Who leads an earlier one is
        mistaken (Raft section 5.2: a leader was elected by a majority that will not go back)."""
        self.led_by = 0
        self._host = host
        self._places: dict[int, ServerPlace] = {}
        self._known_at = (-1, False)
        self._servers: dict[str, int] = {}  # who answered at an address
        self._good: dict[int, str] = {}  # at which address a server answered last

    def configure(self, addresses: Sequence[str]) -> None:
        """From now on these are always tried, instead of those before."""
        self.configured = tuple(dict.fromkeys(addresses))
        self.any_unix = any(address.startswith(UNIX) for address in addresses)

    def met(self, address: str, server: int) -> None:
        """``server`` answered at ``address``."""
        self._servers[address] = server
        self._good[server] = address

    def server_at(self, address: str) -> int:
        """Who answered there last; 0: nobody ever did."""
        return self._servers.get(address, 0)

    def server_of(self, contact: Contact) -> int:
        """Who that is, as far as is known; else 0."""
        return contact.server or self.server_at(contact.addresses[0])

    def heard(self, status: MemberStatus) -> None:
        """A member told how it sees itself and the group."""
        if status.leader and status.term > self.led_term:
            self.led_term, self.led_by = status.term, status.leader
        # What is committed further on is newer, whoever tells it; among equals the leader's counts.
        known_at = (status.commit_index, status.role == LEADER)
        if status.configuration.places and known_at >= self._known_at:
            self._known_at = known_at
            self._places = {place.server: place for place in status.configuration.places}

    def leads(self, status: MemberStatus) -> bool:
        """Whether who told this leads, as far as is known."""
        return status.role == LEADER and status.term >= self.led_term

    def contacts(self) -> list[Contact]:
        """All there is to ask."""
        others = [address for address in self.configured if not self._is_of_member(address)]
        return [
            *(Contact(server, found) for server in self._places if (found := self._reach(server))),
            *(Contact(0, (address,)) for address in others),
        ]

    def contact(self, key: int | str) -> Contact | None:
        """The one that is known by ``key``; None when there is no such any more."""
        return next((contact for contact in self.contacts() if contact.key == key), None)

    def _is_of_member(self, address: str) -> bool:
        """Whether an address belongs to a member by what that says, or by who answered there."""
        return self.server_at(address) in self._places or any(
            address in place.addresses for place in self._places.values()
        )

    def _reach(self, server: int) -> tuple[str, ...]:
        """A member's addresses that are good on this machine."""
        place = self._places[server]
        met = [address for address in self.configured if self.server_at(address) == server]
        usable = [
            address
            for address in place.addresses
            if place.host == self._host
            or not address.startswith(UNIX)
            or address in self.configured
        ]
        good = self._good.get(server)
        return tuple(
            sorted(
                dict.fromkeys(usable + met),
                key=lambda address: (not address.startswith(UNIX), address != good),
            )
        )
