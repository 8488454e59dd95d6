"""What a decoder hands over: columns of samples, and metadata beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from streamgauge.model.arrays import Floats, Int64s, UInt32s


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """Samples in order of arrival; three columns of one length. A later row wins over an earlier one of the same
    series and time. known_span: what `span` would find, from who has seen it."""

    series: UInt32s  # series id, as the sink's `resolve` gave it
    times: Int64s  # milliseconds since the Unix epoch
    values: Floats
    known_span: tuple[int, int] | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.series)

    def span(self) -> tuple[int, int]:
        """The first and the last of its times; (0, 0) where it is empty."""
        if self.known_span is not None:
            return self.known_span
        times = self.times
        return (int(np.minimum.reduce(times)), int(np.maximum.reduce(times))) if len(times) else (0, 0)


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is known of a metric beside its samples. `type` is Prometheus' lower-case word (counter, gauge, …)."""

    metric: str
    type: str
    help: str
    unit: str = ""

    def after(self, before: Metadata | None) -> Metadata:
        """What is known once this is said, and `before` was. What this leaves open stays: a type that is "unknown", as
        those of metrics that come by way of a federation are, and help or a unit that it does not have."""
        if before is None or (self.type != "unknown" and self.help and self.unit):
            return self
        known = before.type if self.type == "unknown" else self.type
        return Metadata(self.metric, known, self.help or before.help, self.unit or before.unit)


def joined(batches: Sequence[SampleBatch]) -> SampleBatch:
    """The rows of one batch or more, one behind the other."""
    if len(batches) == 1:
        return batches[0]
    return SampleBatch(
        np.concatenate([batch.series for batch in batches]),
        np.concatenate([batch.times for batch in batches]),
        np.concatenate([batch.values for batch in batches]),
    )


def empty_batch() -> SampleBatch:
    return SampleBatch(np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0, np.float64))
