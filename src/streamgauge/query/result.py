"""What an evaluated query is, before it is encoded."""

from __future__ import annotations

from dataclasses import dataclass

from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.model.frame import LabelFrame
from streamgauge.model.source import Samples


@dataclass(frozen=True, slots=True)
class Scalar:
    """One number without labels, at one time (ms)."""

    time: int
    value: float


@dataclass(frozen=True, slots=True)
class String:
    time: int
    value: str


@dataclass(frozen=True, slots=True)
class Vector:
    """One sample a series, in the order in which they are to be shown."""

    labels: LabelFrame
    time: int  # ms
    values: Floats  # [series]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A range query's answer: series by steps. A row has at least one present value."""

    labels: LabelFrame
    times: Int64s  # [steps], ms, ascending
    values: Floats  # [series, steps]; anything where not present
    present: Bools  # [series, steps]


@dataclass(frozen=True, slots=True)
class RangeVector:
    """An instant query for `metric[5m]`: the raw samples."""

    labels: LabelFrame
    samples: Samples


Result = Scalar | String | Vector | Matrix | RangeVector


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A result and the annotations that go with it, each distinct and in order of first appearance."""

    result: Result
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()
