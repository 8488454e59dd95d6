from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from streamgauge.model.arrays import stale_marker
from streamgauge.model.source import AggregateKind, Horizon, Matcher, Meter, NoMeter, Selection
from streamgauge.query.stats import DAY_MS, HOUR_MS, VERBS, Period, StatsQuery
from streamgauge.testing.source import MemorySource, Series

MINUTE = 60_000
QUARTER = 15 * MINUTE
NOON = 20_000 * DAY_MS + 12 * HOUR_MS
NOW = NOON + 10 * MINUTE


def series(values: Mapping[int, float], name: str = "cpu", **labels: str) -> Series:
    """values: by minutes after noon."""
    return {"__name__": name, "host": "a", **labels}, [NOON + m * MINUTE for m in values], list(values.values())


def ask(source: MemorySource, period: Period, verb: str = "mean", **more: Any) -> Any:
    back = {Period.LATEST: 2 * MINUTE, Period.HOURLY: DAY_MS, Period.DAILY: 7 * DAY_MS}[period]
    given = {"filters": (), "start": NOW - back, "end": NOW} | more
    interval = MINUTE if period is Period.LATEST else QUARTER
    query = StatsQuery("cpu", period, verb, now=NOW, interval=interval, **given)
    body = b"".join(query.read(source, NoMeter()))
    assert not body or body.endswith(b"\n")
    return json.loads(body) if body else None


def test_the_latest_is_of_the_newest_interval_that_has_values() -> None:
    source = MemorySource.of([series({8: 100, 9.2: 1, 9.8: 2}), series({9.5: 6}, host="b"), series({9: 9}, "other")])
    assert ask(source, Period.LATEST) == {"time": NOON + 9 * MINUTE, "value": 3}
    assert ask(source, Period.LATEST, "max", filters=(("host", ("a",)),)) == {"time": NOON + 9 * MINUTE, "value": 2}
    assert ask(source, Period.LATEST, filters=(("host", ("c",)),)) is None
    assert ask(MemorySource.of([series({7.9: 1})]), Period.LATEST) is None


def test_without_a_verb_the_rows_come_with_the_tags_that_have_several_values() -> None:
    source = MemorySource.of([series({9.2: 1, 9.8: 2}), series({9.5: 6}, host="b"), series({9.5: 7}, host="c")])
    rows = ask(source, Period.LATEST, "none", filters=(("host", ("a", "b", "a")),))
    assert [(row["time"] - NOON, row["value"], row["host"]) for row in rows] == [
        (9.2 * MINUTE, 1, "a"),
        (9.5 * MINUTE, 6, "b"),
        (9.8 * MINUTE, 2, "a"),
    ]
    assert set(ask(source, Period.LATEST, "none", filters=(("host", ("a",)),))[0]) == {"time", "value"}


def test_stale_markers_and_series_without_a_host_are_none_of_it() -> None:
    gone = ({"__name__": "cpu", "host": "a"}, [NOON + 9 * MINUTE, NOON + 10 * MINUTE], np.append(1.0, stale_marker(1)))
    scraped = ({"__name__": "cpu", "instance": "a"}, [NOON + 9 * MINUTE], [5.0])
    assert ask(MemorySource.of([gone, scraped]), Period.LATEST)["value"] == 1


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("mean", 2.5),
        ("min", 1),
        ("max", 4),
        ("sum", 10),
        ("count", 4),
        ("median", 2.5),
        ("first", 4),
        ("last", 3),
        ("spread", 3),
        ("stddev", math.sqrt(5 / 3)),
    ],
)
def test_verbs(verb: str, expected: float) -> None:
    source = MemorySource.of([series({9.1: 4, 9.2: 1, 9.3: 2, 9.4: 3})])
    assert ask(source, Period.LATEST, verb)["value"] == pytest.approx(expected)


def test_every_verb_is_tried_and_one_without_an_answer_gives_null() -> None:
    assert len(VERBS) == 10
    source = MemorySource.of([series({9.1: 1e308}), series({9.2: 1e308}, host="b")])
    assert ask(source, Period.LATEST, "stddev", filters=(("host", ("a",)),))["value"] is None
    assert ask(source, Period.LATEST, "sum")["value"] is None


