"""``tidefs mount``: a client process on a mount point; with a folder, also the cluster in it.

By default the command starts itself once more, detached and in the foreground, and returns when
that one has mounted. Both *hold* the cluster (holds.py) for as long as they need it.
"""

import logging
import os
import select
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

import click
import trio

from ..client.modes import DEFAULT_MODE, MODES
from ..client.mount import MountRequest, run_mount
from ..client.mount_point import check_machine, free_point
from ..client.notes import runtime_folder
from ..client.options import MountOptions, help_text, parse_options
from ..fs.errors import TideError
from ..fs.log import set_up
from ..fs.members import Readdress
from .cluster import open_cluster, resolved
from .exits import Exit, Failure
from .folder import os_failures
from .holds import HOLDS_FOLDER, held
from .processes import end, exit_of, last_words, spawn
from .sources import HELP, Source, parse_source
from .tell import say

WAIT_SAY_MS = 3_000

log = logging.getLogger(__name__)


@click.command(
    help=f"Mount the file system SOURCE on the directory MOUNTPOINT.\n\nSOURCE is {HELP}. In an"
    " empty or new folder a file system is made. Its servers are started if they do not run, and"
    " end with the last mount, unless `tidefs up` started them.",
    epilog="\b\nOptions behind -o, separated by commas:\n" + help_text(),
)
@click.argument("source_text", metavar="SOURCE")
@click.argument("mount_point", metavar="MOUNTPOINT")
@click.option(
    "--mode",
    type=click.Choice(list(MODES)),
    help=f"What is promised to whom; {DEFAULT_MODE} unless told. See docs/semantics.md.",
)
@click.option("-o", "words", metavar="OPTIONS", multiple=True, help="See below.")
@click.option("--foreground", is_flag=True, help="Stay, until it is unmounted or told to end.")
@click.option("--ready-descriptor", type=int, hidden=True)
def mount(
    source_text: str,
    mount_point: str,
    mode: str | None,
    words: tuple[str, ...],
    foreground: bool,
    ready_descriptor: int | None,
) -> None:
    """Check what was asked for, in words, before anything is made or started."""
    try:
        options = parse_options(words, mode=mode)
    except TideError as error:
        raise Failure(Exit.USAGE, error.detail) from None
    source = parse_source(source_text)
    if source.folder is not None:
        source = Source(resolved(source.folder), [])
    check_machine()
    point = trio.run(free_point, mount_point)
    _check_not_hidden(source, Path(point))
    with _servers_of(source, point) as (addresses, name):
        if foreground:
            readdress = None if source.folder is None else _readdressed(source.folder)
            request = MountRequest(addresses, point, name, options, readdress)
            _serve(request, options, ready_descriptor)
        else:
            chosen = ["--mode", options.mode.name, *(f"-o{word}" for word in words)]
            _serve_in_background([name, point, *chosen], _log_of(source, point))
            click.echo(f"mounted {name} on {point} ({options.mode.name})")
            click.echo(f"unmount with: tidefs umount {point}")


def _check_not_hidden(source: Source, point: Path) -> None:
    """Failure(USAGE) when the mount would cover the folder that it is made of."""
    if source.folder is not None and source.folder.is_relative_to(point):
        raise Failure(
            Exit.USAGE,
            f"{point} is no place to mount {source.folder}: the mount would hide that folder from"
            " its own servers; choose a directory beside it",
        )


@contextmanager
def _servers_of(source: Source, point: str) -> Iterator[tuple[list[str], str]]:
    """Addresses of metaservers, and what the mount is called; a cluster in a folder is held."""
    if source.folder is None:
        yield source.addresses, ",".join(source.addresses)
        return
    with held(source.folder, Path(point), say) as cluster:
        yield cluster.metaserver_addresses(), str(cluster.folder)


def _readdressed(folder: Path) -> Readdress:
    """What tells where the metaservers of the cluster in a folder are by now."""

    def read() -> list[str]:
        try:
            return open_cluster(folder).metaserver_addresses()
        except (Failure, OSError) as error:
            log.debug("%s: %s", folder, error)
            return []

    async def readdress() -> list[str]:
        return await trio.to_thread.run_sync(read, abandon_on_cancel=True)  # a disk may hang

    return readdress


def _serve(request: MountRequest, options: MountOptions, ready_descriptor: int | None) -> None:
    """Be the client process, until the end of the mount."""

    def on_ready() -> None:
        if ready_descriptor is None:
            say(f"mounted {request.name} on {request.point} ({options.mode.name})")
        else:
            os.write(ready_descriptor, b"mounted\n")
            os.close(ready_descriptor)

    set_up()
    trio.run(run_mount, request, on_ready)


def _log_of(source: Source, point: str) -> Path:
    """Where a client process in the background writes its log."""
    folder = runtime_folder() if source.folder is None else source.folder / HOLDS_FOLDER
    return folder / f"{quote(point, safe='')[-200:]}.log"


def _serve_in_background(arguments: list[str], log: Path) -> None:
    """Start the client process, and return when it has mounted; Failure with its last words."""
    with ExitStack() as stack:
        reader, writer = os.pipe()
        stack.callback(os.close, reader)
        with os_failures(log.parent):
            log_start_bytes = log.stat().st_size if log.exists() else 0
        words = ["mount", *arguments, "--foreground", "--ready-descriptor", str(writer)]
        try:
            process = spawn(words, Path("/"), log, keep=[writer])
        finally:
            os.close(writer)
        try:
            _await_word(reader)
            mounted = bool(os.read(reader, 1))
        except KeyboardInterrupt:
            end({"the client": process.pid}, say)
            raise
        if not mounted:
            reason = last_words(log, log_start_bytes)
            raise Failure(exit_of(process.wait()), f"{reason} (log: {log})")


def _await_word(reader: int) -> None:
    """Return when the client says something, or has ended without a word."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    if not poll.poll(WAIT_SAY_MS):
        say("waiting for the metaserver ...")
        poll.poll()
