"""What a product broken on purpose is made of: lies of its ports, methods that are replaced."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
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


def all_of(*patches: Patched) -> Patched:
    """Everything at once."""

    @contextmanager
    def patched() -> Iterator[None]:
        with ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch())
            yield

    return patched


def nothing(_before: Any) -> Any:
    """For ``patching``: a method that does nothing."""
    return lambda *_, **__: None


def nothing_soon(_before: Any) -> Any:
    """For ``patching``: a method with ``async`` that does nothing."""

    async def do_nothing(*_: object, **__: object) -> None:
        """As if that were enough."""

    return do_nothing
