"""From what the disk holds to a store that can serve: the same after a clean stop, kill and crash.

Each chunk with records in the journal, or whose header says that bytes may have been un-synced, is
rebuilt: the records' bytes are written again, and blocks nobody vouches for get a new checksum
from what is found in them. Then each gets a checkpoint, by the same steps as any other day.
"""

import logging
from typing import NamedTuple

from ..fs.errors import Code, TideError
from ..fs.ids import ChunkHandle
from ..fs.ports.disk import Disk, File
from .chunk_file import Chunk
from .journal import Journal
from .layout import (
    BLOCK_BYTES,
    CHUNKS,
    DAMAGED,
    DATA_START,
    HEADER_MAX_BYTES,
    INCOMING,
    Header,
    block_sum,
    blocks_below,
    chunk_folder,
    chunk_path,
    handle_of,
    is_zero,
    unpack_header,
)
from .records import Kind, Record
from .replay import Cut, Damaged, Gone, Rebuilt, rebuild
from .shelf import Entry, Shelf
from .upkeep import Upkeep

log = logging.getLogger(__name__)

BOOT = "boot"
REBUILT_AT_ONCE = 64


class Found(NamedTuple):
    """What must be looked at more closely."""

    records: dict[int, list[Record]]
    headers: dict[
        int, Header | None
    ]  # of those that have records, or are not clean, or are damaged
    crashed: bool  # the machine was started anew since the last run


async def load(disk: Disk, shelf: Shelf, journal: Journal) -> Found:
    """Enter all chunks into the index, and say which ones need rebuilding."""
    history = await journal.read()
    if history.torn:
        log.info("the end of the journal had not been synced, and was cut off")
    records: dict[int, list[Record]] = {}
    for record in history.records:
        if record.kind is not Kind.TRIM:
            records.setdefault(record.handle, []).append(record)
    headers: dict[int, Header | None] = {}
    for folder in disk.names(CHUNKS):
        for name in disk.names(f"{CHUNKS}/{folder}"):
            handle = handle_of(name)
            if handle is not None:
                await _look_at(disk, shelf, handle, handle in records, headers)
    for recorded in records:
        headers.setdefault(recorded, None)
    _clear_incoming(disk)
    return Found(records, headers, await _machine_crashed(disk))


async def _look_at(
    disk: Disk, shelf: Shelf, handle: ChunkHandle, recorded: bool, headers: dict[int, Header | None]
) -> None:
    file = disk.open(chunk_path(handle))
    try:
        header = unpack_header(await file.read(0, HEADER_MAX_BYTES))
        if header is not None and header.handle == handle:
            data_bytes = max(file.size() - DATA_START, 0)
            blocks = sum(1 for found in header.sums if found)
            stored_bytes = min(blocks * BLOCK_BYTES, data_bytes)
            lost = header.version if header.suspect else header.lost
            shelf.enter(handle, Entry(header.version, header.suspect, lost, stored_bytes))
            if header.clean and not recorded:
                return
        else:
            header = None
        headers[handle] = header
    finally:
        file.close()


def _clear_incoming(disk: Disk) -> None:
    for name in disk.names(INCOMING):
        disk.remove(f"{INCOMING}/{name}")


async def _machine_crashed(disk: Disk) -> bool:
    """Whether the machine was started anew since ``_note_boot``, as far as one can tell."""
    if not disk.boot_id() or not disk.exists(BOOT):
        return True
    file = disk.open(BOOT)
    found = await file.read(0, file.size())
    file.close()
    return found != disk.boot_id().encode()


async def _note_boot(disk: Disk) -> None:
    file = disk.open(f"{BOOT}.new", create=True)
    file.truncate(0)
    file.write(0, [disk.boot_id().encode()])
    await file.sync()
    file.close()
    disk.rename(f"{BOOT}.new", BOOT)
    await disk.sync_folder("")


