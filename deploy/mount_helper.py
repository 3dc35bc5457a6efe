"""``mount.tidefs`` and ``umount.tidefs``: what mount(8) and umount(8) call for our file systems.

They take the arguments and give the exit codes that those two manual pages describe, and otherwise
do what ``tidefs mount`` and ``tidefs umount`` do. mount(8) says nothing when all is well, so
neither do they, without -v. A folder without a cluster is refused: at boot it is more likely that
its disk is not mounted yet than that somebody wants a new file system there.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import click
import trio

from .. import __version__
from ..client import mounts, notes
from ..client.mount_point import check_machine, free_point
from ..client.options import parse_options
from ..fs.errors import TideError
from .cli import tidefs
from .exits import Exit, Failure, failure_of
from .folder import is_cluster
from .mount_words import ours
from .sources import Source, parse_source
from .tell import say

WRONG_CALL, INTERNAL, INTERRUPTED, FAILED = 1, 4, 8, 32
"""mount(8), exit status."""

_OF_EXIT = {Exit.OK: 0, Exit.USAGE: WRONG_CALL, Exit.INTERRUPTED: INTERRUPTED}


@click.command(name="mount.tidefs", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version")
@click.argument("source_text", metavar="SOURCE")
@click.argument("mount_point", metavar="MOUNTPOINT")
@click.option("-o", "words", metavar="OPTIONS", multiple=True, help="See tidefs mount --help.")
@click.option("-s", "sloppy", is_flag=True, help="Ignore options that nobody knows.")
@click.option("-f", "fake", is_flag=True, help="Check everything, but do not mount.")
@click.option("-n", "no_list", is_flag=True, help="Nothing: there is no list to write to.")
@click.option("-v", "verbose", is_flag=True, help="Say what was done.")
@click.option("-N", "namespace", hidden=True)
@click.option("-t", "kind", hidden=True)
def mount(
    source_text: str,
    mount_point: str,
    words: tuple[str, ...],
    sloppy: bool,
    fake: bool,
    no_list: bool,
    verbose: bool,
    namespace: str | None,
    kind: str | None,
) -> None:
    """Called by mount(8), as in: mount -t tidefs SOURCE MOUNTPOINT -o OPTIONS"""
    _refuse_namespace(namespace)
    kept, refused = ours(words, sloppy=sloppy)
    for word, remedy in refused.items():
        raise Failure(Exit.USAGE, f"-o {word}: {remedy}")
    source = parse_source(source_text)
    _check_made(source)
    if _is_mounted(source, mount_point):
        say(f"tidefs: {source_text} is mounted on {mount_point} already")
        return
    if fake:
        _try(kept, mount_point)
        return
    with _only_if(verbose):
        tidefs(
            ["mount", source_text, mount_point, *(f"-o{word}" for word in kept)],
            standalone_mode=False,
        )


@click.command(name="umount.tidefs", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version")
@click.argument("mount_point", metavar="MOUNTPOINT")
@click.option("-l", "lazy", is_flag=True, help="Take the mount away now, though it is in use.")
@click.option("-f", "force", is_flag=True, help="Nothing: it waits for servers.")
@click.option("-n", "no_list", is_flag=True, help="Nothing: there is no list to write to.")
@click.option("-r", "read_only", is_flag=True, help="Nothing.")
@click.option("-v", "verbose", is_flag=True, help="Say what was done.")
@click.option("-N", "namespace", hidden=True)
@click.option("-t", "kind", hidden=True)
def umount(
    mount_point: str,
    lazy: bool,
    force: bool,
    no_list: bool,
    read_only: bool,
    verbose: bool,
    namespace: str | None,
    kind: str | None,
) -> None:
    """Called by umount(8), as in: umount MOUNTPOINT"""
    _refuse_namespace(namespace)
    tidefs(["umount", mount_point, *(["--lazy"] if lazy else [])], standalone_mode=False)
    if verbose:
        click.echo(f"umount: {mount_point} unmounted")


def _try(words: list[str], mount_point: str) -> None:
    """Everything but to mount."""
    try:
        parse_options(words)
    except TideError as error:
        raise Failure(Exit.USAGE, error.detail) from None
    check_machine()
    trio.run(free_point, mount_point)


def _refuse_namespace(namespace: str | None) -> None:
    if namespace is not None:
        raise Failure(Exit.USAGE, f"-N {namespace}: use nsenter(1) to mount in another namespace")


def _check_made(source: Source) -> None:
    if source.folder is not None and not is_cluster(source.folder):
        raise Failure(
            Exit.FOREIGN,
            f"there is no file system in {source.folder}: make one with `tidefs up"
            f" {source.folder}`, unless the disk that holds it is not mounted yet",
        )


def _is_mounted(source: Source, mount_point: str) -> bool:
    """Whether that is what serves the mount point now: mount -a asks for what is there already."""
    _, mount = mounts.find(mount_point)
    if mount is None or not mount.ours or notes.note_of(mount) is None:
        return False
    name = mount.source.removeprefix(mounts.SOURCE_PREFIX)
    if source.folder is not None:
        return Path(name) == Path(os.path.realpath(source.folder))
    return name == ",".join(source.addresses)


@contextlib.contextmanager
def _only_if(verbose: bool) -> Iterator[None]:
    """Say on standard output what was done, or do not."""
    if verbose:
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def main_mount() -> NoReturn:
    """The program ``mount.tidefs``."""
    _run(mount)


def main_umount() -> NoReturn:
    """The program ``umount.tidefs``."""
    _run(umount)


def _run(command: click.Command) -> NoReturn:
    """Leave the process with one of mount(8)'s exit codes."""
    try:
        command(standalone_mode=False)
    except click.UsageError as error:
        error.show()
        sys.exit(WRONG_CALL)
    except click.ClickException as error:
        error.show()
        sys.exit(_OF_EXIT.get(Exit(error.exit_code), FAILED))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except TideError as error:
        failure_of(error).show()
        sys.exit(FAILED)
    except Exception as error:
        say(f"tidefs: a bug: {type(error).__name__}: {error}")
        sys.exit(INTERNAL)
    sys.exit(0)
