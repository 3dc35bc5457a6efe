"""``tidefs metaserver``: one metaserver in the foreground, for a service manager."""

import click
import trio

from ..fs.errors import TideError, first_error
from .server import run_server


@click.command("metaserver")
@click.option(
    "--config",
    "config_path",
    required=True,
    type=click.Path(dir_okay=False),
    help="Its configuration, a TOML file.",
)
def metaserver(config_path: str) -> None:
    """Run one metaserver in the foreground.

    It ends at SIGTERM or SIGINT. `tidefs up` writes a configuration and starts one for you.
    """
    try:
        trio.run(run_server, config_path)
    except* TideError as group:
        raise first_error(group) from None
