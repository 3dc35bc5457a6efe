"""Server processes: start them detached, tell ours from others, wait for them, end them.

Waiting is done on process descriptors (pidfd_open(2)), so that the end of a process is seen at
once and a process id that was given to somebody else is never signalled.
"""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from ..fs.ports.clock import RealClock
from .exits import Exit, Failure
from .folder import Say, os_failures

START_TIMEOUT_MS = 60_000
STOP_TIMEOUT_MS = 60_000
SAY_AFTER_MS = 2_000
POLL_MS = 20

_clock = RealClock()
_spawned: list[subprocess.Popen[bytes]] = []
"""Ours for as long as this process lives: who outlives us is adopted by init."""


class Spawned(NamedTuple):
    """A process on its way up. It is there when ``ready`` exists."""

    name: str
    process: subprocess.Popen[bytes]
    ready: Path
    log: Path
    log_start_bytes: int


def spawn(
    arguments: list[str], folder: Path, log: Path, *, keep: Iterable[int] = ()
) -> subprocess.Popen[bytes]:
    """Start ``tidefs ARGUMENTS`` in a session of its own, its output behind ``log``.

    It runs in ``folder``, by which ``is_ours`` knows it again. ``keep``: descriptors it inherits.
    """
    with os_failures(folder), log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tidefs.deploy", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=tuple(keep),
        )
    _spawned.append(process)
    return process


def spawn_server(role: str, name: str, folder: Path) -> Spawned:
    """Start a server on ``config.toml`` in its folder, and note its process id there."""
    ready, log, config = folder / "ready", folder / "log", folder / "config.toml"
    with os_failures(folder):
        ready.unlink(missing_ok=True)
        log_start_bytes = log.stat().st_size if log.exists() else 0
    process = spawn([role, "--config", str(config)], folder, log)
    with os_failures(folder):
        (folder / "pid").write_text(f"{process.pid}\n")
    return Spawned(name, process, ready, log, log_start_bytes)


