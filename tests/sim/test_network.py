"""The simulated network does what it says: order, loss, duplicates, partitions, deaths."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from tidefs.fs.errors import Code, TideError
from tidefs.fs.ports.network import Stream
from tidefs.tests.sim import determinism
from tidefs.tests.sim.network import SimulatedNetwork
from tidefs.tests.sim.postman import Postman
from tidefs.tests.sim.trace import Trace

FRAME_BYTES = 4
ADDRESS = "tcp:b:7"


def split(packet: bytes) -> list[str]:
    assert len(packet) % FRAME_BYTES == 0, "a packet is whole frames"
    return [packet[at : at + FRAME_BYTES].hex() for at in range(0, len(packet), FRAME_BYTES)]


def frame(number: int) -> bytes:
    return number.to_bytes(FRAME_BYTES, "big")


class World:
    """Hosts a and b, one connection from a to b."""

    def __init__(self, network_seed: str) -> None:
        self.trace = Trace()
        self.postman = Postman()
        self.network = SimulatedNetwork(self.postman, network_seed, self.trace, split)
        self.a, self.b = self.network.attach("a"), self.network.attach("b")
        self.accepted: list[Stream] = []

    async def connect(self, nursery: trio.Nursery) -> tuple[Stream, Stream]:
        listener = await self.b.listen(ADDRESS)

        async def keep(stream: Stream) -> None:
            self.accepted.append(stream)
            await trio.sleep_forever()

        nursery.start_soon(listener.accept_forever, keep)
        near = await self.a.connect(ADDRESS)
        await trio.sleep(1)
        return near, self.accepted[-1]


def simulate(
    body: Callable[[World, trio.Nursery], Awaitable[None]], network_seed: str = "seed"
) -> str:
    """Run ``body`` on virtual time; gives the digest of the trace."""

    async def main() -> str:
        world = World(network_seed)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.postman.run_forever)
            await body(world, nursery)
            nursery.cancel_scope.cancel()
        return world.trace.digest()

    return determinism.run(main, 1)


def received(stream: Stream) -> list[int] | None:
    """Numbers that have arrived; None when the stream has ended."""
    buffer = memoryview(bytearray(3))
    data = b""
    while True:
        count = stream.receive_nowait(buffer)
        if count is None:
            return [
                int.from_bytes(data[at : at + FRAME_BYTES], "big")
                for at in range(0, len(data), FRAME_BYTES)
            ]
        if count == 0:
            return None
        data += bytes(buffer[:count])


def assert_broken(stream: Stream) -> None:
    with pytest.raises(TideError) as caught:
        stream.receive_nowait(memoryview(bytearray(1)))
    assert caught.value.code is Code.DISCONNECTED
    with pytest.raises(TideError):
        stream.send_nowait([frame(1)])


def test_packets_arrive_in_order_and_time_passes():
    async def body(world: World, nursery: trio.Nursery) -> None:
        near, far = await world.connect(nursery)
        start = trio.current_time()
        for number in range(50):
            assert near.send_nowait([frame(number)[:2], frame(number)[2:]]) == FRAME_BYTES
        await far.wait_readable()
        assert 0 < trio.current_time() - start <= world.network.weather.latency_max_s
        await trio.sleep(1)
        assert received(far) == list(range(50))
        assert received(far) == []
        assert far.send_nowait([frame(9)]) == FRAME_BYTES
        await near.wait_readable()
        assert received(near) == [9]

    assert simulate(body) == simulate(body)


def test_half_a_frame_is_refused():
    async def body(world: World, nursery: trio.Nursery) -> None:
        near, _ = await world.connect(nursery)
        with pytest.raises(AssertionError, match="whole frames"):
            near.send_nowait([b"abc"])

    simulate(body)


def test_dropped_packets_are_missing_and_duplicates_come_twice():
    async def body(world: World, nursery: trio.Nursery) -> None:
        near, far = await world.connect(nursery)
        world.network.weather.drop = 0.3
        for number in range(200):
            near.send_nowait([frame(number)])
        await trio.sleep(1)
        got = received(far)
        assert got is not None
        assert got == sorted(set(got))
        assert 100 < len(got) < 180
        world.network.weather.drop = 0
        world.network.weather.duplicate = 0.3
        for number in range(200):
            near.send_nowait([frame(number)])
        await trio.sleep(1)
        got = received(far)
        assert got is not None
        assert got == sorted(got)
        assert set(got) == set(range(200))
        assert 230 < len(got) < 300
        world.network.weather.duplicate = 0
        world.network.weather.late_duplicate = 0.3
        for number in range(200):
            near.send_nowait([frame(number)])
        await trio.sleep(10)
        got = received(far)
        assert got is not None
        assert got[0] == 0
        assert sorted(got) != got
        assert set(got) == set(range(200))
        assert 230 < len(got) < 300

    simulate(body)


@pytest.mark.parametrize("hold", [True, False])
def test_a_blocked_link_holds_or_loses_one_direction(hold):
    async def body(world: World, nursery: trio.Nursery) -> None:
        near, far = await world.connect(nursery)
        world.network.block("a", "b", hold=hold)
        near.send_nowait([frame(1)])
        far.send_nowait([frame(2)])
        await trio.sleep(10)
        assert received(far) == []
        assert received(near) == [2]
        world.network.open("a", "b")
        near.send_nowait([frame(3)])
        await trio.sleep(1)
        assert received(far) == ([1, 3] if hold else [3])

    simulate(body)


def test_connecting_through_a_block_or_to_nobody_fails_in_words():
    async def body(world: World, nursery: trio.Nursery) -> None:
        with pytest.raises(TideError, match="refuses"):
            await world.a.connect("tcp:b:8")
        await world.b.listen(ADDRESS)
        with pytest.raises(TideError, match="in use"):
            await world.b.listen(ADDRESS)
        world.network.block("b", "a", hold=True)
        with pytest.raises(TideError, match="does not answer"):
            await world.a.connect(ADDRESS)
        with pytest.raises(TideError, match="does not answer"):
            await world.a.connect("tcp:nowhere:8")
        with pytest.raises(TideError, match="write unix"):
            await world.a.connect("ftp:x")

    simulate(body)


def test_a_killed_process_is_noticed_and_its_address_is_free_again():
    async def body(world: World, nursery: trio.Nursery) -> None:
        near, _ = await world.connect(nursery)
        world.b.kill(machine=False)
        await trio.sleep(1)
        if is_open(near):
            assert received(near) is None
            near.send_nowait([frame(1)])
            await trio.sleep(1)
        assert_broken(near)
        world.b = world.network.attach("b")
        again, _ = await world.connect(nursery)
        again.send_nowait([frame(1)])

    simulate(body, network_seed="an end")
    simulate(body, network_seed="a reset")


def is_open(stream: Stream) -> bool:
    try:
        stream.receive_nowait(memoryview(bytearray(1)))
    except TideError:
        return False
    return True


def test_a_crashed_machine_is_silent_until_it_is_up_and_then_resets():
    async def body(world: World, nursery: trio.Nursery) -> None:
        near, _ = await world.connect(nursery)
        world.b.kill(machine=True)
        near.send_nowait([frame(1)])
        await trio.sleep(100)
        assert received(near) == []
        world.b = world.network.attach("b")
        near.send_nowait([frame(2)])
        await trio.sleep(1)
        assert_broken(near)

    simulate(body)


def test_closing_ends_the_other_side_after_what_was_sent():
    async def body(world: World, nursery: trio.Nursery) -> None:
        near, far = await world.connect(nursery)
        near.send_nowait([frame(5)])
        near.close()
        assert_broken(near)
        await trio.sleep(1)
        buffer = memoryview(bytearray(8))
        assert far.receive_nowait(buffer) == FRAME_BYTES
        assert far.receive_nowait(buffer) == 0

    simulate(body)


def test_a_full_window_takes_nothing_until_the_receiver_reads():
    async def body(world: World, nursery: trio.Nursery) -> None:
        near, far = await world.connect(nursery)
        world.network.weather.window_bytes = 10 * FRAME_BYTES
        world.network.weather.duplicate = 0.5
        for number in range(10):
            assert near.send_nowait([frame(number)]) == FRAME_BYTES
        assert near.send_nowait([frame(11)]) == 0
        await trio.sleep(1)
        assert near.send_nowait([frame(11)]) == 0
        got = received(far)
        assert got is not None
        await near.wait_writable()
        assert near.send_nowait([frame(11)]) == FRAME_BYTES

    simulate(body)


def test_waiting_ends_when_the_connection_is_reset():
    async def body(world: World, nursery: trio.Nursery) -> None:
        near, far = await world.connect(nursery)
        failures: list[Code] = []

        async def wait(stream: Stream) -> None:
            try:
                await stream.wait_readable()
            except TideError as error:
                failures.append(error.code)

        async with trio.open_nursery() as waiters:
            waiters.start_soon(wait, near)
            waiters.start_soon(wait, far)
            await trio.sleep(1)
            world.a.reset_all()
        assert failures == [Code.DISCONNECTED] * 2

    simulate(body)
