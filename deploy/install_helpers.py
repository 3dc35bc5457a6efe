"""``tidefs install-helpers``: links in /sbin, by which mount(8) and umount(8) find our helpers."""

import sysconfig
from pathlib import Path

import click

from .exits import Exit, Failure
from .folder import os_failures

MOUNT, UMOUNT = "mount.tidefs", "umount.tidefs"

LINKS = {
    "mount.tidefs": MOUNT,
    "mount.fuse.tidefs": MOUNT,
    "umount.tidefs": UMOUNT,
    "umount.fuse.tidefs": UMOUNT,
}
"""What each link leads to. The kernel's list calls a mount fuse.tidefs, and so umount(8) does."""


@click.command(name="install-helpers")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/sbin"),
    show_default=True,
    help="Where mount(8) looks for helpers.",
)
@click.option("--undo", is_flag=True, help="Take the links away again.")
def install_helpers(folder: Path, undo: bool) -> None:
    """Have mount(8), umount(8) and /etc/fstab know TideFS.

    It makes links in /sbin, to programs beside this one: `mount -t tidefs SOURCE MOUNTPOINT` works
    then, and so does a plain `umount MOUNTPOINT`, which otherwise would not wait until everything
    is on the servers. As root. What lies there and is not ours is not touched.
    """
    programs = Path(sysconfig.get_path("scripts"))
    for name, program in LINKS.items():
        _check_ours(folder / name, program)
        if not undo and not (programs / program).exists():
            raise Failure(
                Exit.LACKING,
                f"{programs / program} is missing: install this version of TideFS anew",
            )
    for name, program in LINKS.items():
        with os_failures(folder):
            if undo:
                _remove(folder / name)
            else:
                _link(folder / name, programs / program)


def _check_ours(link: Path, program: str) -> None:
    """Failure(BUSY) when something else is there than a link to a helper of ours."""
    with os_failures(link.parent):
        there = link.is_symlink() or link.exists()
        if there and not (link.is_symlink() and link.readlink().name == program):
            raise Failure(Exit.BUSY, f"{link} is not a link that TideFS has made: move it away")


def _link(link: Path, program: Path) -> None:
    if link.is_symlink():
        if link.readlink() == program:
            click.echo(f"{link} is there")
            return
        link.unlink()
    link.symlink_to(program)
    click.echo(f"{link} -> {program}")


def _remove(link: Path) -> None:
    if link.is_symlink():
        link.unlink()
        click.echo(f"{link} is gone")
