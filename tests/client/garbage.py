"""What only the garbage collector could free: objects that hold each other in a circle."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def garbage() -> Iterator[Callable[..., list[Any]]]:
    """Afterwards, what it gives tells which objects of some classes were left inside."""
    found: list[Any] = []
    gc.collect()
    gc.disable()
    try:
        yield lambda *kinds: [thing for thing in found if isinstance(thing, kinds)]
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
