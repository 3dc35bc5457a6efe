"""Which campaigns there are."""

import argparse
from collections.abc import Callable

Campaign = Callable[[argparse.Namespace], None]
CAMPAIGNS: dict[str, Campaign] = {}
"""By the name of the function; its docstring is the help."""


def campaign(function: Campaign) -> Campaign:
    """Register a campaign."""
    CAMPAIGNS[function.__name__] = function
    return function
