"""A network in one process: hosts, links, connections, and everything that can happen to a packet.

What one ``send_nowait`` carries is one packet. It must consist of whole frames (``split`` checks
it), and therefore may be lost or come twice without breaking the stream: those frames are then
lost or come twice, which a real stream never does and which is harder for the callers. In one
direction of one connection packets arrive in the order sent, except late duplicates.

A packet's fate is drawn when it is sent; whether the link is blocked is looked at when it arrives.
A blocked link loses what arrives (as a router does that drops) or holds it until the link opens
(as TCP does that sends again).

A process that is killed closes its connections: the other side sees the end, or a reset. A machine
that crashes says nothing; once it is up again, it answers a packet for a connection that it does
not know with a reset.
"""

import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, NoReturn

import trio
from tidefs.fs.codec import Buffer, checksum
from tidefs.fs.errors import Code, TideError
from tidefs.fs.ports.network import Listener, Stream

from .postman import Postman
from .trace import Trace

SILENCE_S = 60.0
"""How long a connection attempt that nobody answers takes, if the caller is that patient."""

Split = Callable[[bytes], list[str]]
"""What each frame in a packet is, in a word or two; raises when it is not whole frames."""

Cut = Callable[[bytes], list[bytes]]
"""The frames of a packet."""


@dataclass
class Weather:
    """What happens to packets. Probabilities are per packet; times are one way."""

    latency_min_s: float = 0.000_1
    latency_max_s: float = 0.002
    bytes_per_s: float = 100e6
    slow: float = 0.0
    slow_max_s: float = 2.0
    scatter: float = 0.0
    """The frames of a packet travel as packets of their own, as TCP may cut them."""
    drop: float = 0.0
    duplicate: float = 0.0
    late_duplicate: float = 0.0
    late_max_s: float = 3.0
    window_bytes: int = 8 << 20


class Packet(NamedTuple):
    """On its way: what happens when it arrives, and when it does not."""

    sender: str
    receiver: str
    what: str
    arrival: Callable[[], None]
    lost: Callable[[], None]


class SimulatedNetwork:
    """All hosts and the links between them. One a run."""

    def __init__(
        self, postman: Postman, seed: str, trace: Trace, split: Split, cut: Cut | None = None
    ) -> None:
        """Without ``cut`` packets stay whole."""
        self.cut = cut
        self.postman = postman
        self.random = random.Random(seed)
        self.trace = trace
        self.split = split
        self.weather = Weather()
        self.listeners: dict[str, SimulatedListener] = {}
        self.on_sent: dict[str, Callable[[list[str]], None]] = {}
        """Told what each frame is that a host sends, as it is sent."""
        self.on_arrived: dict[str, Callable[[str], None]] = {}
        """Told what arrives at a host, as the trace tells it."""
        self._down: dict[str, bool] = {}
        self._held: dict[tuple[str, str], list[Callable[[], None]] | None] = {}
        self._connections = 0
        self._next_port = 49_152

    # --- hosts and links -----------------------------------------------------------------------

    def attach(self, host: str) -> "HostNetwork":
        """The network port of a new process on ``host``; the machine is up."""
        self._down[host] = False
        return HostNetwork(self, host)

    def block(self, sender: str, receiver: str, *, hold: bool) -> None:
        """From now on nothing gets from one host to the other (it may still the other way)."""
        self._held.setdefault((sender, receiver), [] if hold else None)

    def open(self, sender: str, receiver: str) -> None:
        """End a ``block``; what was held arrives now, in order."""
        for arrival in self._held.pop((sender, receiver), None) or ():
            self.postman.after(0, arrival)

    def blocked(self) -> list[tuple[str, str]]:
        """The links that are blocked, oldest first."""
        return list(self._held)

    def set_down(self, host: str) -> None:
        """The machine is off: silence, until something attaches to it again."""
        self._down[host] = True

    def reachable(self, sender: str, receiver: str) -> bool:
        """Whether a packet sent now would get through, fate aside."""
        return (sender, receiver) not in self._held and not self._down.get(receiver, True)

    # --- for the parts below -------------------------------------------------------------------

    def latency_s(self, length: int = 0) -> float:
        weather = self.weather
        latency = self.random.uniform(weather.latency_min_s, weather.latency_max_s)
        if weather.slow and self.random.random() < weather.slow:
            latency += self.random.uniform(0, weather.slow_max_s)
        return latency + length / weather.bytes_per_s

    def next_connection(self) -> int:
        self._connections += 1
        return self._connections

    def next_port(self) -> int:
        self._next_port += 1
        return self._next_port

    def arrive(self, packet: "Packet") -> None:
        """At the receiver's door: it gets in, or the link or the machine is dead."""
        link = (packet.sender, packet.receiver)
        held = self._held.get(link)
        if held is not None:
            self.trace.note("net", f"{packet.sender}>{packet.receiver} held {packet.what}")
            held.append(partial(self.arrive, packet))
        elif link in self._held or self._down.get(packet.receiver, True):
            self.trace.note("net", f"{packet.sender}>{packet.receiver} lost {packet.what}")
            packet.lost()
        else:
            packet.arrival()


