"""An export: window after window of time, so that no query is beyond a limit, however much there is."""

from __future__ import annotations

import itertools
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from streamgauge.commands.exporter.files import ExportFile
from streamgauge.commands.exporter.places import ExportPlace, TooMuch
from streamgauge.commands.exporter.queries import Wanted, questions

DAY_MS = 86_400_000
FIRST, LAST = -(1 << 53), 1 << 53
"""ms: what SQL has for times reaches so far."""
MAX_WINDOWS = 1000
"""That an export begins with: each is a query, of some milliseconds where there is nothing."""
_SPOOL_BYTES = 64 << 20
"""Of one answer in memory; the rest of it waits in a file."""

Progress = Callable[[float, int, int], None]
"""Is told which part of the range is done, and how many rows and bytes are written."""


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` on, before `stop`, ms. share: which part of the whole it is, as far as anybody knows."""

    start: int
    stop: int
    share: float

    @property
    def width(self) -> int:
        return self.stop - self.start

    def halves(self) -> tuple[Window, Window]:
        middle = self.start + self.width // 2
        share = self.share / 2
        return Window(self.start, middle, share), Window(middle, self.stop, share)


def windows(start: int, stop: int, moments: Sequence[int]) -> list[Window]:
    """A range in windows of whole days, or of several, where blocks have samples or events at `moments`."""
    inside = [moment for moment in moments if start <= moment < stop]
    if not inside or start >= stop:
        return [Window(start, stop, 1.0)]
    days = (max(inside) - min(inside)) // DAY_MS + 1
    step = DAY_MS * -(-days // MAX_WINDOWS)
    first = min(inside) // DAY_MS * DAY_MS
    edges = [edge for edge in range(first, max(inside) + step + 1, step) if start < edge < stop]
    bounds = [start, *edges, stop]
    return [Window(low, high, 1 / (len(bounds) - 1)) for low, high in itertools.pairwise(bounds)]


class Export:
    """spool: the folder in which answers wait until they are whole."""

    def __init__(self, place: ExportPlace, wanted: Wanted, spool: Path, progress: Progress) -> None:
        self._place = place
        self._wanted = wanted
        self._spool = spool
        self._progress = progress

    def run(self, start: int, stop: int, file: ExportFile, out: BinaryIO) -> None:
        """Write all that is wanted from `start` on and before `stop` (ms). Raises what the queries fail with."""
        waiting = deque(windows(start, stop, self._place.moments(self._wanted.events)))
        done = 0.0
        while waiting:
            window = waiting.popleft()
            if not self._add(window, file):
                waiting.extendleft(reversed(window.halves()))
                continue
            done += window.share
            self._progress(min(done, 1.0), file.rows, out.tell())
        file.finish()

    def _add(self, window: Window, file: ExportFile) -> bool:
        """False when a query cannot answer so much at once. All of the window is added, or nothing."""
        with ExitStack() as stack:
            answers = []
            try:
                for question in questions(self._wanted, window.start, window.stop):
                    spool = tempfile.SpooledTemporaryFile(_SPOOL_BYTES, dir=str(self._spool))  # noqa: SIM115
                    answers.append(stack.enter_context(spool))
                    for piece in self._place.rows(question.query, question.parameters, file.asked):
                        spool.write(piece)
            except TooMuch:
                if window.width <= 1:
                    raise
                return False
            for answer in answers:
                answer.seek(0)
                file.add(cast(BinaryIO, answer))
            return True
