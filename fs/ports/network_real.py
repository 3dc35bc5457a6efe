"""The network port on this machine's sockets: raw and non-blocking, TCP and Unix."""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import trio

from ..codec import Buffer
from ..errors import Code, TideError

BUFFERS_MAX = 1024
"""IOV_MAX: how many buffers one sendmsg(2) takes."""

UNIX_PATH_MAX_BYTES = 107
"""sun_path has 108 bytes, one of them the final zero (unix(7))."""

BACKLOG = 512
ACCEPT_PAUSE_S = 0.1

FORMS = "an address is unix:/path or tcp:host:port"


class Address(NamedTuple):
    """A parsed address: ``path`` of a Unix socket, or else host and port."""

    text: str
    path: str
    host: str
    port: int


def parse_address(text: str) -> Address:
    """INVALID, naming what is wrong, when it is not an address."""
    kind, _, rest = text.partition(":")
    if kind == "unix":
        if not rest.startswith("/"):
            raise TideError(Code.INVALID, f"{text!r}: the path must be absolute; {FORMS}")
        if len(os.fsencode(rest)) > UNIX_PATH_MAX_BYTES:
            raise TideError(
                Code.INVALID,
                f"{text!r}: the path of a Unix socket has at most {UNIX_PATH_MAX_BYTES} bytes, "
                f"this one has {len(os.fsencode(rest))}; use a folder nearer to the root",
            )
        return Address(text, rest, "", 0)
    host, _, port = rest.rpartition(":")
    if kind != "tcp" or not host:
        raise TideError(Code.INVALID, f"{text!r} is not an address; {FORMS}")
    if not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise TideError(Code.INVALID, f"{text!r}: {port!r} is not a port (0 to 65535)")
    return Address(text, "", host.strip("[]"), int(port))


class RealStream:
    """One connected socket."""

    def __init__(self, connected: socket.socket, remote: str) -> None:
        self._socket = connected
        self._remote = remote

    @property
    def remote(self) -> str:
        return self._remote

    def receive_nowait(self, buffer: memoryview) -> int | None:
        try:
            return self._socket.recv_into(buffer)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise self._broken(error) from None

    def send_nowait(self, buffers: Sequence[Buffer]) -> int:
        try:
            if len(buffers) == 1:
                return self._socket.send(buffers[0])
            return self._socket.sendmsg(buffers[:BUFFERS_MAX])
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise self._broken(error) from None

    async def wait_readable(self) -> None:
        try:
            await trio.lowlevel.wait_readable(self._socket)
        except (trio.ClosedResourceError, OSError, ValueError):
            raise self._closed() from None

    async def wait_writable(self) -> None:
        try:
            await trio.lowlevel.wait_writable(self._socket)
        except (trio.ClosedResourceError, OSError, ValueError):
            raise self._closed() from None

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def _broken(self, error: OSError) -> TideError:
        if error.errno == errno.EBADF:
            return self._closed()
        return TideError(Code.DISCONNECTED, error.strerror or str(error))

    def _closed(self) -> TideError:
        return TideError(Code.DISCONNECTED, "closed by this side")


