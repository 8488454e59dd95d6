"""Samples divided into requests: those of a series go to one shard, in their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from streamgauge.forward.remote_write.series import KnownSeries, Unsent
from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.model.batch import SampleBatch
from streamgauge.wire.remote_write_encode import Encoder, SeriesForm

MAX_LABEL_BYTES = 4 << 20
"""Of a request, by which it may be longer than that of one series: 2,000 series have some 500 KB, or 260 MB."""


@dataclass(frozen=True, slots=True)
class Load:
    """The samples of one request: counts[i] of the i-th series, one series behind the other."""

    series: Sequence[SeriesForm]
    counts: Int64s
    times: Int64s
    values: Floats

    def __len__(self) -> int:
        return len(self.times)

    def body(self, encoder: Encoder) -> bytes:
        return encoder.packed(encoder.request(self.series, self.counts, self.times, self.values))

    def since(self, oldest: int) -> Load:
        """Without what is older than a time, ms."""
        wanted = self.times >= oldest
        if wanted.all():
            return self
        counts = _counts(self.counts, wanted)
        kept = np.flatnonzero(counts)
        series = [self.series[at] for at in kept.tolist()]
        return Load(series, counts[kept], self.times[wanted], self.values[wanted])


def _counts(counts: Int64s, wanted: Bools) -> Int64s:
    """Of the wanted samples, how many each series has, where `counts` are those of all."""
    upto = np.concatenate(([0], np.cumsum(wanted)))
    left: Int64s = np.diff(upto[np.concatenate(([0], np.cumsum(counts)))])
    return left


def loads_of(
    batch: SampleBatch, known: KnownSeries, shards: int, max_samples: int, *, finite: bool = False
) -> tuple[list[list[Load]], Counter[Unsent]]:
    """For each shard its requests in order; and how many samples are not sent, and why. finite: whether no other values
    can be written."""
    order = np.lexsort((batch.series, batch.series % np.uint32(shards)))  # it is stable
    ids, times, values = batch.series[order], batch.times[order], batch.values[order]
    firsts = np.flatnonzero(np.concatenate(([True], ids[1:] != ids[:-1]))) if len(ids) else np.empty(0, np.int64)
    counts = np.diff(np.concatenate((firsts, [len(ids)])))
    forms = known.forms(ids[firsts])
    unsent: Counter[Unsent] = Counter()
    if Unsent in set(map(type, forms)):
        stays = np.ones(len(forms), np.bool_)
        for row, form in enumerate(forms):
            if isinstance(form, Unsent):
                unsent[form] += int(counts[row])
                stays[row] = False
        rows = np.repeat(stays, counts)
        ids, times, values, counts = ids[rows], times[rows], values[rows], counts[stays]
    series = [form for form in forms if isinstance(form, SeriesForm)]
    if finite and not (good := np.isfinite(values)).all():
        unsent[Unsent.UNWRITABLE] += len(good) - int(good.sum())
        counts = _counts(counts, good)
        series = [form for form, count in zip(series, counts.tolist(), strict=True) if count]
        ids, times, values, counts = ids[good], times[good], values[good], counts[counts > 0]
    bounds = np.searchsorted(ids % np.uint32(shards), np.arange(shards + 1))
    ends, weights = np.cumsum(counts), np.cumsum([form.size for form in series])
    return [
        list(_requests(series, ends, weights, times, values, first, end, max_samples))
        for first, end in pairwise(bounds.tolist())
    ], unsent


def _requests(
    series: Sequence[SeriesForm],
    ends: Int64s,
    weights: Int64s,
    times: Int64s,
    values: Floats,
    first: int,
    end: int,
    size: int,
) -> Iterator[Load]:
    """The rows from `first` to `end`, `size` at a time, or fewer where labels are long. ends: of each series' rows,
    weights: bytes of all series up to each."""
    start = first
    while start < end:
        low = int(np.searchsorted(ends, start, side="right"))
        heaviest = int(np.searchsorted(weights, weights[low] + MAX_LABEL_BYTES, side="right"))
        stop = min(start + size, end, int(ends[max(heaviest - 1, low)]))
        high = int(np.searchsorted(ends, stop - 1, side="right"))
        edges = np.concatenate(([start], ends[low:high], [stop]))
        yield Load(series[low : high + 1], np.diff(edges), times[start:stop], values[start:stop])
        start = stop
