"""The ``tidefs`` command: its subcommands by name, each imported when it is called."""

from importlib import import_module
from typing import Any

import click

from .. import __version__
from ..fs.errors import TideError
from .exits import Exit, Failure, failure_of, first_error, table

PACKAGE = __name__.rpartition(".")[0]

COMMANDS = {
    "mount": (".mount", "Mount a file system: tidefs mount SOURCE MOUNTPOINT"),
    "umount": (".umount", "Unmount one: everything written is on the servers before it returns"),
    "up": (".up", "Start a cluster of servers on this machine, kept in a folder"),
    "down": (".down", "Stop it"),
    "status": (".status", "Servers, space, copies, and what is wrong"),
    "cluster": (".cluster_commands", "See the group of metaservers; add, remove, replace some"),
    "locks": (".locks", "Who holds locks on which files, and who waits for them"),
    "stats": (".stats", "What a mount was asked, and what it asked the servers; --watch"),
    "why": (".why", "What a mount believes of a file, on what ground, and what makes it fresh"),
    "semantics": (".semantics", "See what each mode promises, tried on the running cluster"),
    "install-helpers": (".install_helpers", "Have mount(8), umount(8) and fstab know TideFS"),
    "metaserver": ("..metaserver.command", "Run one metaserver in the foreground"),
    "chunkserver": ("..chunkserver.command", "Run one chunkserver in the foreground"),
}
"""Where each subcommand lives, and its line in ``tidefs --help``: that must not import them all."""


class Commands(click.Group):
    """A group whose subcommands are found in ``COMMANDS``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order in which a person meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The click command of that name in its module."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(COMMANDS[cmd_name][0], PACKAGE)
        for value in vars(module).values():
            if isinstance(value, click.Command) and value.name == cmd_name:
                return value
        raise AssertionError(f"{module.__name__} has no command {cmd_name}")

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; what came up from below becomes a sentence and an exit code."""
        try:
            return super().invoke(ctx)
        except TideError as error:
            raise failure_of(error) from error
        except BaseExceptionGroup as group:
            if found := first_error(group):
                raise failure_of(found) from group
            raise
        except KeyboardInterrupt:
            raise Failure(Exit.INTERRUPTED, "interrupted") from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in ``--help``."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(
    cls=Commands,
    epilog="\b\nExit codes:\n" + table(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="tidefs", message="%(prog)s %(version)s")
def tidefs() -> None:
    """A distributed file system that is mounted with one command.

    \b
    tidefs mount ./tide ./mnt     a file system kept in ./tide, mounted on ./mnt
    tidefs umount ./mnt
    """


def main() -> None:
    """Run the command line and leave the process with one of the exit codes."""
    tidefs()
