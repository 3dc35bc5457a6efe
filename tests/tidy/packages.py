"""What mypy is to check, as its arguments: the rooms that setup.cfg lists, one by one.

Asked for the whole (`-p tidefs`) it would also walk into the virtual environment and the build
folder, which lie below the root of the package.
"""

import configparser
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def packages() -> list[str]:
    """Every package that setup.cfg lists, in its order."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config["options"]["packages"].split()


if __name__ == "__main__":
    rooms = [name for name in packages() if name.count(".") == 1]
    sys.stdout.write(" ".join(["-m tidefs", *(f"-p {room}" for room in rooms)]) + "\n")
