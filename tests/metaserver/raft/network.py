"""What is on its way between members: packets that a test delivers, drops, doubles, holds up."""

import heapq
from collections.abc import Callable, Iterable, Iterator

from tidefs.metaserver.raft.contract import Envelope


class Packet:
    """An envelope on its way; it arrives at ``due_ns`` when nobody interferes."""

    __slots__ = ("due_ns", "envelope", "gone", "number")

    def __init__(self, number: int, envelope: Envelope, due_ns: int) -> None:
        self.number = number
        self.envelope = envelope
        self.due_ns = due_ns
        self.gone = False

    def __lt__(self, other: "Packet") -> bool:
        return (self.due_ns, self.number) < (other.due_ns, other.number)


class Network:
    """All packets on their way. Links are cut in one direction each."""

    def __init__(self, latency_ns: Callable[[], int]) -> None:
        self.latency_ns = latency_ns
        self.cut: set[tuple[int, int]] = set()
        self.loses: Callable[[Envelope], bool] = lambda envelope: False
        self._sent = 0
        self._heap: list[Packet] = []

    def send(self, envelope: Envelope, now_ns: int) -> None:
        """It goes off, or is lost on a link that is cut."""
        if (envelope.sender, envelope.receiver) in self.cut or self.loses(envelope):
            return
        self._sent += 1
        packet = Packet(self._sent, envelope, now_ns + self.latency_ns())
        heapq.heappush(self._heap, packet)

    def take(self, packet: Packet) -> Envelope | None:
        """Off the network; None when its link was cut meanwhile."""
        packet.gone = True
        link = (packet.envelope.sender, packet.envelope.receiver)
        return None if link in self.cut else packet.envelope

    def double(self, packet: Packet) -> None:
        """A second one of it, which arrives after all that are on their way."""
        self._sent += 1
        due_ns = max(other.due_ns for other in self._heap)
        heapq.heappush(self._heap, Packet(self._sent, packet.envelope, due_ns))

    def delay(self, packet: Packet, by_ns: int) -> None:
        """It arrives that much later."""
        packet.gone = True
        self._sent += 1
        heapq.heappush(self._heap, Packet(self._sent, packet.envelope, packet.due_ns + by_ns))

    def first(self) -> Packet | None:
        """The next to arrive."""
        while self._heap and self._heap[0].gone:
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None

    def flying(self, sender: int | None = None, receiver: int | None = None) -> list[Packet]:
        """In the order they were sent."""
        found = [
            packet
            for packet in self._heap
            if not packet.gone
            and sender in (None, packet.envelope.sender)
            and receiver in (None, packet.envelope.receiver)
        ]
        return sorted(found, key=lambda packet: packet.number)

    def drop_all(self, sender: int | None = None, receiver: int | None = None) -> None:
        """They are lost."""
        for packet in self.flying(sender, receiver):
            packet.gone = True

    def links(self) -> Iterator[tuple[int, int]]:
        """Between whom something is on its way, each once, in order."""
        yield from sorted({packet.envelope[:2] for packet in self.flying()})

    def isolate(self, one: int, others: Iterable[int]) -> None:
        """Nothing goes between it and the others."""
        for other in others:
            if other != one:
                self.cut |= {(one, other), (other, one)}
