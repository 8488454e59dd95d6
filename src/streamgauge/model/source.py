"""Where queries read: the store's reading side, as every query engine sees it."""

from __future__ import annotations

import enum
from collections.abc import Collection, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from streamgauge.model.arrays import Floats, Int64s
from streamgauge.model.event_source import EventSource
from streamgauge.model.frame import LabelFrame, empty_frame


class MatchOp(enum.Enum):
    EQUAL = "="
    NOT_EQUAL = "!="
    MATCH = "=~"
    NOT_MATCH = "!~"


@dataclass(frozen=True, slots=True)
class Matcher:
    """A condition on one label. An absent label has the value "". Regular expressions are RE2, match the whole value,
    and `.` matches a newline too, as in Prometheus 3."""

    name: str
    op: MatchOp
    value: str


@dataclass(frozen=True, slots=True)
class Selector:
    """Which series, those that fulfil all matchers, and which of their samples. Times are ms, both ends inclusive."""

    matchers: tuple[Matcher, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples of many series in compressed-row form: series i has times[offsets[i]:offsets[i+1]], strictly ascending,
    and the values beside them. Stale markers are kept, bit for bit."""

    offsets: Int64s  # [series + 1], offsets[0] == 0
    times: Int64s  # ms
    values: Floats

    def __len__(self) -> int:
        """The number of series."""
        return len(self.offsets) - 1

    def take(self, rows: Int64s) -> Samples:
        """The samples of the given series, in the given order. What is taken is copied."""
        counts = np.diff(self.offsets)[rows]
        offsets = np.concatenate(([0], np.cumsum(counts)))
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], counts)
        return Samples(offsets, self.times[places], self.values[places])


@dataclass(frozen=True, slots=True)
class Selection:
    """The series that matched and have a sample in the range: row i of `labels` is series i of `samples`."""

    labels: LabelFrame
    samples: Samples


class AggregateKind(enum.Enum):
    """What is wanted of an aggregate of many samples. Samples that are stored as they came are given as they are, but
    for COUNT (1 each) and INCREASE. None of them but LAST is a stale marker where there are other samples."""

    LAST = "last"  # the latest sample, and a stale marker if that is one
    LAST_NUMBER = "last number"  # the latest sample that is no stale marker
    COUNT = "count"  # samples, without stale markers; the others are of these samples, too
    SUM = "sum"
    MIN = "min"
    MAX = "max"
    INCREASE = "increase"  # what a counter has gained since the aggregate before, or the sample before


@dataclass(frozen=True, slots=True)
class Horizon:
    """Before `time` (ms), and back to the horizon before this one, only aggregates over `resolution` ms are kept. Each
    stands at the last millisecond of what it is over."""

    time: int
    resolution: int


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Series and when they lived: row i of `labels` has its first stored sample at first[i], and its last at last[i]. A
    stale marker is a sample."""

    labels: LabelFrame
    first: Int64s  # ms
    last: Int64s  # ms


class Meter(Protocol):
    """What a query may use up. `charge` raises the query's limit error; a source calls it before it allocates."""

    def charge(self, samples: int, size: int) -> None:
        """`samples` more samples will be held, in `size` bytes."""

    def release(self, samples: int, size: int) -> None:
        """So much of what was charged is no longer held."""


class NoMeter:
    def charge(self, samples: int, size: int) -> None:
        pass

    def release(self, samples: int, size: int) -> None:
        pass


class Source(Protocol):
    """One consistent state of the store. Times are ms and both ends are inclusive. Order of series is not promised.

    What an answer holds stays charged to the meter."""

    @property
    def horizons(self) -> Sequence[Horizon]:
        """Ascending in time. None where all samples are kept as they came."""

    def select(
        self,
        matchers: Sequence[Matcher],
        start: int,
        end: int,
        meter: Meter,
        aggregate: AggregateKind = AggregateKind.LAST,
    ) -> Selection:
        """Series that match all of `matchers` and have at least one sample (a stale marker counts) in the range.

        aggregate: what stands for samples of which only aggregates are kept. INCREASE is for ranges that begin before
        the last horizon."""

    def series(
        self,
        matcher_sets: Sequence[Sequence[Matcher]],
        start: int,
        end: int,
        meter: Meter,
        names: Collection[str] | None = None,
    ) -> LabelFrame:
        """Distinct series that match any of the sets and may have a sample in the range. No sets: every series.

        names: the labels that are wanted; None is all of them. Rows are one a series all the same."""

    def lifetimes(self, matcher_sets: Sequence[Sequence[Matcher]], meter: Meter) -> Lifetimes:
        """Distinct series that match any of the sets, and have a sample at any time. No sets: every series."""

    def events(self) -> EventSource:
        """The events of the same state."""


class Snapshot(Protocol):
    """A picklable description of one consistent state, made on the event loop and opened where the query runs."""

    def open(self, kept: MutableMapping[str, object]) -> Source:
        """The state itself. `kept` belongs to the reading process, which hands the same mapping to every snapshot it
        opens, one at a time: what is worth keeping from one query to the next stays in it."""


def empty_samples() -> Samples:
    return Samples(np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))


def empty_selection() -> Selection:
    return Selection(empty_frame(), empty_samples())
