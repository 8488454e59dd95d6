"""The grid of evaluation times and the values on it: what every PromQL expression of vector type becomes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamgauge.model.arrays import Bools, Floats, Int64s


@dataclass(frozen=True, slots=True)
class Grid:
    """Evaluation times first, first + step, …, `count` of them, in ms. An instant query has count 1 and step 0."""

    first: int
    step: int
    count: int

    @property
    def last(self) -> int:
        return self.first + self.step * (self.count - 1)

    def times(self) -> Int64s:
        """int64[count]"""
        return self.first + self.step * np.arange(self.count, dtype=np.int64)

    def shifted(self, milliseconds: int) -> Grid:
        return Grid(self.first + milliseconds, self.step, self.count)

    @staticmethod
    def instant(time: int) -> Grid:
        return Grid(time, 0, 1)


@dataclass(frozen=True, slots=True)
class Steps:
    """Values of many series on a grid: both arrays [series, grid.count]. `values` is anything where not `present`."""

    values: Floats
    present: Bools

    def __len__(self) -> int:
        """The number of series."""
        return len(self.values)
