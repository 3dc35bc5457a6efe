"""How the commands speak to a person."""

import click


def say(text: str) -> None:
    """What happens meanwhile: on standard error."""
    click.echo(text, err=True)


def count(number: int, one: str, many: str = "") -> str:
    """``1 copy``, ``3 copies``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def table(rows: list[list[str]]) -> list[str]:
    """Rows of cells as lines with aligned columns; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
