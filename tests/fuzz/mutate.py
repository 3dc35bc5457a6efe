"""Damages messages: flips, cuts, repeats, joins, and puts numbers there that are often wrong."""

import random

INTERESTING = (0, 1, 2, 7, 8, 39, 40, 127, 128, 255, 4096, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000,
               0xFFFFFFFF, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip
LENGTH_MAX = 1 << 14


class Mutator:
    """A stream of damaged copies of ``seeds``, the same for the same random numbers."""

    def __init__(self, seeds: list[bytes], numbers: random.Random) -> None:
        self._seeds = seeds
        self._numbers = numbers
        self._ways = (
            self._flip,
            self._put_number,
            self._cut,
            self._repeat,
            self._insert,
            self._join,
        )

    def next(self, seed: bytes | None = None) -> bytes:
        """One message; now and then one that is not damaged."""
        numbers = self._numbers
        data = bytearray(numbers.choice(self._seeds) if seed is None else seed)
        for _ in range(numbers.choice((0, 1, 1, 1, 2, 3, 5))):
            numbers.choice(self._ways)(data)
        return bytes(data[:LENGTH_MAX])

    def _place(self, data: bytearray) -> int:
        return self._numbers.randrange(len(data) + 1)

    def _flip(self, data: bytearray) -> None:
        if data:
            data[self._numbers.randrange(len(data))] ^= 1 << self._numbers.randrange(8)

    def _put_number(self, data: bytearray) -> None:
        size = self._numbers.choice((1, 2, 4, 8))
        number = self._numbers.choice(INTERESTING) & ((1 << 8 * size) - 1)
        at = self._place(data)
        data[at : at + size] = number.to_bytes(size, self._numbers.choice(("little", "big")))

    def _cut(self, data: bytearray) -> None:
        at = self._place(data)
        del data[at : self._numbers.choice((at + 1, at + 8, len(data)))]

    def _repeat(self, data: bytearray) -> None:
        start, end = sorted((self._place(data), self._place(data)))
        data[start:start] = data[start:end] * self._numbers.choice((1, 1, 2, 20))

    def _insert(self, data: bytearray) -> None:
        at = self._place(data)
        data[at:at] = self._numbers.randbytes(self._numbers.choice((1, 2, 8, 100)))

    def _join(self, data: bytearray) -> None:
        other = self._numbers.choice(self._seeds)
        data[self._place(data) :] = other[self._numbers.randrange(len(other) + 1) :]
