"""Promises: what a metaserver said of an inode holds until it is recalled.

AFS's callback (Howard et al. 1988), NFSv4's delegation (RFC 8881 section 10) and the
leases of Gray and Cheriton (1989) are one thing here: a *promise* to a session about an inode, its
attributes, names and bytes. A reply that says ``promised`` makes one, *shared*, for each inode that
it tells of. Before anything about the inode changes, whoever else was promised it has answered a
``Recall``, or its session is over: so a promise lasts no longer than the session's lease, however
the network behaves, and a client that cannot renew it stops believing first.

``Claim`` makes an *exclusive* one: nobody else is promised the inode, and who asks about it is
answered only when the holder was recalled; so the holder may keep changes to itself for a while.

Promises live in the leader's memory, and of a session on the connection that it uses. On a new one
it holds none but the exclusive ones that it names (``ResumeSession.claims``): what it is writing
must not be seen in part. A new leader carries out no change, and promises nothing, before every
session that may hold promises of its predecessor has resumed, or ended.
"""

from .base import Done, Request, method
from .meta import Node


@method(0x0170)
class Recall(Request[Done]):
    """Metaserver to client: answer when nothing that was told of these inodes is believed any
    more, here or by the kernel, and what was kept of changes to them is committed.

    What is told of them in replies behind this is a new promise."""

    inodes: list[int]


@method(0x0171)
class Claim(Request[Node]):
    """An exclusive promise. The reply says ``promised``, or the caller asks again later."""

    inode: int
