"""What a product broken on purpose is made of: lies of its ports, methods that are replaced."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import ModuleType
from typing import Any, NamedTuple

from .cluster import Lies

Patched = Callable[[], AbstractContextManager[object]]


class Mutation(NamedTuple):
    """What is broken: on the disks and in the clients, or in the product's code.

    ``options``: what kind of runs may show it, where others only cost time.
    """

    lies: Lies = Lies()
    patched: Patched = nullcontext
    options: Mapping[str, Any] = {}


def patching(kind: type | ModuleType, name: str, broken: Callable[[Any], Any]) -> Patched:
    """While the context lasts ``kind.name`` is what ``broken`` makes of it."""

    @contextmanager
    def patched() -> Iterator[None]:
        before = getattr(kind, name)
        setattr(kind, name, broken(before))
        try:
            yield
        finally:
            setattr(kind, name, before)

    return patched
