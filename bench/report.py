"""The table of ratios."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Row:
    """One line: what was measured, our figure, the peers', and the aim in words."""

    work: str
    ours: str
    peers: str
    ratio: float | None
    aim: str
    met: bool | None


def machine() -> str:
    """What the figures were measured on."""
    memory = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{psutil.cpu_count()} cores, {memory:.0f} GiB, {system}"


def print_table(rows: list[Row]) -> None:
    headings = ("work", "streamgauge", "peers", "ratio", "aim", "met")
    cells = [
        (
            row.work,
            row.ours,
            row.peers,
            "" if row.ratio is None else f"{row.ratio:.2f}",
            row.aim,
            {True: "yes", False: "NO", None: ""}[row.met],
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in [headings, *cells]) for column in range(len(headings))]
    for line in [headings, tuple("-" * width for width in widths), *cells]:
        print("| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |")
