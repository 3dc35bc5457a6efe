"""The first frame in each direction: who speaks, for which cluster, in which protocol versions."""

from .base import Message

METASERVER = "metaserver"
CHUNKSERVER = "chunkserver"
CLIENT = "client"
ROLES = (METASERVER, CHUNKSERVER, CLIENT)

ANY_CLUSTER = ""
"""What a client says that does not know the cluster's id yet; it then takes the server's word."""


class Hello(Message):
    """From the side that connected."""

    version_min: int
    version_max: int
    cluster: str
    role: str
    server: int  # the speaker's server id, 0 for a client


class Welcome(Message):
    """From the side that accepted: the version to speak, and who answers."""

    version: int
    cluster: str
    role: str
    server: int
    credits: int  # how many requests may be in flight on this connection


class Refusal(Message):
    """Instead of Welcome, or as the last frame before a connection is closed: why, in words."""

    code: int
    detail: str
