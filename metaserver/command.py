"""``tidefs metaserver``: one metaserver in the foreground, for a service manager."""

from functools import partial

import click
import trio

from ..fs.errors import TideError, first_error
from .server import format_server, run_server


@click.command("metaserver")
@click.option(
    "--config",
    "config_path",
    required=True,
    type=click.Path(dir_okay=False),
    help="Its configuration, a TOML file.",
)
@click.option(
    "--format",
    "formatting",
    is_flag=True,
    help="Prepare the empty data folder, for a founder of the group of `members`, and end.",
)
@click.option("--join", is_flag=True, help="With --format: for one that joins a group later.")
def metaserver(config_path: str, formatting: bool, join: bool) -> None:
    """Run one metaserver in the foreground.

    It ends at SIGTERM or SIGINT. `tidefs up` writes a configuration and starts one for you.
    """
    if join and not formatting:
        raise click.UsageError("--join is only for --format: how a folder is prepared")
    try:
        if formatting:
            done = trio.run(partial(format_server, config_path, join=join))
            click.echo("formatted" if done else "it was formatted before: nothing to do")
        else:
            trio.run(run_server, config_path)
    except* TideError as group:
        raise first_error(group) from None
