"""Warnings and infos that go with an answer, in Prometheus' words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from streamgauge.durations import format_duration
from streamgauge.model.arrays import Int64s
from streamgauge.model.source import Horizon
from streamgauge.query.promql.numbers import go_format

_COUNTER_SUFFIXES = ("_total", "_sum", "_count", "_bucket")

MOST = 10
"""As in Prometheus' API. A query over all metrics would otherwise tell something of each."""


@dataclass(slots=True)
class Annotations:
    """Each distinct sentence once, in order of first appearance. Positions are offsets into the query."""

    query: str
    warnings: dict[str, None] = field(default_factory=dict)
    infos: dict[str, None] = field(default_factory=dict)
    _kept: dict[int, int] = field(default_factory=dict)  # resolution by the time (ms) before which it is that
    _widened: int = 0  # ms, the longest range that a shorter one was widened to
    _approximate: dict[str, None] = field(default_factory=dict)  # functions

    def _place(self, position: int) -> str:
        line = self.query.count("\n", 0, position) + 1
        return f"({line}:{position - self.query.rfind(chr(10), 0, position)})"

    def _warn(self, text: str, position: int) -> None:
        self.warnings.setdefault(f"PromQL warning: {text} {self._place(position)}")

    def _inform(self, text: str, position: int) -> None:
        self.infos.setdefault(f"PromQL info: {text} {self._place(position)}")

    def told(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Warnings and infos, at most MOST of each and how many more there are."""
        infos = dict.fromkeys((*self._of_aggregates(), *self.infos))
        return _first(self.warnings, "warning"), _first(infos, "info")

    def aggregates(self, horizons: Sequence[Horizon], times: Int64s) -> None:
        """The times are of samples, and of aggregates before the last of the horizons."""
        oldest, newest = int(times.min()), int(times.max())
        begin = oldest
        for horizon in horizons:
            if oldest < horizon.time and newest >= begin:
                self._kept[horizon.time] = horizon.resolution
            begin = max(horizon.time, begin)

    def widened(self, range_ms: int) -> None:
        """A range, or the lookback, was shorter than `range_ms`, and that was taken where only aggregates are kept."""
        self._widened = max(self._widened, range_ms)

    def approximate(self, function: str) -> None:
        """What the function gives of aggregates is not what it would have given of the samples."""
        self._approximate.setdefault(f"{function}()")

    def _of_aggregates(self) -> Iterator[str]:
        """One sentence on all that is different where only aggregates are kept; none where they were not touched."""
        if not self._kept:
            return
        kept = ", ".join(
            f"before {_moment(time)} only aggregates over {format_duration(resolution)} are kept"
            for time, resolution in sorted(self._kept.items(), reverse=True)
        )
        text = f"PromQL info: {kept}"
        if self._widened:
            text += f"; ranges shorter than {format_duration(self._widened)} were widened to that there"
        if self._approximate:
            text += (
                f"; {', '.join(self._approximate)} {'is' if len(self._approximate) == 1 else 'are'} approximate there"
            )
        yield text

    def invalid_quantile(self, value: float, position: int) -> None:
        self._warn(f"quantile value should be between 0 and 1, got {go_format(value)}", position)

    def invalid_ratio(self, value: float, capped: float, position: int) -> None:
        got, to = go_format(value), go_format(capped)
        self._warn(f"ratio value should be between -1 and 1, got {got}, capping to {to}", position)

    def sort_in_range_query(self, position: int) -> None:
        self._warn("sort is ineffective for range queries since results are always ordered by labels", position)

    def bad_bucket_label(self, metric: str, bound: str, position: int) -> None:
        of_metric = f' for metric name "{metric}"' if metric else ""
        self._warn(f'bucket label "le" is missing or has a malformed value of "{bound}"{of_metric}', position)

    def possible_non_counter(self, metric: str, position: int) -> None:
        """For rate and increase: told unless the name ends as a counter's does."""
        if not metric.endswith(_COUNTER_SUFFIXES):
            self._inform(
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: " + f'"{metric}"',
                position,
            )

    def forced_monotonicity(
        self, buckets: tuple[float, float], difference: float, points: int, times: tuple[int, int], position: int
    ) -> None:
        """`times` are the first and the last in ms."""
        low, high = map(go_format, buckets)
        first, last = map(_moment, times)
        self._inform(
            "input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/"
            f"latest/querying/functions/#histogram_quantile), from buckets {low} to {high}, with a max diff of "
            f"{difference:.2g}, over {points} samples from {first} to {last}",
            position,
        )


def _moment(time: int) -> str:
    return f"{datetime.fromtimestamp(time // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _first(texts: dict[str, None], kind: str) -> tuple[str, ...]:
    some = tuple(texts)[:MOST]
    rest = len(texts) - len(some)
    return (*some, f"{rest} more {kind} annotations omitted") if rest else some
