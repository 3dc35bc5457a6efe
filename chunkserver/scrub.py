"""The scrub: every chunk is read and checked now and then, so that damage is found in time.

Slowly, and one piece at a time: it must not be felt. What it finds is reported by the store.
"""

import logging

import trio

from ..fs.errors import Code, TideError
from ..fs.limits import CHUNK_BYTES, MIB
from .store import Store

log = logging.getLogger(__name__)

PIECE_BYTES = 1 * MIB
ROUND_MIN_S = 3600.0
"""So long at least from the beginning of one round to that of the next."""


async def scrub(store: Store, bytes_per_s: int) -> None:
    """Round after round, until cancelled."""
    while True:
        next_round = trio.current_time() + ROUND_MIN_S
        for handle in sorted(store.shelf.index):
            await scrub_chunk(store, handle, bytes_per_s)
        await trio.sleep_until(next_round)


async def scrub_chunk(store: Store, handle: int, bytes_per_s: int) -> None:
    """Check one chunk; the store reports what is damaged."""
    for offset in range(0, CHUNK_BYTES, PIECE_BYTES):
        await trio.sleep(PIECE_BYTES / bytes_per_s)
        try:
            data = await store.read(handle, offset, PIECE_BYTES)
        except TideError as error:
            if error.code is Code.BAD_CHECKSUM:
                continue
            if error.code is not Code.NO_CHUNK:
                log.warning("scrub: %s", error)
            return
        if len(data) < PIECE_BYTES:
            return
