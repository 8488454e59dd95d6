"""Samples in columns, which series fulfil a filter, and how samples go out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.live.messages import TEXT, joined_texts, taken, times_of
from streamgauge.model.arrays import Bools, Floats, Int64s, UInt32s, stale_mask
from streamgauge.model.batch import SampleBatch
from streamgauge.model.labels import labels_of
from streamgauge.model.source import Matcher, MatchOp

MAX_KNOWN_SERIES = 200_000
"""Series whose labels are kept as text while somebody listens to samples: some 60 MB."""

Labels = Mapping[str, str]
MatcherSets = tuple[tuple[Matcher, ...], ...]


def fulfils(sets: MatcherSets, labels: Sequence[Labels]) -> Bools:
    """Which sets of labels fulfil all matchers of any of the sets; no sets are fulfilled by all."""
    if not sets:
        return np.ones(len(labels), np.bool_)
    found = np.zeros(len(labels), np.bool_)
    for matchers in sets:
        mask = np.ones(len(labels), np.bool_)
        for matcher in matchers:
            mask &= _matching(matcher, [each.get(matcher.name, "") for each in labels])
        found |= mask
    return found


def _matching(matcher: Matcher, values: Sequence[str]) -> Bools:
    texts = pa.array(values, TEXT)
    if matcher.op in (MatchOp.EQUAL, MatchOp.NOT_EQUAL):
        found = pc.equal(texts, pa.scalar(matcher.value, TEXT))
    else:
        found = pc.match_substring_regex(texts, f"^(?s:{matcher.value})$")
    mask: Bools = found.to_numpy(zero_copy_only=False) != (matcher.op in (MatchOp.NOT_EQUAL, MatchOp.NOT_MATCH))
    return mask


def label_text(labels: Labels) -> str:
    return json.dumps(labels, ensure_ascii=False, separators=(",", ":"))


def sample_messages(labels: Any, times: Int64s, values: Floats) -> Any:
    """JSON texts, large_string, one a sample. labels: JSON text of each. Values that JSON has no number for are texts,
    as Prometheus spells them."""
    numbers = pa.array(values).cast(TEXT)
    if not np.isfinite(values).all():
        words = np.where(np.isnan(values), '"NaN"', np.where(values > 0, '"+Inf"', '"-Inf"'))
        numbers = pc.if_else(pa.array(np.isfinite(values)), numbers, pa.array(words, TEXT))
    return joined_texts(
        '{"labels":', labels, ',"time":"', times_of(times, "ms"), '","value":', numbers, "}"
    )  # fmt: skip


class KnownSeries:
    """The labels of series by their ids, as they are needed. keys_of: the keys of living series; raises KeyError for an
    id that is not one."""

    def __init__(self, keys_of: Callable[[UInt32s], Sequence[bytes]]) -> None:
        self._keys_of = keys_of
        self._labels: dict[int, tuple[Labels, str] | None] = {}  # None: the series has gone
        self._verdicts: dict[MatcherSets, dict[int, bool]] = {}

    def forget(self, sets: MatcherSets) -> None:
        """Nobody asks for these any more."""
        self._verdicts.pop(sets, None)

    def clear(self) -> None:
        self._labels.clear()
        self._verdicts.clear()

    def matching(self, sets: MatcherSets, batch: SampleBatch) -> tuple[Any, Int64s, Floats]:
        """Label texts, times and values of the samples that are wanted. No stale markers."""
        ids, inverse = np.unique(batch.series, return_inverse=True)
        known = self._known(ids)
        rows = np.flatnonzero(self._wanted(sets, ids, known)[inverse] & ~stale_mask(batch.values))
        texts = [known[number][1] if number in known else "" for number in ids.tolist()]
        return taken(pa.array(texts, TEXT), inverse[rows]), batch.times[rows], batch.values[rows]

    def count(self, sets: MatcherSets, batch: SampleBatch) -> int:
        """How many samples are of such series."""
        ids, inverse = np.unique(batch.series, return_inverse=True)
        return int(np.count_nonzero(self._wanted(sets, ids, self._known(ids))[inverse]))

    def _wanted(self, sets: MatcherSets, ids: UInt32s, known: Mapping[int, tuple[Labels, str]]) -> Bools:
        verdicts = self._verdicts.setdefault(sets, {})
        unknown = [number for number in known if number not in verdicts]
        labels = [known[number][0] for number in unknown]
        verdicts.update(zip(unknown, fulfils(sets, labels).tolist(), strict=True))
        return np.fromiter((verdicts.get(number, False) for number in ids.tolist()), np.bool_, len(ids))

    def _known(self, ids: UInt32s) -> dict[int, tuple[Labels, str]]:
        if len(self._labels) > MAX_KNOWN_SERIES:
            self.clear()
        new = np.array([number for number in ids.tolist() if number not in self._labels], np.uint32)
        for number, key in zip(new.tolist(), self._keys(new), strict=True):
            labels = None if key is None else labels_of(key)
            self._labels[number] = None if labels is None else (labels, label_text(labels))
        return {number: found for number in ids.tolist() if (found := self._labels[number]) is not None}

    def _keys(self, ids: UInt32s) -> Sequence[bytes | None]:
        try:
            return self._keys_of(ids)
        except KeyError:  # one was pruned since its samples were stored
            return [self._key(ids[row : row + 1]) for row in range(len(ids))]

    def _key(self, one: UInt32s) -> bytes | None:
        try:
            return self._keys_of(one)[0]
        except KeyError:
            return None