def pid_of_server(role: str, folder: Path) -> int | None:
    """The process that serves ``folder``, or None when there is none."""
    try:
        pid = int((folder / "pid").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise Failure(Exit.LACKING, f"{error.filename}: {error.strerror}") from None
    return pid if is_ours(pid, role, folder) else None


def is_ours(pid: int, role: str, folder: Path) -> bool:
    """Whether process ``pid`` is the server of that role that runs in ``folder``."""
    proc = Path(f"/proc/{pid}")
    try:
        words = (proc / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    if b"tidefs.deploy" not in words or role.encode() not in words:
        return False
    try:
        return (proc / "cwd").samefile(folder)
    except PermissionError:
        # Another user's process: its command line is all that may be seen of it.
        return os.fsencode(folder / "config.toml") in words
    except OSError:
        return False


def serves(pid: int, role: str, config: Path) -> bool:
    """Whether process ``pid`` was started as a server of that role with that configuration."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return {b"tidefs.deploy", role.encode(), os.fsencode(config)} <= set(words)


def pids_serving(role: str, config: Path) -> list[int]:
    """All of those, also when the folder that says so was deleted under them."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if serves(pid, role, config)]


def elapsed_ms(since_ns: int) -> int:
    """Milliseconds since a moment of ``now_ns``."""
    return (_clock.monotonic_ns() - since_ns) // 1_000_000


def now_ns() -> int:
    """A moment, for ``elapsed_ms``."""
    return _clock.monotonic_ns()


def wait_ready(starting: list[Spawned], say: Say) -> dict[str, Failure]:
    """Return when each is ready, or has ended, or was too slow; by name, why some are not."""
    began = now_ns()
    said = False
    troubles: dict[str, Failure] = {}
    while waiting := [
        one for one in starting if one.name not in troubles and not one.ready.exists()
    ]:
        for one in waiting:
            if trouble := _trouble_of(one, elapsed_ms(began)):
                troubles[one.name] = trouble
        if not said and elapsed_ms(began) > SAY_AFTER_MS:
            said = True
            say(f"waiting for {', '.join(one.name for one in waiting)} to be ready ...")
        alive = [one.process.pid for one in waiting if one.name not in troubles]
        wait_for_end(alive, POLL_MS)
    return troubles


def _trouble_of(one: Spawned, waited_ms: int) -> Failure | None:
    """Why it will not be ready any more."""
    if one.process.poll() is not None:
        return Failure(exit_of(one.process.returncode), f"{one.name} did not start: {_reason(one)}")
    if waited_ms > START_TIMEOUT_MS:
        return Failure(
            Exit.WRONG,
            f"{one.name} (pid {one.process.pid}) is not ready after {START_TIMEOUT_MS // 1000} s:"
            f" {_reason(one)}",
        )
    return None


def exit_of(returncode: int) -> Exit:
    """What our own exit code is when a ``tidefs`` process that we need ended with that one."""
    failed = returncode in set(Exit) - {Exit.OK}
    return Exit(returncode) if failed else Exit.WRONG


def _reason(one: Spawned) -> str:
    """What its log says since it was started, for a person."""
    return f"{last_words(one.log, one.log_start_bytes)}; its log is {one.log}"


def last_words(log: Path, start_bytes: int) -> str:
    """The last line that was written behind ``start_bytes``."""
    try:
        with log.open("rb") as file:
            file.seek(start_bytes)
            lines = file.read().decode(errors="replace").splitlines()
    except OSError as error:
        return f"its log cannot be read ({error.strerror})"
    said = [line.strip(" |+-^~") for line in lines if any(map(str.isalpha, line))]
    return said[-1].removeprefix("tidefs: ") if said else "it said nothing"


def wait_for_end(pids: Iterable[int], timeout_ms: int) -> None:
    """Return when one of the processes ends, and after the time-out."""
    with ExitStack() as stack:
        poll = select.poll()
        for pid in pids:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                return
            stack.callback(os.close, descriptor)
            poll.register(descriptor, select.POLLIN)
        poll.poll(timeout_ms)


def end(
    running: dict[str, int],
    say: Say,
    *,
    kill: bool = False,
    still_ours: Callable[[str, int], bool] = lambda name, pid: True,
) -> None:
    """Ask processes (name to pid) to end, and wait until they have.

    ``kill``: those that do not within the time-out are killed; otherwise that is a Failure.
    ``still_ours`` is asked again once the process is held by a descriptor and cannot be mistaken.
    """
    with ExitStack() as stack:
        held: dict[str, int] = {}
        for name, pid in running.items():
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            stack.callback(os.close, descriptor)
            if still_ours(name, pid):
                _send(name, pid, descriptor, signal.SIGTERM)
                held[name] = descriptor
        alive = _wait_all(held, say)
        if alive and kill:
            for name in alive:
                say(f"killing {name} (pid {running[name]}): it did not stop")
                _send(name, running[name], held[name], signal.SIGKILL)
            alive = _wait_all({name: held[name] for name in alive}, say)
        if alive:
            names = ", ".join(f"{name} (pid {running[name]})" for name in alive)
            raise Failure(
                Exit.BUSY,
                f"{names} did not stop within {STOP_TIMEOUT_MS // 1000} s; see the log,"
                " or use `tidefs down --force`, which kills",
            )


def _send(name: str, pid: int, descriptor: int, number: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return
    except PermissionError:
        raise Failure(
            Exit.LACKING,
            f"{name} (pid {pid}) belongs to another user: stop it as that user, or as root",
        ) from None


def _wait_all(held: dict[str, int], say: Say) -> list[str]:
    """Names of those that still live when the time-out is over."""
    began = now_ns()
    said = False
    alive = dict(held)
    while alive and elapsed_ms(began) < STOP_TIMEOUT_MS:
        poll = select.poll()
        for descriptor in alive.values():
            poll.register(descriptor, select.POLLIN)
        ended = {descriptor for descriptor, _ in poll.poll(SAY_AFTER_MS)}
        alive = {name: one for name, one in alive.items() if one not in ended}
        if alive and not said and elapsed_ms(began) > SAY_AFTER_MS:
            said = True
            say(f"waiting for {', '.join(alive)} to stop ...")
    return list(alive)
