"""What must hold once everything is healed and quiet: the servers, looked at from outside.

Every chunk has its copies again; what was synced is byte for byte the same on every replica that
the leader names; and all members of the group have the same state.
"""

from collections.abc import Sequence
from typing import Any

import trio
from tidefs.fs.attributes import Kind
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import CHUNK_BYTES, LAYOUT_CHUNKS_MAX
from tidefs.fs.messages.base import Request
from tidefs.fs.messages.chunk import ReadChunk
from tidefs.fs.messages.hello import ANY_CLUSTER, CLIENT
from tidefs.fs.messages.meta import GetLayout, GetStatus
from tidefs.fs.messages.places import ChunkPlace
from tidefs.fs.messages.raft import Digest, GetDigest
from tidefs.fs.ports import Ports
from tidefs.fs.rpc import Identity, Peer, connect, no_requests

from .admin import TRY_AGAIN
from .cluster import Cluster, Process
from .conditions import ViolationError
from .file_model import FileModel
from .model import Node
from .rivals import Rival
from .sharers import Sharer
from .user import as_text
from .workload import Worker

POLL_S = 1.0
REPAIRED = "it has been replaced"
WELL_AFTER_MAX_S = 120.0
AGREE_AFTER_MAX_S = 30.0


async def check_servers(cluster: Cluster, workers: Sequence[Worker | Rival | Sharer]) -> None:
    """Look at all servers. ``workers`` know which bytes were synced."""
    visitor = Process(cluster, "inspector")
    ports, scope = visitor.begin(visitor.no_disk())

    async def inspect() -> None:
        async with trio.open_nursery() as nursery:
            inspector = Inspector(ports, nursery, cluster)
            if cluster.chunkservers:
                await inspector.wait_until_well()
            else:
                await inspector.wait_until_led()
            for worker in workers:
                while not await inspector.compare_replicas(worker):
                    await inspector.wait_until_well()
            await inspector.compare_members()
            nursery.cancel_scope.cancel()

    await visitor.live(scope, inspect)


class Inspector:
    """Speaks with the servers as a client does, without a mount."""

    def __init__(self, ports: Ports, nursery: trio.Nursery, cluster: Cluster) -> None:
        self._cluster = cluster
        self._rot_was_met = False
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

    async def _ask_leader(self, request: Request[Any]) -> Any:
        """The leader's answer, whoever that is."""
        while True:
            for address in self._cluster.addresses():
                try:
                    return await (await self._peer(address)).call(request)
                except TideError as error:
                    if error.code not in TRY_AGAIN:
                        raise
            await trio.sleep(POLL_S)

    async def wait_until_well(self) -> None:
        """Return once the leader sees nothing wrong; a violation if that takes too long."""
        said = ""
        with trio.move_on_after(WELL_AFTER_MAX_S):
            while True:
                status = await self._ask_leader(GetStatus())
                # What was repaired is still told for a while, to people.
                problems = [one for one in status.problems if not one.endswith(REPAIRED)]
                if not status.chunks_missing_copies and not problems:
                    return
                said = f"{status.chunks_missing_copies} chunks miss copies; {problems}"
                await trio.sleep(POLL_S)
        raise ViolationError(f"still not well after {WELL_AFTER_MAX_S:.0f} s: {said}")

    async def wait_until_led(self) -> None:
        """Return once somebody leads, and has applied all that was ever agreed on."""
        await self._ask_leader(GetStatus())

    async def compare_members(self) -> None:
        """Return once all members have applied the same log, and have the same state then."""
        said = ""
        with trio.move_on_after(AGREE_AFTER_MAX_S):
            while True:
                try:
                    digests = await self._digests()
                except TideError as error:
                    if error.code not in TRY_AGAIN:
                        raise
                    said = str(error)
                else:
                    said = ", ".join(
                        f"{host}: {each.digest:016x} at {each.applied_index}"
                        for host, each in digests.items()
                    )
                    if len({each.applied_index for each in digests.values()}) == 1:
                        if len({each.digest for each in digests.values()}) > 1:
                            raise ViolationError(f"members have different states: {said}")
                        self._cluster.trace.note("check", said)
                        return
                await trio.sleep(POLL_S / 4)
        raise ViolationError(f"after {AGREE_AFTER_MAX_S:.0f} s members do not agree: {said}")

    async def _digests(self) -> dict[str, Digest]:
        found = {}
        for member in self._cluster.metaservers:
            peer = await self._peer(member.place.addresses[0])
            found[member.host] = await peer.call(GetDigest())
        return found

    async def compare_replicas(self, worker: Worker | Rival | Sharer) -> bool:
        """Each replica of a file all of whose bytes were synced has exactly these bytes.

        False when rot was met that nobody had read yet: it is known and will be repaired now.
        """
        self._rot_was_met = False
        for path, node in worker.tree.paths():
            if node.kind is Kind.FILE and node.file.all_synced():
                await self._compare_file(node, f"{worker.name} {as_text(path)}")
        return not self._rot_was_met

    async def _compare_file(self, node: Node, name: str) -> None:
        assert node.inode is not None
        count = -(-node.file.size // CHUNK_BYTES)
        for first in range(0, count, LAYOUT_CHUNKS_MAX):
            asked = GetLayout(
                inode=node.inode,
                first=first,
                count=min(count - first, LAYOUT_CHUNKS_MAX),
                write=False,
            )
            for place in (await self._ask_leader(asked)).chunks:
                await self._compare_chunk(place, node.file, name)

    async def _compare_chunk(self, place: ChunkPlace, file: FileModel, name: str) -> None:
        base = place.index * CHUNK_BYTES
        wanted = file.expected(base, min(CHUNK_BYTES, file.size - base))
        for replica in place.replicas:
            peer = await self._peer(replica.addresses[0])
            asked = ReadChunk(
                handle=place.handle, version=place.version, offset=0, length=len(wanted)
            )
            try:
                _, payload = await peer.exchange(asked)
            except TideError as error:
                if error.code is not Code.BAD_CHECKSUM or not self._cluster.conditions.bits_rotted:
                    raise
                self._rot_was_met = True
                continue
            found = bytes(payload).ljust(len(wanted), b"\0")
            if found != wanted:
                at = next(at for at in range(len(wanted)) if wanted[at] != found[at])
                raise ViolationError(
                    f"{name}: replica of chunk {place.handle:x} on {replica.host} differs from what"
                    f" was synced at byte {base + at}: {found[at]:#04x}, not {wanted[at]:#04x}"
                )
