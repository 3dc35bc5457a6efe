"""How many small RPC calls a second, beside blocking sockets in the same run.

Run it: ``python tests/bench/rpc_calls.py``. Two processes; one call at a time, then 32 at once.
"""

import argparse
import multiprocessing
import socket
import tempfile
import threading
import time
from collections.abc import Callable

import trio
from tidefs.fs.errors import TideError
from tidefs.fs.frames import EMPTY
from tidefs.fs.handshake import Identity
from tidefs.fs.messages.base import Done
from tidefs.fs.messages.chunk import ChunkData, Heartbeat, ReadChunk
from tidefs.fs.ports import Ports
from tidefs.fs.ports.clock import RealClock
from tidefs.fs.ports.network_real import RealNetwork
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.fs.rpc import Incoming, Peer, connect, no_requests, serve

SERVER = Identity("bench", "chunkserver", 1)
CLIENT = Identity("bench", "client", 0)
REQUEST = Heartbeat(total_bytes=1 << 40, free_bytes=1 << 39)
MESSAGE_BYTES = 40
PAYLOAD = bytes(1 << 20)


def real_ports() -> Ports:
    return Ports(RealClock(), RealRandomness(), None, RealNetwork())  # type: ignore[arg-type]


def answer(incoming: Incoming) -> None:
    if isinstance(incoming.request, ReadChunk):
        incoming.reply(ChunkData(version=1), [PAYLOAD])
    else:
        incoming.reply(Done())


def run_server(address: str, ready: object) -> None:
    async def main() -> None:
        ports = real_ports()
        listener = await ports.network.listen(address)
        ready.send(listener.address)  # type: ignore[attr-defined]
        async with trio.open_nursery() as nursery:
            await serve(ports, listener, SERVER, answer, nursery)

    trio.run(main)


def run_floor_server(address: str, ready: object) -> None:
    if address.startswith("unix:"):
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(address[5:])
    else:
        listening = socket.create_server(("127.0.0.1", 0))
        address = f"tcp:127.0.0.1:{listening.getsockname()[1]}"
    listening.listen()
    ready.send(address)  # type: ignore[attr-defined]
    while True:
        connected, _ = listening.accept()
        threading.Thread(target=echo, args=(connected,), daemon=True).start()


def echo(connected: socket.socket) -> None:
    if connected.family != socket.AF_UNIX:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connected.recv(1 << 18):
        connected.sendall(data)


def floor(address: str, seconds: float) -> tuple[float, float]:
    if address.startswith("unix:"):
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(address[5:])
    else:
        connected = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])))
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def batch(size: int) -> Callable[[], int]:
        def once() -> int:
            connected.sendall(bytes(MESSAGE_BYTES * size))
            missing = MESSAGE_BYTES * size
            while missing:
                missing -= len(connected.recv(missing))
            return size

        return once

    def rate(once: Callable[[], int]) -> float:
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            count += once()
        return count / (time.perf_counter() - began)

    return rate(batch(1)), rate(batch(32))


async def tasks(peer: Peer, width: int, seconds: float) -> float:
    count = 0

    async def caller() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await peer.call(REQUEST)
            count += 1

    began = time.perf_counter()
    end = began + seconds
    async with trio.open_nursery() as nursery:
        for _ in range(width):
            nursery.start_soon(caller)
    return count / (time.perf_counter() - began)


async def posts(peer: Peer, width: int, seconds: float) -> float:
    """As ``tasks``, with callbacks."""
    count = flying = 0
    done = trio.Event()

    def next_one(outcome: Done | TideError, _: memoryview = EMPTY) -> None:
        nonlocal count, flying
        assert isinstance(outcome, Done), outcome
        count += 1
        if time.perf_counter() < end:
            peer.post(REQUEST, done=next_one)
        else:
            flying -= 1
            if not flying:
                done.set()

    began = time.perf_counter()
    end = began + seconds
    flying = width
    for _ in range(width):
        peer.post(REQUEST, done=next_one)
    await done.wait()
    return count / (time.perf_counter() - began)


async def bulk(peer: Peer, width: int, seconds: float) -> float:
    """MiB a second of 1 MiB payloads."""
    count = 0

    async def reader() -> None:
        nonlocal count
        while time.perf_counter() < end:
            _, payload = await peer.exchange(ReadChunk(handle=1, version=1, offset=0, length=0))
            assert len(payload) == len(PAYLOAD)
            count += 1

    began = time.perf_counter()
    end = began + seconds
    async with trio.open_nursery() as nursery:
        for _ in range(width):
            nursery.start_soon(reader)
    return count / (time.perf_counter() - began)


async def measure(address: str, seconds: float) -> None:
    async with trio.open_nursery() as nursery:
        peer = await connect(real_ports(), address, CLIENT.hello(), no_requests, nursery)
        line("call", await tasks(peer, 1, seconds), await tasks(peer, 32, seconds))
        line("post", await posts(peer, 1, seconds), await posts(peer, 32, seconds))
        line("1 MiB", await bulk(peer, 1, seconds), await bulk(peer, 8, seconds))
        nursery.cancel_scope.cancel()


def line(name: str, *rates: float) -> None:
    print(f"{name:>12}" + "".join(f"{rate:12,.0f}" for rate in rates))  # noqa: T201


def in_process(target: Callable[..., None], address: str) -> tuple[object, str]:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=target, args=(address, there), daemon=True)
    process.start()
    return process, here.recv()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    seconds = parser.parse_args().seconds
    multiprocessing.set_start_method("spawn")
    with tempfile.TemporaryDirectory() as folder:
        for kind, rpc_address, floor_address in (
            ("unix", f"unix:{folder}/rpc", f"unix:{folder}/floor"),
            ("tcp", "tcp:127.0.0.1:0", "tcp:127.0.0.1:0"),
        ):
            print(f"{kind:>12}       1 alone   32 (8) at once, calls/s (MiB/s)")  # noqa: T201
            process, address = in_process(run_floor_server, floor_address)
            line("floor", *floor(address, seconds))
            process.terminate()  # type: ignore[attr-defined]
            process, address = in_process(run_server, rpc_address)
            trio.run(measure, address, seconds)
            process.terminate()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