class HostNetwork:
    """The network port of one process. ``kill`` is what ends it."""

    def __init__(self, network: SimulatedNetwork, host: str) -> None:
        self._network = network
        self.host = host
        self.dead = False
        self._ends: dict[int, SimulatedStream] = {}
        self._listeners: list[SimulatedListener] = []

    async def connect(self, address: str) -> Stream:
        network = self._network
        target = _host_of(address, self.host)
        await trio.sleep(network.latency_s())
        if not network.reachable(self.host, target) or not network.reachable(target, self.host):
            await trio.sleep(SILENCE_S)
            raise TideError(Code.DISCONNECTED, f"{address} does not answer")
        listener = network.listeners.get(_key(address, self.host))
        if listener is None:
            raise TideError(Code.DISCONNECTED, f"{address} refuses connections")
        number = network.next_connection()
        near = SimulatedStream(network, self, f"{number}a", address)
        far = SimulatedStream(network, listener.port, f"{number}b", f"tcp:{self.host}:{number}")
        near.peer, far.peer = far, near
        network.trace.note("net", f"{self.host}>{target} connected {number}")
        self.adopt(near)
        listener.port.adopt(far)
        listener.offer(far)
        try:
            await trio.sleep(network.latency_s())
        except trio.Cancelled:
            near.close()
            raise
        return near

    async def listen(self, address: str) -> Listener:
        if address.endswith(":0"):
            address = f"{address[:-1]}{self._network.next_port()}"
        if _host_of(address, self.host) != self.host:
            raise TideError(Code.INVALID, f"{address} is not an address of {self.host}")
        if _key(address, self.host) in self._network.listeners:
            raise TideError(Code.INVALID, f"{address} is in use: choose another port")
        await trio.lowlevel.checkpoint()
        listener = SimulatedListener(self._network, self, address)
        self._network.listeners[_key(address, self.host)] = listener
        self._listeners.append(listener)
        return listener

    def adopt(self, end: "SimulatedStream") -> None:
        self._ends[id(end)] = end

    def forget(self, end: "SimulatedStream") -> None:
        self._ends.pop(id(end), None)

    def reset_all(self) -> None:
        """Break every connection of this process, on both sides, at once."""
        for end in list(self._ends.values()):
            end.reset("the connection was reset")

    def connections(self) -> list["SimulatedStream"]:
        """Open connections, oldest first."""
        return list(self._ends.values())

    def kill(self, *, machine: bool) -> None:
        """The process is gone. With ``machine``, the host goes down and nobody is told."""
        self.dead = True
        for listener in self._listeners:
            listener.close()
        for end in list(self._ends.values()):
            end.die(silent=machine)
        if machine:
            self._network.set_down(self.host)


