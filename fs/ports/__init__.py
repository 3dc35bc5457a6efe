"""The four ports through which the outside world comes in: clock, randomness, disk, network.

Each is a small Protocol with its real implementation; the simulator has its own. Waiting is
trio's business: its clock is virtual in the simulator too.
"""

from typing import NamedTuple

from .clock import Clock
from .disk import Disk
from .network import Network
from .randomness import Randomness


class Ports(NamedTuple):
    """What a server or a mount is given to live on. ``disk`` is the root of its own folder."""

    clock: Clock
    randomness: Randomness
    disk: Disk
    network: Network
