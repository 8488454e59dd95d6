"""Tables of text for terminals and pipes: columns as wide as their content, nothing cut off, one line a row."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

_GAP = "  "


def printable(text: str) -> str:
    """The text with control characters spelt out: what a client stored must not command a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> Iterator[str]:
    """The lines of a table; the columns numbered in `numbers` are set to the right."""
    cells = [list(headings), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = [
            _blank(width, cell) + cell if index in numbers else cell + _blank(width, cell)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield _GAP.join(padded).rstrip()


def _blank(width: int, cell: str) -> str:
    return " " * (width - _width(cell))


def _width(text: str) -> int:
    """Columns of a terminal that a text takes (Unicode Standard Annex 11)."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in text)
