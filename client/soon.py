"""An answer that may be there at once. Pure."""

from collections.abc import Awaitable
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Soon: TypeAlias = T | Awaitable[T]
"""An answer, or something to await that gives it."""
