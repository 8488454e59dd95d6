"""Batches of samples."""

from __future__ import annotations

import numpy as np

from streamgauge.model.arrays import STALE_BITS
from streamgauge.model.batch import SampleBatch, empty_batch, joined


def test_joined_batches_keep_their_order_types_and_bits() -> None:
    one = SampleBatch(np.array([7], np.uint32), np.array([2]), np.array([STALE_BITS]).view(np.float64))
    two = SampleBatch(np.array([7, 1], np.uint32), np.array([1, 5]), np.array([1.5, -0.0]))
    assert joined([one]) is one
    both = joined([one, empty_batch(), two])
    assert (both.series.dtype, both.times.dtype, both.values.dtype) == (np.uint32, np.int64, np.float64)
    assert (both.series.tolist(), both.times.tolist()) == ([7, 7, 1], [2, 1, 5])
    assert both.values.view(np.int64).tolist()[0] == STALE_BITS
