"""What is in the files of litmus tests: blocks that say a word, records, numbers. Pure."""

from itertools import groupby

from .steps import RECORD_BYTES

NOTHING = "nothing"
TORN = "torn"
WORDS_MAX = 2
"""So many words, and each of them whole, may be in one block by turns."""


def block(word: str, block_bytes: int) -> bytes:
    """``block_bytes`` of the word, again and again."""
    line = f"{word}\n".encode()
    return (line * (block_bytes // len(line) + 1))[:block_bytes]


def described(data: bytes, block_bytes: int) -> str:
    """The word that all blocks say; ``new x3 old x5`` when they differ, ``new/old`` within one.

    ``zeros``; ``torn`` for what is no whole word, or a piece of a block only.
    """
    pieces = [data[at : at + block_bytes] for at in range(0, len(data), block_bytes)]
    words = [_word(piece, block_bytes) for piece in pieces]
    runs = [(word, len(list(run))) for word, run in groupby(words)]
    if len(runs) < 2:
        return runs[0][0] if runs else NOTHING
    return " ".join(word if count == 1 else f"{word} x{count}" for word, count in runs)


def words_of(description: str) -> set[str]:
    """The different words in what ``described`` says."""
    parts = [part for part in description.split() if not part.startswith("x")]
    return {word for part in parts for word in part.split("/")}


def _word(piece: bytes, block_bytes: int) -> str:
    if not any(piece):
        return "zeros"
    if len(piece) < block_bytes:
        return TORN
    lines = piece.decode(errors="replace").split("\n")
    words = list(dict.fromkeys(lines[:-1] or lines))
    whole = all(map(str.isalpha, words)) and any(word.startswith(lines[-1]) for word in words)
    return "/".join(words) if whole and len(words) <= WORDS_MAX else TORN


def record(who: str, number: int) -> bytes:
    """One that tells when a part of it is missing or somebody else's."""
    line = f"{who} {number} "
    return (line + "." * (RECORD_BYTES - len(line) - 1) + "\n").encode()


def counted(data: bytes) -> str:
    """``N records``, all different ones; ``torn`` when something is no whole record."""
    pieces = [data[at : at + RECORD_BYTES] for at in range(0, len(data), RECORD_BYTES)]
    for piece in pieces:
        who, number, *_ = [*piece.decode(errors="replace").split(" "), "", ""]
        if not number.isdigit() or piece != record(who, int(number)):
            return TORN
    return f"{len(set(pieces))} records"