class RealListener:
    """One listening socket; a Unix socket's file goes with it."""

    def __init__(self, listening: socket.socket, address: str, path: str) -> None:
        self._socket = listening
        self._address = address
        self._path = path

    @property
    def address(self) -> str:
        return self._address

    async def accept_forever(self, handle: Callable[[RealStream], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            count = 0
            while True:
                try:
                    accepted, peer = self._socket.accept()
                except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                    with contextlib.suppress(trio.ClosedResourceError):
                        await trio.lowlevel.wait_readable(self._socket)
                except OSError as error:
                    if error.errno == errno.EBADF:
                        return  # closed: what was accepted before lives on
                    if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                        raise TideError(
                            Code.DISCONNECTED, f"{self._address}: accepting ({error.strerror})"
                        ) from None
                    # Out of descriptors: those who wait in the backlog must wait some more.
                    await trio.sleep(ACCEPT_PAUSE_S)
                else:
                    count += 1
                    _tune(accepted)
                    remote = f"{self._address}#{count}" if self._path else _tcp_name(peer)
                    nursery.start_soon(self._handle, handle, RealStream(accepted, remote))

    async def _handle(
        self, handle: Callable[[RealStream], Awaitable[None]], stream: RealStream
    ) -> None:
        try:
            await handle(stream)
        finally:
            stream.close()

    def close(self) -> None:
        if self._socket.fileno() < 0:
            return
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


class RealNetwork:
    """This machine's network."""

    async def connect(self, address: str) -> RealStream:
        parsed = parse_address(address)
        if parsed.path:
            target: list[tuple[int, Any]] = [(socket.AF_UNIX, parsed.path)]
        else:
            target = await _resolve(parsed, Code.DISCONNECTED)
        reason = "no address"
        for family, where in target:
            connecting = socket.socket(family, socket.SOCK_STREAM)
            try:
                await _connect(connecting, where)
            except OSError as error:
                connecting.close()
                reason = error.strerror or str(error)
            except BaseException:
                connecting.close()
                raise
            else:
                _tune(connecting)
                return RealStream(connecting, address)
        raise TideError(Code.DISCONNECTED, f"cannot connect to {address} ({reason})")

    async def listen(self, address: str) -> RealListener:
        parsed = parse_address(address)
        if parsed.path:
            _remove_stale(parsed)
            family: int = socket.AF_UNIX
            where: Any = parsed.path
        else:
            family, where = (await _resolve(parsed, Code.INVALID))[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            if not parsed.path:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(where)
            listening.listen(BACKLOG)
        except OSError as error:
            listening.close()
            raise _cannot_listen(parsed, error) from None
        if parsed.path:
            return RealListener(listening, address, parsed.path)
        host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
        return RealListener(listening, f"tcp:{host}:{listening.getsockname()[1]}", "")


async def _connect(connecting: socket.socket, where: Any) -> None:
    connecting.setblocking(False)
    while (failed := connecting.connect_ex(where)) == errno.EAGAIN:  # noqa: ASYNC110
        # The backlog of a Unix socket is full, and nothing tells when that ends (unix(7)).
        await trio.sleep(ACCEPT_PAUSE_S)
    if failed == errno.EINPROGRESS:
        await trio.lowlevel.wait_writable(connecting)
        failed = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    else:
        await trio.lowlevel.checkpoint()
    if failed:
        raise OSError(failed, os.strerror(failed))


async def _resolve(parsed: Address, code: Code) -> list[tuple[int, Any]]:
    try:
        found = await trio.socket.getaddrinfo(
            parsed.host, parsed.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )
    except OSError as error:
        raise TideError(
            code, f"{parsed.text}: cannot find host {parsed.host!r} ({error.strerror or error})"
        ) from None
    return [(family, where) for family, _, _, _, where in found]


def _tune(connected: socket.socket) -> None:
    connected.setblocking(False)
    if connected.family != socket.AF_UNIX:
        # A machine that lost its power says nothing: without this, its connections stay for hours.
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


def _tcp_name(peer: tuple[str, int]) -> str:
    host = f"[{peer[0]}]" if ":" in peer[0] else peer[0]
    return f"tcp:{host}:{peer[1]}"


def _remove_stale(parsed: Address) -> None:
    """Remove the socket file that a dead server left; INVALID when something lives there."""
    try:
        mode = os.stat(parsed.path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot_listen(parsed, error) from None
    if not stat.S_ISSOCK(mode):
        raise TideError(
            Code.INVALID,
            f"cannot listen on {parsed.text}: there is a file that is not a socket; "
            f"remove it or choose another path",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(parsed.path) != errno.ECONNREFUSED:
            raise TideError(
                Code.INVALID,
                f"cannot listen on {parsed.text}: a running process listens there; "
                f"stop it or choose another path",
            )
    with contextlib.suppress(FileNotFoundError):
        os.unlink(parsed.path)


def _cannot_listen(parsed: Address, error: OSError) -> TideError:
    remedies = {
        errno.EADDRINUSE: "another process listens there; stop it or choose another port",
        errno.EADDRNOTAVAIL: "no network interface of this machine has that address",
        errno.EACCES: "permission denied; choose a port above 1023, or a folder you may write to",
        errno.ENOENT: "the folder of the socket does not exist; make it first",
    }
    reason = remedies.get(error.errno or 0, error.strerror or str(error))
    return TideError(Code.INVALID, f"cannot listen on {parsed.text}: {reason}")
