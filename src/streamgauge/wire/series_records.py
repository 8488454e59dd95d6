"""Where the parts of many time series of a remote-write 2.0 request lie, found in columns.

A time series as encoders write it (hexadecimal; sizes of one or two bytes):

    2a size 0a size refs…   one sample, or several of 18 bytes   [2a size metadata]

Its size says where the next one begins, so the way from one to the next goes one by one, but over numbers that are
ready: everything else is worked out for all bytes that could be the beginning of a series at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamgauge.model.arrays import Bools, Int64s
from streamgauge.wire.samples import (
    BATCH_ROWS,
    SAMPLE_BYTES,
    SAMPLE_HEAD,
    START_BYTES,
    STARTED_HEAD,
    ZERO_HEAD,
    ZERO_SAMPLE_BYTES,
)

_WINDOW_BYTES = 128 << 10
"""Looked at in one go: 2,000 series of one sample, and half a millisecond."""
_BEYOND = 32
"""Bytes behind a record's first ones that are looked at before it is known whether the record has so many."""
_MOST_SAMPLES = 64
"""Of a series; what has more is no slower when it is read by itself."""
_SHORTEST_RUN = 8
"""Series that it pays to decode in columns."""

_SERIES_TAG = 0x2A
_REFS_TAG = 0x0A
_METADATA_TAG = 0x2A
_START_TAG = 0x18
_CONTINUED = 0x80

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Records:
    """Time series that follow one another. Offsets are into the request; int64, one element a series."""

    starts: Int64s
    stops: Int64s  # where the next one starts
    refs: Int64s  # where the packed references begin
    heads: Int64s  # where they end and the first sample begins
    counts: Int64s  # samples; -1: one with its value left out
    ends: Int64s  # of the last sample; behind it come a start timestamp and metadata, or nothing
    standard: Bools  # whether all this holds: where not, only starts and stops do

    def __len__(self) -> int:
        return len(self.starts)

    def runs(self) -> Iterator[tuple[bool, Records]]:
        """All of them in order, in runs of those that are standard and those that are not. Of the former some between
        the latter are counted among them: to decode them in columns would not pay."""
        edges = [0, *(np.flatnonzero(self.standard[1:] != self.standard[:-1]) + 1).tolist(), len(self)]
        for first, last in itertools.pairwise(edges):
            long_enough = last - first >= _SHORTEST_RUN or len(edges) == 2
            yield bool(self.standard[first]) and long_enough, self._cut(slice(first, last))

    def _cut(self, rows: slice) -> Records:
        return Records(
            self.starts[rows],
            self.stops[rows],
            self.refs[rows],
            self.heads[rows],
            self.counts[rows],
            self.ends[rows],
            self.standard[rows],
        )

    def sample_ends(self) -> Int64s:
        """Where each sample ends, int64[samples]."""
        samples = np.abs(self.counts)
        if len(samples) == int(samples.sum()):
            return self.ends
        last = np.repeat(self.ends, samples)
        behind = np.repeat(np.cumsum(samples), samples) - 1 - np.arange(len(last))
        return last - SAMPLE_BYTES * behind


def survey(data: bytes, at: int, end: int) -> Records | None:
    """The time series from `at` on, at most as many as make a batch; None where something else stands there."""
    raw = np.frombuffer(data, np.uint8)
    starts, bodies, stops = _candidates(raw, at, min(end, at + _WINDOW_BYTES), end)
    if not len(starts) or starts[0] != at:
        return None
    following = np.searchsorted(starts, stops)
    following[following == len(starts)] = 0
    following[starts[following] != stops] = -1
    if np.array_equal(following[:-1], np.arange(1, len(starts))):  # nothing else looked like one
        chain = np.arange(min(len(starts), BATCH_ROWS))
    else:
        chain = np.array(_chain(following.tolist()))[:BATCH_ROWS]
    return _parts(raw, starts[chain], bodies[chain], stops[chain])


