"""Who may speak with whom: the decisions of the first frame in each direction, as pure functions.

The side that connected says ``Hello``; the other answers ``Welcome`` or ``Refusal``. Each mismatch
is refused in words that a person can act on.
"""

from typing import NamedTuple

from .errors import Code, TideError
from .limits import CREDITS_PER_CONNECTION, PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN
from .messages.hello import ANY_CLUSTER, CLIENT, ROLES, Hello, Welcome


class Identity(NamedTuple):
    """Who a process is. ``server`` is 0 for a client, ``cluster`` ANY_CLUSTER while unknown."""

    cluster: str
    role: str
    server: int
    credits: int = CREDITS_PER_CONNECTION

    def hello(self) -> Hello:
        """What this process says when it connects."""
        return Hello(
            version_min=PROTOCOL_VERSION_MIN,
            version_max=PROTOCOL_VERSION_MAX,
            cluster=self.cluster,
            role=self.role,
            server=self.server,
        )


def welcome(identity: Identity, hello: Hello) -> Welcome:
    """The answer to ``hello``, or TideError with the reason of the refusal."""
    if hello.role not in ROLES:
        raise TideError(
            Code.WRONG_ROLE, f"{hello.role!r} is not a role (there are {', '.join(ROLES)})"
        )
    version = min(hello.version_max, PROTOCOL_VERSION_MAX)
    if version < max(hello.version_min, PROTOCOL_VERSION_MIN):
        raise TideError(
            Code.WRONG_PROTOCOL,
            f"the {hello.role} speaks protocol versions {hello.version_min} to "
            f"{hello.version_max}, this {identity.role} {PROTOCOL_VERSION_MIN} to "
            f"{PROTOCOL_VERSION_MAX}; upgrade the older one",
        )
    _check_cluster(hello.cluster, hello.role, identity.cluster, f"this {identity.role}")
    return Welcome(
        version=version,
        cluster=identity.cluster,
        role=identity.role,
        server=identity.server,
        credits=identity.credits,
    )


def check_welcome(hello: Hello, answer: Welcome, role: str | None) -> None:
    """Whether who answered is who was looked for; ``role`` None takes any."""
    if role is not None and answer.role != role:
        raise TideError(Code.WRONG_ROLE, f"a {role} was looked for, a {answer.role} answered")
    if not hello.version_min <= answer.version <= hello.version_max:
        raise TideError(
            Code.WRONG_PROTOCOL,
            f"the {answer.role} wants protocol version {answer.version}, this {hello.role} "
            f"speaks {hello.version_min} to {hello.version_max}; upgrade the older one",
        )
    if answer.credits < 1:
        raise TideError(Code.MALFORMED, f"the {answer.role} gives no credits")
    _check_cluster(answer.cluster, answer.role, hello.cluster, f"this {hello.role}")


def describe(speaker: Hello | Welcome, address: str) -> str:
    """How the other side of a connection is called in messages to people."""
    if speaker.role == CLIENT:
        return f"client at {address}"
    return f"{speaker.role} {speaker.server:016x} at {address}"


def _check_cluster(theirs: str, role: str, ours: str, this: str) -> None:
    if ANY_CLUSTER not in (theirs, ours) and theirs != ours:
        raise TideError(
            Code.WRONG_CLUSTER,
            f"the {role} belongs to cluster {theirs!r}, {this} to {ours!r}; "
            f"check the address and the cluster id in the configuration",
        )
