"""Real sockets: errors in words, and the life of a Unix socket's file."""

import os
import socket

import pytest
import trio
from tidefs.fs.errors import Code, TideError
from tidefs.fs.ports.network_real import RealNetwork, RealStream, parse_address

NETWORK = RealNetwork()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("", "is not an address; an address is unix:/path or tcp:host:port"),
        ("localhost:80", "is not an address"),
        ("tcp:80", "is not an address"),
        ("tcp::80", "is not an address"),
        ("tcp:host:", "'' is not a port"),
        ("tcp:host:http", "'http' is not a port"),
        ("tcp:host:65536", "'65536' is not a port"),
        ("tcp:host:-1", "'-1' is not a port"),
        ("unix:relative", "the path must be absolute"),
        ("unix:/" + "x" * 107, "at most 107 bytes, this one has 108"),
    ],
)
async def test_bad_addresses(address, words):
    for function in (NETWORK.listen, NETWORK.connect):
        with pytest.raises(TideError) as caught:
            await function(address)
        assert caught.value.code is Code.INVALID
        assert words in caught.value.detail


def test_ipv6():
    assert parse_address("tcp:[::1]:80")[2:] == ("::1", 80)


async def test_a_path_of_just_the_right_length(tmp_path):
    path = str(tmp_path) + "/" + "x" * (107 - len(str(tmp_path)) - 1)
    listener = await NETWORK.listen("unix:" + path)
    assert len(os.listdir(tmp_path)) == 1
    listener.close()
    assert not os.listdir(tmp_path)


async def refused_listening(address, words):
    with pytest.raises(TideError) as caught:
        await NETWORK.listen(address)
    assert caught.value.code is Code.INVALID
    assert address in caught.value.detail
    assert words in caught.value.detail


async def test_what_cannot_be_listened_on(tmp_path):
    listener = await NETWORK.listen("tcp:127.0.0.1:0")
    assert listener.address != "tcp:127.0.0.1:0"
    await refused_listening(listener.address, "another process listens there")
    listener.close()
    listener.close()
    await refused_listening("tcp:192.0.2.1:5000", "no network interface of this machine has")
    await refused_listening("tcp:no.such.host.invalid:5000", "cannot find host")
    await refused_listening(f"unix:{tmp_path}/none/x", "the folder of the socket does not exist")
    (tmp_path / "file").touch()
    await refused_listening(f"unix:{tmp_path}/file", "a file that is not a socket")


async def test_a_socket_file_of_a_dead_server_is_replaced_that_of_a_live_one_is_not(tmp_path):
    address = f"unix:{tmp_path}/s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
        dead.listen()
    listener = await NETWORK.listen(address)
    await refused_listening(address, "a running process listens there")
    listener.close()
    assert not (tmp_path / "s").exists()


async def test_nobody_there(tmp_path):
    for address in (f"unix:{tmp_path}/none", "tcp:127.0.0.1:1", "tcp:no.such.host.invalid:1"):
        with pytest.raises(TideError) as caught:
            await NETWORK.connect(address)
        assert caught.value.code is Code.DISCONNECTED
        assert address in caught.value.detail


async def test_who_waits_wakes_up_when_the_stream_is_closed():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stream = RealStream(ours, "x")

    async def waits(wait):
        with pytest.raises(TideError) as caught:
            await wait()
        assert caught.value.code is Code.DISCONNECTED

    while stream.send_nowait([bytes(1 << 20)]):
        pass
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits, stream.wait_readable)
        nursery.start_soon(waits, stream.wait_writable)
        await trio.testing.wait_all_tasks_blocked()
        stream.close()
    await waits(stream.wait_readable)
    for use in (
        lambda: stream.receive_nowait(memoryview(bytearray(1))),
        lambda: stream.send_nowait([b"x"]),
    ):
        with pytest.raises(TideError, match="closed by this side"):
            use()
    stream.close()
    theirs.close()


async def test_a_closed_listener_accepts_no_more_and_its_connections_live_on(tmp_path):
    listener = await NETWORK.listen(f"unix:{tmp_path}/s")
    accepted, leave = trio.Event(), trio.Event()
    returned = False

    async def handle(stream):
        accepted.set()
        await leave.wait()
        assert stream.send_nowait([b"x"]) == 1

    async def accepts():
        nonlocal returned
        await listener.accept_forever(handle)
        returned = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accepts)
        stream = await NETWORK.connect(listener.address)
        await accepted.wait()
        listener.close()
        await trio.testing.wait_all_tasks_blocked()
        assert not returned
        leave.set()
    assert returned
    assert stream.receive_nowait(memoryview(bytearray(9))) == 1
    stream.close()
