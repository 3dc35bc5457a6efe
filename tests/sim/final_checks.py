"""What must hold once everything is healed and quiet: the servers, looked at from outside.

Every chunk has its copies again; what was synced is byte for byte the same on every replica that
the metaserver names; and the state that recovery makes of the metaserver's disk is consistent.
"""

import trio
from tidefs.fs.attributes import Kind
from tidefs.fs.limits import CHUNK_BYTES, LAYOUT_CHUNKS_MAX
from tidefs.fs.messages.chunk import ReadChunk
from tidefs.fs.messages.hello import ANY_CLUSTER, CLIENT
from tidefs.fs.messages.meta import GetLayout, GetStatus
from tidefs.fs.messages.places import ChunkPlace
from tidefs.fs.ports import Ports
from tidefs.fs.rpc import Identity, Peer, connect, no_requests

from .file_model import FileModel
from .model import Node
from .rivals import Rival
from .user import as_text
from .workload import ViolationError, Worker

POLL_S = 1.0
WELL_AFTER_MAX_S = 120.0


class Inspector:
    """Speaks with the servers as a client does, without a mount."""

    def __init__(self, ports: Ports, nursery: trio.Nursery) -> None:
        self._ports = ports
        self._nursery = nursery
        self._peers: dict[str, Peer] = {}

    async def _peer(self, address: str) -> Peer:
        peer = self._peers.get(address)
        if peer is None or peer.closed:
            hello = Identity(ANY_CLUSTER, CLIENT, 0).hello()
            peer = await connect(self._ports, address, hello, no_requests, self._nursery)
            self._peers[address] = peer
        return peer

    async def wait_until_well(self, metaserver: str) -> None:
        """Return once the leader sees nothing wrong; a violation if that takes too long."""
        said = ""
        with trio.move_on_after(WELL_AFTER_MAX_S):
            while True:
                status = await (await self._peer(metaserver)).call(GetStatus())
                if not status.chunks_missing_copies and not status.problems:
                    return
                said = f"{status.chunks_missing_copies} chunks miss copies; {status.problems}"
                await trio.sleep(POLL_S)
        raise ViolationError(f"still not well after {WELL_AFTER_MAX_S:.0f} s: {said}")

    async def compare_replicas(self, metaserver: str, worker: Worker | Rival) -> None:
        """Each replica of a file all of whose bytes were synced has exactly these bytes."""
        for path, node in worker.tree.paths():
            if node.kind is Kind.FILE and node.file.all_synced():
                await self._compare_file(metaserver, node, f"{worker.name} {as_text(path)}")

    async def _compare_file(self, metaserver: str, node: Node, name: str) -> None:
        assert node.inode is not None
        count = -(-node.file.size // CHUNK_BYTES)
        for first in range(0, count, LAYOUT_CHUNKS_MAX):
            asked = GetLayout(
                inode=node.inode,
                first=first,
                count=min(count - first, LAYOUT_CHUNKS_MAX),
                write=False,
            )
            for place in (await (await self._peer(metaserver)).call(asked)).chunks:
                await self._compare_chunk(place, node.file, name)

    async def _compare_chunk(self, place: ChunkPlace, file: FileModel, name: str) -> None:
        base = place.index * CHUNK_BYTES
        wanted = file.expected(base, min(CHUNK_BYTES, file.size - base))
        for replica in place.replicas:
            peer = await self._peer(replica.addresses[0])
            asked = ReadChunk(
                handle=place.handle, version=place.version, offset=0, length=len(wanted)
            )
            _, payload = await peer.exchange(asked)
            found = bytes(payload).ljust(len(wanted), b"\0")
            if found != wanted:
                at = next(at for at in range(len(wanted)) if wanted[at] != found[at])
                raise ViolationError(
                    f"{name}: replica of chunk {place.handle:x} on {replica.host} differs from what"
                    f" was synced at byte {base + at}: {found[at]:#04x}, not {wanted[at]:#04x}"
                )