def test_an_hour_is_of_the_means_of_its_quarters() -> None:
    source = MemorySource.of([series({-60: 1, -50: 3, -40: 10, -1: 20, 5: 7}), series({-59: 100}, host="b")])
    hour = NOON - HOUR_MS
    assert ask(source, Period.HOURLY, "max", filters=(("host", ("a",)),)) == [
        {"time": hour, "value": 20},
        {"time": NOON, "value": 7},
    ]
    assert ask(source, Period.HOURLY, "min")[0] == {"time": hour, "value": 2}
    assert ask(source, Period.HOURLY, "sum")[0] == {"time": hour, "value": 2 + 10 + 20 + 100}


def test_start_and_stop_bound_the_beginnings_of_the_quarters() -> None:
    source = MemorySource.of([series({-61: 1, -31: 2, -16: 3, -1: 4})])
    found = ask(source, Period.HOURLY, "count", start=NOW - 70 * MINUTE, end=NOW - 39 * MINUTE)
    assert found == [{"time": NOON - HOUR_MS, "value": 2}]  # those of 11:15 and 11:30; that of 10:45 began before
    assert ask(source, Period.HOURLY, start=NOW, end=NOW - HOUR_MS) is None


def test_backfill_fills_what_is_empty_between() -> None:
    source = MemorySource.of([series({-190: 5, -1: 6})])
    found = ask(source, Period.HOURLY, start=NOW - 5 * HOUR_MS, backfill=-1.0)
    assert [(row["time"] - NOON) // HOUR_MS for row in found] == [-5, -4, -3, -2, -1, 0]
    assert [row["value"] for row in found] == [-1, 5, -1, -1, 6, -1]
    assert ask(MemorySource.of([]), Period.HOURLY, backfill=0.0) is None


def test_a_time_of_the_day_is_the_mean_over_the_days() -> None:
    day = 24 * 60
    source = MemorySource.of([series({-2 * day - 30: 1, -day - 25: 3, -day - 1: 8, -1: 9})])
    assert ask(source, Period.DAILY) == [{"time": "11:30", "value": 2}, {"time": "11:45", "value": 8.5}]
    filled = ask(source, Period.DAILY, backfill=0.0, start=NOW - 2 * DAY_MS)
    assert len(filled) == 96
    assert {row["time"]: row["value"] for row in filled}["11:30"] == 1.5


class Downsampled(MemorySource):
    """Of what is older than an hour before noon only aggregates of two samples each are kept."""

    @property
    def horizons(self) -> Sequence[Horizon]:
        return (Horizon(NOON - HOUR_MS, 5 * MINUTE),)

    def select(
        self,
        matchers: Sequence[Matcher],
        start: int,
        end: int,
        meter: Meter,
        aggregate: AggregateKind = AggregateKind.LAST,
    ) -> Selection:
        found = super().select(matchers, start, end, meter, aggregate)
        old = found.samples.times < NOON - HOUR_MS
        values = {AggregateKind.SUM: np.where(old, found.samples.values * 2, found.samples.values)}
        values[AggregateKind.COUNT] = np.where(old, 2.0, 1.0)
        samples = type(found.samples)(found.samples.offsets, found.samples.times, values[aggregate])
        rows = np.arange(len(samples))[:: 1 if aggregate is AggregateKind.SUM else -1]  # no order is promised
        return Selection(found.labels.take(rows), samples.take(rows))


def test_aggregates_count_for_the_samples_that_they_are_of() -> None:
    memory = MemorySource.of([series({-119: 4, -118: 8, -1: 5}), series({-119: 1}, host="b")])
    source = Downsampled(memory.labels, memory.samples)
    found = ask(source, Period.HOURLY, "sum")
    assert found == [{"time": NOON - 2 * HOUR_MS, "value": 7}, {"time": NOON - HOUR_MS, "value": 5}]
