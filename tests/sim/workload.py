"""One application with all its operations: random work in a directory of its own.

Nobody else touches that directory, so the model knows every answer. How an operation is asked and
judged is in ``worker.py``.
"""

from .work_on_bytes import WorkOnBytes
from .work_on_names import WorkOnNames


class Worker(WorkOnNames, WorkOnBytes):
    """One application. ``tree`` is what its directory must look like."""

    async def work(self, steps: int) -> None:
        """Do that many random operations."""
        names = sorted(self._taste.weights)
        weights = [self._taste.weights[name] for name in names]
        for _ in range(steps):
            (name,) = self._random.choices(names, weights)
            await getattr(self, f"_{name}")()

    async def finish(self) -> None:
        """Close everything."""
        while self.handles:
            await self._close()
