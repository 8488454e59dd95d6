"""How far a command is, on a terminal: a bar, bytes and rate. Nothing where stderr is a pipe or a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from streamgauge.clock import Clock, SystemClock
from streamgauge.commands.importer.progress import size_text

_REDRAW_SECONDS = 0.1
_WIDTH = 30
_CLEAR = "\r\x1b[K"


class Bar:
    """Implements backup.write.Progress. A step is copied and then verified, and counts half for each."""

    def __init__(self, what: str, steps: int, clock: Clock, shown: bool) -> None:
        self._what = what
        self._steps = steps  # how often each byte is to be handled
        self._clock = clock
        self._shown = shown
        self._expected = self._done = 0
        self._started = clock.monotonic()
        self._drawn = -_REDRAW_SECONDS
        self.bytes_copied = 0

    def expect(self, size: int) -> None:
        self._expected = size * self._steps
        self._started = self._clock.monotonic()

    def copied(self, size: int) -> None:
        self.bytes_copied += size
        self._advance(size)

    def verified(self, size: int) -> None:
        self._advance(size)

    @property
    def seconds(self) -> float:
        """Since it was known what is to come."""
        return self._clock.monotonic() - self._started

    def _advance(self, size: int) -> None:
        self._done += size
        now = self.seconds
        if self._shown and self._expected and now - self._drawn >= _REDRAW_SECONDS:
            self._drawn = now
            click.echo(_CLEAR + self.line(), nl=False, err=True)

    def line(self) -> str:
        part = min(1.0, self._done / self._expected) if self._expected else 1.0
        done, total = self._done // self._steps, self._expected // self._steps
        rate = size_text(round(self._done / max(self.seconds, 1e-3)))
        return f"{self._what}  {bar_text(part)}  {size_text(min(done, total))} of {size_text(total)}, {rate}/s"

    def clear(self) -> None:
        if self._shown and self._drawn >= 0:
            click.echo(_CLEAR, nl=False, err=True)


@contextmanager
def progress(what: str, steps: int) -> Iterator[Bar]:
    """A bar on stderr, gone when the `with` ends. `steps`: how often each expected byte is handled."""
    bar = Bar(what, steps, SystemClock(), sys.stderr.isatty())
    try:
        yield bar
    finally:
        bar.clear()


class ShareBar:
    """Of work of which only the part that is done is known. `monotonic`: seconds."""

    def __init__(self, what: str, shown: bool, monotonic: Callable[[], float]) -> None:
        self._what = what
        self._shown = shown
        self._monotonic = monotonic
        self._drawn = monotonic() - _REDRAW_SECONDS
        self._visible = False

    def update(self, part: float, rows: int, size: int) -> None:
        """size: bytes."""
        now = self._monotonic()
        if self._shown and now - self._drawn >= _REDRAW_SECONDS:
            self._drawn, self._visible = now, True
            line = f"{self._what}  {bar_text(part)}  {rows:,} rows, {size_text(size)}"
            click.echo(_CLEAR + line, nl=False, err=True)

    def clear(self) -> None:
        if self._visible:
            click.echo(_CLEAR, nl=False, err=True)
            self._visible = False


def bar_text(part: float) -> str:
    """`part` from 0 to 1."""
    return f"[{('#' * int(part * _WIDTH)).ljust(_WIDTH, '-')}] {part:4.0%}"
