"""When a chunkserver refuses the fencing token of a write: is it old, or are we?

The token of a lock is refused once a write with a higher one was seen. Often that is right: the
lock is lost. But locks on different bytes of a file are held together, each with its own token, and
so are shared ones. So whoever is refused asks the metaservers. If its session lives and holds locks
on the file, its writes carry the higher token from then on. That is as safe: should the session end
before such a write arrives, the next to lock the same bytes has a higher token still.
"""

from ..fs.errors import Code, TideError
from ..fs.messages.locks import GetSessionLocks
from .inodes import File
from .servers import MetaServers


async def raise_fence(meta: MetaServers, file: File, refusal: TideError) -> None:
    """After FENCED: return when the write may be tried again. TideError: our lock is lost."""
    session = file.locked_in
    if session is None:
        return  # given back meanwhile: what is written now needs none
    standing = await meta.call(GetSessionLocks(session), session=session)
    file.check_not_lost()
    if file.inode not in dict(standing.tokens):
        raise refusal
    file.fence = max(file.fence, token_seen(refusal))


def token_seen(refusal: TideError) -> int:
    """What a chunkserver has seen: the number behind the last colon of its FENCED."""
    try:
        return int(refusal.detail.rpartition(":")[2])
    except ValueError:
        raise TideError(Code.MALFORMED, f"FENCED without a token: {refusal.detail}") from None
