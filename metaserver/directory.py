"""Where the members of the group are: from the configuration file, then from the log. Pure."""

from collections.abc import Sequence

from ..fs.messages.places import ServerPlace
from ..fs.messages.raft import Configuration

_UNIX = "unix:"


class Directory:
    """What one member knows of where the others are.

    ``configured`` comes from the file of the member ``server`` on the machine ``host``. It says who
    is asked as long as there is no log, and which addresses are tried first; who belongs to the
    group is said by the configuration in the log as soon as there is one.
    """

    def __init__(self, server: int, host: str, configured: Sequence[ServerPlace]) -> None:
        self._server = server
        self._host = host
        self._configured = {place.server: place for place in configured}
        self._logged: dict[int, ServerPlace] = {}
        self._removed: frozenset[int] = frozenset()
        self._learned: Configuration | None = None

    def learn(self, configuration: Configuration) -> bool:
        """This one is in force; whether it was another one before."""
        if configuration is self._learned or configuration == self._learned:
            return False
        self._learned = configuration
        self._logged = {place.server: place for place in configuration.places}
        self._removed = frozenset(configuration.removed)
        return True

    def others(self) -> list[int]:
        """The other members that can be reached from here, in a fixed order."""
        known = self._logged or self._configured
        return [
            server
            for server in sorted(known)
            if server not in (self._server, *self._removed) and self.addresses(server)
        ]

    def addresses(self, server: int) -> tuple[str, ...]:
        """All that are good on this machine, the best one first."""
        places = [known[server] for known in (self._configured, self._logged) if server in known]
        return tuple(
            dict.fromkeys(
                address
                for place in places
                for address in place.addresses
                if place.host == self._host or not address.startswith(_UNIX)
            )
        )

    def was_removed(self, server: int) -> bool:
        """Whether it was a member once, and must never be one again."""
        return server in self._removed
