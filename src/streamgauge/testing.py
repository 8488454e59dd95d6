"""Real, small implementations of ports, for tests of what stands on them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamgauge.errors import QueryFailed
from streamgauge.model.arrays import Floats, Int64s
from streamgauge.model.frame import LabelFrame
from streamgauge.model.source import Matcher, Meter, Samples, Selection, Source, empty_selection
from streamgauge.query.promql.matchers import matching_rows

Series = tuple[Mapping[str, str], Iterable[int], Iterable[float]]
"""Labels, times in ms (ascending), and the values beside them. An array of values keeps the bits of stale markers."""


class MemorySource:
    """A Source over samples in memory. `samples` row i belongs to `labels` row i."""

    def __init__(self, labels: LabelFrame, samples: Samples) -> None:
        self.labels = labels
        self.samples = samples

    @staticmethod
    def of(series: Sequence[Series]) -> MemorySource:
        times = [np.array(_listed(given), np.int64) for _, given, _ in series]
        values = [np.array(_listed(given), np.float64) for _, _, given in series]
        offsets = np.concatenate(([0], np.cumsum([len(part) for part in times]))).astype(np.int64)
        samples = Samples(offsets, np.concatenate([_NO_TIMES, *times]), np.concatenate([_NO_VALUES, *values]))
        return MemorySource(LabelFrame.of([labels for labels, _, _ in series]), samples)

    def select(self, matchers: Sequence[Matcher], start: int, end: int, meter: Meter) -> Selection:
        rows = self._matching(matchers)
        low, high = self._bounds(start, end)
        rows = rows[high[rows] > low[rows]]
        counts = high[rows] - low[rows]
        total = int(counts.sum())
        meter.charge(total, 16 * total)
        offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        at = np.arange(total) + np.repeat(low[rows] - offsets[:-1], counts)
        return Selection(self.labels.take(rows), Samples(offsets, self.samples.times[at], self.samples.values[at]))

    def series(self, matcher_sets: Sequence[Sequence[Matcher]], start: int, end: int) -> LabelFrame:
        low, high = self._bounds(start, end)
        rows = np.zeros(len(self.labels), np.bool_)
        for matchers in matcher_sets or [()]:
            rows[self._matching(matchers)] = True
        return self.labels.take(np.flatnonzero(rows & (high > low)))

    def _matching(self, matchers: Sequence[Matcher]) -> Int64s:
        rows = np.ones(len(self.labels), np.bool_)
        for matcher in matchers:
            rows &= matching_rows(matcher, self.labels)
        return np.flatnonzero(rows)

    def _bounds(self, start: int, end: int) -> tuple[Int64s, Int64s]:
        """For each series where its samples of that range begin and end."""
        low = np.concatenate(([0], np.cumsum(self.samples.times < start)))
        high = np.concatenate(([0], np.cumsum(self.samples.times > end)))
        first, last = self.samples.offsets[:-1], self.samples.offsets[1:]
        return first + (low[last] - low[first]), last - (high[last] - high[first])


_NO_TIMES: Int64s = np.empty(0, np.int64)
_NO_VALUES: Floats = np.empty(0, np.float64)


def _listed(values: Iterable[float]) -> object:
    return values if isinstance(values, np.ndarray) else list(values)


@dataclass(frozen=True, slots=True)
class Trouble:
    """A snapshot whose `series` does as `what` says; a query for label names or cardinality runs into it.

    answer: one series with the label `pid`, the worker's process id. large: one with a value of `number` bytes.
    allocate: memory without end. keep: hold on to `number` bytes for ever, then answer. hold: the same, then spin.
    spin: never return, in Python. deaf: never return, in C, with the interpreter lock held.
    abort, kill: end the process. refuse: raise QueryFailed. fail: raise a foreign exception.

    With `gate` it first connects to that loopback port, sends its process id and a line feed, and waits for a byte. The
    connection stays open for as long as the process lives.
    """

    what: str = "answer"
    number: int = 0
    gate: int = 0

    def open(self) -> Source:
        return _TroubledSource(self)


class _TroubledSource:
    def __init__(self, trouble: Trouble) -> None:
        self._trouble = trouble

    def select(self, matchers: Sequence[Matcher], start: int, end: int, meter: Meter) -> Selection:
        return empty_selection()

    def series(self, matcher_sets: Sequence[Sequence[Matcher]], start: int, end: int) -> LabelFrame:
        trouble = self._trouble
        if trouble.gate:
            connection = socket.create_connection(("127.0.0.1", trouble.gate))
            _held.append(connection)
            connection.sendall(b"%d\n" % os.getpid())
            connection.recv(1)
        match trouble.what:
            case "large":
                return LabelFrame.of([{"pid": "x" * trouble.number}])
            case "allocate":
                while True:
                    _held.append(np.ones(1 << 20))
            case "keep":
                _held.append(np.ones(trouble.number // 8))
            case "hold":
                _held.append(np.ones(trouble.number // 8))
                _spin()
            case "spin":
                _spin()
            case "deaf":
                sum(range(1 << 62))
            case "abort":
                os.abort()
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "refuse":
                raise QueryFailed("refused")
            case "fail":
                raise ZeroDivisionError("a detail that is nobody's business")
        return LabelFrame.of([{"pid": str(os.getpid())}])


def _spin() -> None:
    while True:
        pass


_held: list[object] = []
