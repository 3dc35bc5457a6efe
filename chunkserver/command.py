"""``tidefs chunkserver``: one chunkserver in the foreground, for a service manager."""

import click
import trio

from .server import run_server


@click.command("chunkserver")
@click.option(
    "--config",
    "config_path",
    required=True,
    type=click.Path(dir_okay=False),
    help="Its configuration, a TOML file.",
)
def chunkserver(config_path: str) -> None:
    """Run one chunkserver in the foreground.

    It ends at SIGTERM or SIGINT, when everything is on stable storage. `tidefs up` writes a
    configuration and starts one for you.
    """
    trio.run(run_server, config_path)
