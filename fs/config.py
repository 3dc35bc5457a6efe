"""A configuration file into a typed record; what is wrong in it is named with file and key.

A record is a class derived from ``Config``. A field annotated ``Size`` holds bytes and may be
written "64 MiB"; one annotated ``Duration`` holds milliseconds and is written "5s".
"""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from .errors import Code, TideError
from .quantities import parse_duration, parse_size


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a configuration file may hold. A misspelt key is refused, never silently ignored."""


C = TypeVar("C", bound=Config)


class Size(int):
    """Bytes; in a file a number, or a text such as "64 MiB"."""


class Duration(int):
    """Milliseconds; in a file a text such as "5s" or "250ms"."""


Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
"""A TCP port."""


def load(path: str | Path, kind: type[C]) -> C:
    """The file as a ``kind``. BAD_CONFIG names the file, the key and what was expected."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise _bad(str(path), f"cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise _bad(str(path), "is not UTF-8 text") from None
    return parse(text, str(path), kind)


def parse(text: str, name: str, kind: type[C]) -> C:
    """As ``load``, from the text; ``name`` stands for the file in errors."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _bad(name, f"is not TOML: {error}") from None
    try:
        return msgspec.convert(values, kind, dec_hook=_quantity)
    except msgspec.ValidationError as error:
        raise _bad(name, _in_words(str(error), kind)) from None


def _bad(name: str, reason: str) -> TideError:
    return TideError(Code.BAD_CONFIG, f"{name}: {reason}")


def _quantity(kind: type, value: object) -> object:
    """A Size or a Duration from what stands in the file."""
    readers: dict[type, Callable[[str], int]] = {Size: parse_size, Duration: parse_duration}
    if kind is Size and type(value) is int and value >= 0:
        return Size(value)
    if not isinstance(value, str):
        value = str(value)
    try:
        return kind(readers[kind](value))
    except TideError as error:
        raise ValueError(error.detail) from None


_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text in quotes",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}


def _in_words(message: str, kind: type[Config]) -> str:
    """What msgspec found, as a sentence about a key."""
    what, _, place = message.partition(" - at ")
    place = place.strip("`").removeprefix("$").removeprefix(".")
    if found := re.fullmatch(r"Object contains unknown field `(.+)`", what):
        known = f" (there are: {', '.join(kind.__struct_fields__)})" if not place else ""
        return f"there is no key {_join(place, found[1])}{known}"
    if found := re.fullmatch(r"Object missing required field `(.+)`", what):
        return f"the key {_join(place, found[1])} is missing"
    words = re.sub(r"`(\w+)`", lambda name: _TYPES.get(name[1], f"`{name[1]}`"), what)
    return f"the key {_join(place)}: {words[:1].lower()}{words[1:]}"


def _join(*parts: str) -> str:
    return repr(".".join(part for part in parts if part))
