"""Sizes and durations as people write them: ``64 MiB``, ``5s``; and sizes as people read them."""

import re

from .errors import Code, TideError
from .limits import GIB, KIB, MIB, TIB

SIZE_UNITS = {
    "": 1,
    "b": 1,
    "kib": KIB,
    "mib": MIB,
    "gib": GIB,
    "tib": TIB,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "tb": 1000**4,
    "k": KIB,
    "m": MIB,
    "g": GIB,
    "t": TIB,
}
DURATION_UNITS_MS = {"ms": 1, "s": 1_000, "min": 60_000, "m": 60_000, "h": 3_600_000}

_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.ASCII | re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes: ``4096``, ``64 KiB``, ``1.5GiB``, ``10 GB`` (of 1000), ``8k`` (of 1024)."""
    return _parse(text, SIZE_UNITS, "a size, such as 64 MiB, 1.5 GiB or a number of bytes")


def parse_duration(text: str) -> int:
    """Milliseconds: ``250ms``, ``5s``, ``1.5 min``, ``2h``. A bare number has no meaning here."""
    return _parse(text, DURATION_UNITS_MS, "a duration, such as 250ms, 5s, 1.5min or 2h")


def format_size(size_bytes: int) -> str:
    """In the largest binary unit that leaves at least 1, with one decimal below 10."""
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size_bytes >= unit:
            amount = size_bytes / unit
            whole = size_bytes % unit == 0 or amount >= 10
            return f"{amount:.0f} {name}" if whole else f"{amount:.1f} {name}"
    return f"{size_bytes} B"


def _parse(text: str, units: dict[str, int], expected: str) -> int:
    found = _QUANTITY.fullmatch(text)
    unit = units.get(found[2].lower()) if found else None
    if found is None or unit is None:
        raise TideError(Code.INVALID, f"{text!r} is not {expected}")
    whole, _, fraction = found[1].partition(".")
    parts: int = 10 ** len(fraction)
    return int(whole) * unit + int(fraction or "0") * unit // parts
