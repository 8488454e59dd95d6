"""What an import says while it runs and when it has ended. On a terminal one line is kept up to date."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable
from typing import TextIO

from streamgauge.commands.importer.state import Tally
from streamgauge.commands.table import printable
from streamgauge.durations import format_duration

UPDATE_SECONDS = 0.2
_CLEAR = "\r\x1b[K"


class Progress:
    """Of one file. Lines go to stderr; the line that is kept up to date only where that is a terminal.

    size: bytes of the file, None where it is not known. before: samples that earlier runs stored. now: seconds.
    what: is counted.
    """

    def __init__(
        self,
        name: str,
        size: int | None,
        before: int,
        now: Callable[[], float],
        out: TextIO | None = None,
        what: str = "samples",
    ) -> None:
        self._name = name
        self.size = size
        self._what = what
        self._before = before
        self._now = now
        self._out = out if out is not None else sys.stderr
        self._terminal = self._out.isatty()
        self._began = now()
        self._began_at: int | None = None  # bytes
        self._shown = float("-inf")

    def update(self, position: int, stored: int) -> None:
        """position: bytes of the file that have been read. stored: samples."""
        now = self._now()
        if self._began_at is None:
            self._began_at = position
        if not self._terminal or now - self._shown < UPDATE_SECONDS:
            return
        self._shown = now
        self._write(f"{_CLEAR}{self.line(position, stored)}")

    def line(self, position: int, stored: int) -> str:
        seconds = max(self._now() - self._began, 1e-3)
        rate = (stored - self._before) / seconds
        parts = [f"{self._name}:"]
        if self.size:
            share = min(position / self.size, 1.0)
            parts.append(f"{share:4.0%} of {size_text(self.size)},")
        else:
            parts.append(f"{size_text(position)},")
        parts.append(f"{stored:,} {self._what}, {rate:,.0f}/s")
        done = position - (self._began_at or 0)
        if self.size and done > 0 and position < self.size:
            left = (self.size - position) * seconds / done
            parts.append(f", {format_duration(max(round(left), 1) * 1000)} left")
        return " ".join(parts).replace(" ,", ",")

    def say(self, text: str) -> None:
        """A line that stays."""
        self._write((_CLEAR if self._terminal else "") + printable(text) + "\n")
        self._shown = float("-inf")

    def clear(self) -> None:
        if self._terminal:
            self._write(_CLEAR)

    def seconds(self) -> float:
        return max(self._now() - self._began, 1e-3)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def summary(name: str, tally: Tally, series: int, before: int, seconds: float) -> list[str]:
    """Lines that say what has become of a file. before: samples that earlier runs stored."""
    rate = f"{(tally.stored - before) / seconds:,.0f} a second"
    earlier = f", {before:,} of them by earlier runs" if before else ""
    lines = [f"{name}: {tally.stored:,} samples of {series:,} series stored in {seconds:.1f} s ({rate}){earlier}"]
    for reason, count in sorted(tally.refused.items()):
        lines.append(f"  not stored, {reason}: {count:,}")
        lines += [f"    {example}" for example in tally.examples.get(reason, [])]
    lines += [f"  {fault}" for fault in tally.faults]
    return lines


def too_old(text: str, oldest: int | None, now: int) -> str:
    """What to do about samples that the server does not keep; `text` is about one of them."""
    from streamgauge.store.ports import DAY_MS

    days = "" if oldest is None else f" {-(-(now - oldest) // DAY_MS)}d"
    return (
        f"{text}. The import ends here, before it refuses more: start the server with --retention{days} or longer and "
        "run this again, or leave out what is too old with --skip-old. If the server has downsampled these days, only "
        "leaving them out helps"
    )


def beyond_default(oldest: int | None, now: int) -> str | None:
    """What to say of a folder whose samples a server with the default retention would remove."""
    from streamgauge.store.ports import DAY_MS
    from streamgauge.store.store import StoreSettings

    if oldest is None or oldest >= now - StoreSettings().retention:
        return None
    day = datetime.datetime.fromtimestamp(max(oldest, 0) / 1000, datetime.UTC).date()
    days = -(-(now - oldest) // DAY_MS)
    return (
        f"samples reach back to {day}: a server on this folder needs --retention {days}d or longer (or 0), or it "
        f"removes what is older than {format_duration(StoreSettings().retention)}"
    )


def size_text(size: int) -> str:
    """A number of bytes as people read it."""
    number, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