async def rebuild_all(disk: Disk, shelf: Shelf, upkeep: Upkeep, found: Found) -> None:
    """Bring every chunk that needs it to a state as after a clean stop."""
    for handle, records in found.records.items():
        upkeep.kept[handle] = records[0].sequence
    folders: set[str] = set()
    for number, handle in enumerate(sorted(found.headers), 1):
        known, records = ChunkHandle(handle), found.records.get(handle, [])
        outcome = rebuild(known, found.headers[handle], records)
        if isinstance(outcome, Rebuilt):
            await _redo(disk, shelf, known, outcome, records, found.crashed)
        else:
            folders |= await _put_away(disk, shelf, known, outcome)
        if number % REBUILT_AT_ONCE == 0:
            await upkeep.flush(idle_ns=0)
    for folder in sorted(folders):
        await disk.sync_folder(folder)
    upkeep.kept.clear()
    await upkeep.finish()
    if found.crashed:
        try:
            await _note_boot(disk)
        except TideError as error:
            if error.code is not Code.NO_SPACE:
                raise
            log.warning("the next start will not know that the machine stayed up: %s", error)
    if found.headers:
        log.info(
            "chunks that were in use when the %s: %d",
            "machine went down" if found.crashed else "server ended",
            len(found.headers),
        )


async def _redo(
    disk: Disk,
    shelf: Shelf,
    handle: ChunkHandle,
    rebuilt: Rebuilt,
    records: list[Record],
    crashed: bool,
) -> None:
    chunk = Chunk(handle, rebuilt.version, rebuilt.sums)
    file = disk.open(chunk.path, create=True)
    try:
        for action in rebuilt.actions:
            if not isinstance(action, Cut):
                file.write(DATA_START + action.offset, [action.data])
            elif file.size() > DATA_START + action.offset:
                file.truncate(DATA_START + action.offset)
        chunk.measure(file)
        await _check_anew(chunk, file, rebuilt)
    finally:
        file.close()
    chunk.lost = rebuilt.lost
    chunk.suspect = rebuilt.suspect or (crashed and rebuilt.dirty)
    chunk.new = True
    chunk.marked = 0
    chunk.floor = rebuilt.floor
    for record in records:
        chunk.noted(record.sequence)
    shelf.put(chunk)


async def _check_anew(chunk: Chunk, file: File, rebuilt: Rebuilt) -> None:
    """Give a new checksum to the blocks that nobody vouches for."""
    doubtful = set(rebuilt.unsure)
    if rebuilt.dirty:
        doubtful.update(
            block for block in range(blocks_below(chunk.length)) if not chunk.sum_at(block)
        )
    for block in sorted(doubtful):
        content = await file.read(DATA_START + block * BLOCK_BYTES, BLOCK_BYTES)
        chunk.found(block, 0 if is_zero(content) else block_sum(content), len(content))


async def _put_away(
    disk: Disk, shelf: Shelf, handle: ChunkHandle, outcome: Gone | Damaged
) -> set[str]:
    """Remove what was deleted; set aside what cannot be read. The folders that were changed.

    A file that never had a header, and that the journal does not know, was begun just before a
    crash: no write to it was acknowledged.
    """
    if shelf.entry(handle) is not None:
        shelf.drop(handle)
    path = chunk_path(handle)
    if not disk.exists(path):
        if isinstance(outcome, Damaged):
            log.error("chunk %016x is gone: its file %s is missing", handle, path)
        return {chunk_folder(handle)}
    file = disk.open(path)
    try:
        begun = file.size() <= DATA_START or not any(await file.read(0, HEADER_MAX_BYTES))
    finally:
        file.close()
    if isinstance(outcome, Gone) or begun:
        disk.remove(path)
        return {chunk_folder(handle)}
    disk.make_folder(DAMAGED)
    disk.rename(path, f"{DAMAGED}/{handle:016x}")
    log.error("chunk %016x: the header of its file is damaged; it is now in %s", handle, DAMAGED)
    return {chunk_folder(handle), DAMAGED}
