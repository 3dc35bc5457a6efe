"""The RPC shell on the simulated network: every call ends, and with the answer that is its own."""

import pytest
import trio
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.hello import CHUNKSERVER, CLIENT
from tidefs.fs.messages.meta import GetXattr, Value
from tidefs.fs.ports import Ports
from tidefs.fs.rpc import Identity, Incoming, connect, serve
from tidefs.tests.sim import determinism
from tidefs.tests.sim.network import SimulatedNetwork
from tidefs.tests.sim.ports import SimulatedClock, SimulatedRandomness
from tidefs.tests.sim.postman import Postman
from tidefs.tests.sim.trace import Trace
from tidefs.tests.sim.wire import split

ADDRESS = "tcp:server:1"
CALLS = 200


def weather_run(seed: int) -> tuple[str, dict[str, int]]:
    """A caller and a server in drops, duplicates and resets: the digest, and outcomes counted."""
    trace = Trace()
    postman = Postman()
    network = SimulatedNetwork(postman, f"network {seed}", trace, split)
    counts = {"answered": 0, "TIMED_OUT": 0, "DISCONNECTED": 0}

    def ports(host: str, drift: float) -> Ports:
        return Ports(
            SimulatedClock(drift), SimulatedRandomness(f"{seed} {host}"), None, network.attach(host)
        )

    async def slow(incoming: Incoming) -> None:
        await trio.sleep(0.1)
        incoming.reply(Value(value=incoming.request.name))

    def handler(incoming: Incoming):
        if incoming.request.inode % 2:
            return slow(incoming)
        incoming.reply(Value(value=incoming.request.name), [incoming.payload])
        return None

    async def call_all(here: Ports, nursery: trio.Nursery) -> None:
        peer = None
        for number in range(CALLS):
            name = b"%d" % number
            try:
                if peer is None or peer.closed:
                    hello = Identity("c", CLIENT, 0).hello()
                    peer = await connect(here, ADDRESS, hello, handler, nursery)
                reply, payload = await peer.exchange(
                    GetXattr(inode=number, name=name), payload=[name * 9], timeout_ms=500
                )
            except TideError as error:
                trace.note("answer", f"{number} {error.code.name}")
                counts[error.code.name] += 1
                continue
            trace.note("answer", f"{number}")
            assert reply.value == name
            assert bytes(payload) == (b"" if number % 2 else name * 9)
            counts["answered"] += 1

    async def main() -> None:
        server, client = ports("server", 0.008), ports("client", -0.009)
        listener = await server.network.listen(ADDRESS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(postman.run_forever)
            nursery.start_soon(
                serve, server, listener, Identity("c", CHUNKSERVER, 5), handler, nursery
            )
            weather = network.weather
            weather.drop = weather.duplicate = weather.late_duplicate = 0.05
            weather.slow = 0.05
            weather.slow_max_s = 1
            for moment_s in (5, 9, 14):
                postman.at(moment_s, client.network.reset_all)
            await call_all(client, nursery)
            nursery.cancel_scope.cancel()

    determinism.run(main, seed)
    return trace.digest(), counts


@pytest.mark.parametrize("seed", range(5))
def test_every_call_ends_with_its_own_answer_or_an_honest_error(seed):
    digest, counts = weather_run(seed)
    assert counts["answered"] > CALLS * 0.7, counts
    assert counts["TIMED_OUT"] > 0
    assert weather_run(seed) == (digest, counts)


def test_error_codes_are_the_ones_that_a_caller_may_retry():
    assert TideError(Code.TIMED_OUT).retryable
    assert TideError(Code.DISCONNECTED).retryable
