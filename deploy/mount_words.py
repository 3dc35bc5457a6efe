"""Words of /etc/fstab that are for mount(8) and service managers, not for a file system. Pure."""

from collections.abc import Iterable

from ..client.options import OPTIONS

NOT_OURS = frozenset(
    {
        "defaults",  # ours
        "auto", "noauto", "nofail", "_netdev", "_rnetdev",  # when it is mounted
        "user", "nouser", "users", "nousers", "owner", "noowner", "group", "nogroup",  # by whom
        "async", "dirsync",  # a name is durable when the call returns, and bytes when fsync does
        "silent", "loud", "mand", "nomand", "iversion", "noiversion", "lazytime", "nolazytime",
    }
)  # fmt: skip
PREFIXES = ("x-", "X-", "comment=", "user=", "helper=", "uhelper=")

REFUSED = {
    "sync": "use mode=uncached: then each write is on the servers when the call returns",
    "remount": "a mount cannot be changed: unmount it, then mount it anew",
    "bind": "mount --bind needs no helper",
}
"""Words that would be a promise."""


def ours(texts: Iterable[str], *, sloppy: bool = False) -> tuple[list[str], dict[str, str]]:
    """The words that are for us, and those that must be refused with the reason.

    ``sloppy``: without those that nobody knows.
    """
    words = [word.strip() for text in texts for word in text.split(",") if word.strip()]
    refused = {word: REFUSED[word] for word in words if word in REFUSED}
    kept = [
        word
        for word in words
        if word not in NOT_OURS and word not in refused and not word.startswith(PREFIXES)
    ]
    if sloppy:
        kept = [word for word in kept if word.partition("=")[0] in OPTIONS]
    return kept, refused
