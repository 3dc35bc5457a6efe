"""What the tests of the command share."""

import threading

import pytest


@pytest.fixture
def wait_until():
    """Look at a condition until it holds; the time-out of the test ends the wait."""

    def wait(condition):
        while not condition():
            threading.Event().wait(0.05)

    return wait
