"""Warnings and infos that go with an answer, in Prometheus' words."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

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

    def _place(self, position: int) -> str:
        line = self.query.count("\n", 0, position) + 1
        return f"({line}:{position - self.query.rfind(chr(10), 0, position)})"

    def _warn(self, text: str, position: int) -> None:
        self.warnings.setdefault(f"PromQL warning: {text} {self._place(position)}")

    def _inform(self, text: str, position: int) -> None:
        self.infos.setdefault(f"PromQL info: {text} {self._place(position)}")

    def told(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Warnings and infos, at most MOST of each and how many more there are."""
        return _first(self.warnings, "warning"), _first(self.infos, "info")

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
        first, last = (f"{datetime.fromtimestamp(t // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}" for t in times)
        self._inform(
            "input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/"
            f"latest/querying/functions/#histogram_quantile), from buckets {low} to {high}, with a max diff of "
            f"{difference:.2g}, over {points} samples from {first} to {last}",
            position,
        )


def _first(texts: dict[str, None], kind: str) -> tuple[str, ...]:
    some = tuple(texts)[:MOST]
    rest = len(texts) - len(some)
    return (*some, f"{rest} more {kind} annotations omitted") if rest else some