class SimulatedListener:
    """Accepts on one address."""

    def __init__(self, network: SimulatedNetwork, port: HostNetwork, address: str) -> None:
        self._network = network
        self.port = port
        self._address = address
        self._waiting: deque[SimulatedStream] = deque()
        self._lot = trio.lowlevel.ParkingLot()

    @property
    def address(self) -> str:
        return self._address

    def offer(self, end: "SimulatedStream") -> None:
        self._waiting.append(end)
        self._lot.unpark_all()

    async def accept_forever(self, handle: Callable[[Stream], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                while self._waiting:
                    nursery.start_soon(handle, self._waiting.popleft())
                await self._lot.park()

    def close(self) -> None:
        key = _key(self._address, self.port.host)
        if self._network.listeners.get(key) is self:
            del self._network.listeners[key]


class SimulatedStream:
    """One side of a connection."""

    peer: "SimulatedStream"

    def __init__(
        self, network: SimulatedNetwork, port: HostNetwork, name: str, remote: str
    ) -> None:
        self._network = network
        self._port = port
        self.name = name
        self._remote = remote
        self._inbox: deque[memoryview] = deque()
        self._ended = False
        self._broken: str | None = None
        self._in_flight_bytes = 0
        self._last_arrival_s = 0.0
        self._lot = trio.lowlevel.ParkingLot()

    @property
    def remote(self) -> str:
        return self._remote

    @property
    def host(self) -> str:
        return self._port.host

    # --- the port ------------------------------------------------------------------------------

    def receive_nowait(self, buffer: memoryview) -> int | None:
        if self._broken is not None:
            self._raise_broken()
        if not self._inbox:
            return 0 if self._ended else None
        taken = 0
        while self._inbox and taken < len(buffer):
            piece = self._inbox.popleft()
            count = min(len(piece), len(buffer) - taken)
            buffer[taken : taken + count] = piece[:count]
            if count < len(piece):
                self._inbox.appendleft(piece[count:])
            taken += count
        self.peer.landed(taken)
        return taken

    async def wait_readable(self) -> None:
        await trio.lowlevel.checkpoint()
        while not (self._inbox or self._ended):
            if self._broken is not None:
                self._raise_broken()
            await self._lot.park()

    def send_nowait(self, buffers: Sequence[Buffer]) -> int:
        if self._broken is not None:
            self._raise_broken()
        length = sum(len(buffer) for buffer in buffers)
        if self._in_flight_bytes >= self._network.weather.window_bytes:
            return 0
        packet = b"".join(buffers)
        if packet:
            self._in_flight_bytes += length
            for piece in self._pieces(packet):
                self._post(piece)
        return length

    def _pieces(self, packet: bytes) -> list[bytes]:
        network = self._network
        scatter = network.weather.scatter
        if scatter and network.cut is not None and network.random.random() < scatter:
            return network.cut(packet)
        return [packet]

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._in_flight_bytes >= self._network.weather.window_bytes:
            if self._broken is not None:
                self._raise_broken()
            await self._lot.park()

    def close(self) -> None:
        if self._broken is None:
            self._break("closed on this side")
            self._post_control("end", self.peer.end)

    # --- what happens to it --------------------------------------------------------------------

    def reset(self, reason: str) -> None:
        """Break both sides at once."""
        self._network.trace.note("net", f"{self.host}={self.peer.host} reset {self.name}")
        self._break(reason)
        self.peer._break(reason)

    def die(self, *, silent: bool) -> None:
        """The process on this side is gone."""
        if self._broken is None:
            self._break("the process was killed")
            if not silent:
                if self._network.random.random() < 0.5:
                    self._post_reset("the process on the other side is gone")
                else:
                    self._post_control("end", self.peer.end)

    def end(self) -> None:
        """The other side sends no more."""
        self._ended = True
        self._lot.unpark_all()

    def landed(self, length: int) -> None:
        """That much of what was sent was taken off the wire, or lost."""
        self._in_flight_bytes -= length
        self._lot.unpark_all()

    def _break(self, reason: str) -> None:
        if self._broken is None:
            self._broken = reason
            self._inbox.clear()
            self._port.forget(self)
            self._lot.unpark_all()

    def _raise_broken(self) -> NoReturn:
        raise TideError(Code.DISCONNECTED, f"{self._remote}: {self._broken}")

    # --- packets -------------------------------------------------------------------------------

    def _post(self, packet: bytes) -> None:
        network, weather = self._network, self._network.weather
        frames = network.split(packet)
        if self.host in network.on_sent:
            network.on_sent[self.host](frames)
        what = f"{self.name} {len(packet)} {checksum(packet):016x} {','.join(frames)}"
        arrival_s = self._next_arrival_s(len(packet))
        landed = partial(self.landed, len(packet))
        if weather.drop and network.random.random() < weather.drop:
            network.trace.note("net", f"{self.host}>{self.peer.host} dropped {what}")
            network.postman.at(arrival_s, landed)
            return
        self._send_at(arrival_s, what, partial(self._deliver, packet, what, len(packet)), landed)
        again = partial(self._deliver, packet, f"again {what}", 0)
        if weather.duplicate and network.random.random() < weather.duplicate:
            self._send_at(arrival_s, what, again)
        if weather.late_duplicate and network.random.random() < weather.late_duplicate:
            late_s = network.random.uniform(0, weather.late_max_s)
            self._send_at(arrival_s + late_s, what, again)

    def _post_control(self, what: str, arrival: Callable[[], None]) -> None:
        def act() -> None:
            self._network.trace.note("net", f"{self.host}>{self.peer.host} {what} {self.name}")
            arrival()

        self._send_at(self._next_arrival_s(0), f"{what} {self.name}", act)

    def _post_reset(self, reason: str) -> None:
        self._post_control("reset", partial(self.peer._break, reason))

    def _send_at(
        self,
        time_s: float,
        what: str,
        arrival: Callable[[], None],
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        packet = Packet(self.host, self.peer.host, what, arrival, lost)
        self._network.postman.at(time_s, partial(self._network.arrive, packet))

    def _next_arrival_s(self, length: int) -> float:
        arrival_s = trio.current_time() + self._network.latency_s(length)
        self._last_arrival_s = max(self._last_arrival_s, arrival_s)
        return self._last_arrival_s

    def _deliver(self, packet: bytes, what: str, charged_bytes: int) -> None:
        """``charged_bytes``: 0 for a duplicate, which was not counted as in flight when sent."""
        peer = self.peer
        note = self._network.trace.note
        if peer._broken is not None:
            note("net", f"{self.host}>{peer.host} unwanted {what}")
            self.landed(charged_bytes)
            peer._post_reset(f"{peer.host} knows nothing of this connection")
            return
        note("net", f"{self.host}>{peer.host} {what}")
        if peer.host in self._network.on_arrived:
            self._network.on_arrived[peer.host](what)
        self._in_flight_bytes += len(packet) - charged_bytes
        peer._inbox.append(memoryview(packet))
        peer._lot.unpark_all()


def _host_of(address: str, own_host: str) -> str:
    kind, _, rest = address.partition(":")
    if kind == "unix":
        return own_host
    host, colon, port = rest.rpartition(":")
    if kind != "tcp" or not colon or not port.isdigit():
        raise TideError(Code.INVALID, f"{address!r}: write unix:/path or tcp:host:port")
    return host


def _key(address: str, own_host: str) -> str:
    return f"{own_host} {address}" if address.startswith("unix:") else address