def _candidates(raw: Bytes, at: int, window_end: int, end: int) -> tuple[Int64s, Int64s, Int64s]:
    """Where time series may start, where their content would, and where they would stop, which is not behind `end`."""
    starts = np.flatnonzero(raw[at : max(at, min(window_end, end - 4))] == _SERIES_TAG) + at
    size, high = raw[starts + 1].astype(np.int64), raw[starts + 2].astype(np.int64)
    long = size >= _CONTINUED
    size = np.where(long, size & 0x7F | high << 7, size)
    bodies = starts + 2 + long
    stops = bodies + size
    possible = (raw[bodies] == _REFS_TAG) & (stops <= end) & ~(long & (high >= _CONTINUED)) & (size > 2)
    return starts[possible], bodies[possible], stops[possible]


def _chain(following: list[int]) -> list[int]:
    """From the first candidate on, always the one that begins where the last one stops."""
    chain: list[int] = []
    add = chain.append
    place = 0
    while place >= 0:
        add(place)
        place = following[place]
    return chain


def _parts(raw: Bytes, starts: Int64s, bodies: Int64s, stops: Int64s) -> Records:
    padded = raw if int(stops[-1]) + _BEYOND <= len(raw) else np.concatenate((raw, np.zeros(_BEYOND, np.uint8)))
    size, high = padded[bodies + 1].astype(np.int64), padded[bodies + 2].astype(np.int64)
    long = size >= _CONTINUED
    refs = bodies + 2 + long
    heads = refs + np.where(long, size & 0x7F | high << 7, size)
    standard = (heads <= stops) & ~(long & (high >= _CONTINUED))
    heads = np.where(standard, heads, stops)
    first, second, third = (padded[heads + index] for index in range(3))
    zero = second == ZERO_HEAD[1]
    started = second == STARTED_HEAD[1]
    standard &= (first == SAMPLE_HEAD[0]) & (
        zero | (((second == SAMPLE_HEAD[1]) | started) & (third == SAMPLE_HEAD[2]))
    )
    counts = np.where(zero, -1, 1)
    ends = heads + np.where(zero, ZERO_SAMPLE_BYTES, SAMPLE_BYTES)
    standard &= (ends <= stops) & (ends >= SAMPLE_BYTES)
    ends = np.where(standard, ends, stops)
    _follow(padded, stops, np.flatnonzero(standard & ~zero & ~started), counts, ends)
    standard &= _is_tail(padded, ends, stops, started)
    return Records(starts, stops, refs, heads, counts, ends, standard)


def _follow(padded: Bytes, stops: Int64s, rows: Int64s, counts: Int64s, ends: Int64s) -> None:
    """Count the further samples of series that have some, and put their ends behind them."""
    for _ in range(_MOST_SAMPLES - 1):
        at = ends[rows]
        more = at + SAMPLE_BYTES <= stops[rows]
        rows, at = rows[more], at[more]
        for index in range(3):
            same = padded[at + index] == SAMPLE_HEAD[index]
            rows, at = rows[same], at[same]
        if not len(rows):
            return
        counts[rows] += 1
        ends[rows] += SAMPLE_BYTES


def _is_tail(padded: Bytes, ends: Int64s, stops: Int64s, started: Bools) -> Bools:
    """Whether behind the samples stand a start timestamp, where there is to be one, and metadata or nothing."""
    if not started.any() and np.array_equal(ends, stops):
        return np.ones(len(ends), np.bool_)
    begins = (padded[ends] == _START_TAG) & (ends < stops)
    metadata = np.where(begins, np.minimum(ends + START_BYTES, stops), ends)
    size = padded[metadata + 1].astype(np.int64)
    whole = (padded[metadata] == _METADATA_TAG) & (size < _CONTINUED) & (metadata + 2 + size == stops)
    result: Bools = (begins == started) & (whole | (metadata == stops))
    return result
