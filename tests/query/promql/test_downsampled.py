"""Where only aggregates are kept PromQL gives what the samples would have given, as far as that is possible, and says
so; where samples are kept nothing changes."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from streamgauge.clock import ManualClock
from streamgauge.model.arrays import STALE_BITS
from streamgauge.model.labels import key_of
from streamgauge.model.source import Horizon, Source
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.promql.downsampled import stretches
from streamgauge.query.promql.engine import evaluate
from streamgauge.query.promql.steps import Grid
from streamgauge.query.result import Evaluation, Matrix, RangeVector
from streamgauge.store.offline import open_folder
from streamgauge.store.ports import DAY_MS
from streamgauge.store.resolutions import Tier
from streamgauge.testing.lives import Row, batch_of, opened

IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
DAY = 20_000 * DAY_MS
MINUTE, HOUR = 60_000, 3_600_000
DAYS = 8
RETENTION = 3 * DAY_MS
TIERS = (Tier(5 * MINUTE, 5 * DAY_MS), Tier(HOUR, 90 * DAY_MS))
COARSE_UNTIL, FINE_UNTIL = DAY + 3 * DAY_MS, DAY + 5 * DAY_MS
RESET = 3000
"""Samples between two resets of the counter."""


def bits(value: float) -> int:
    return int(np.float64(value).view(np.int64))


def counter(number: int) -> float:
    return 3.0 * (number % RESET)


def gauge(number: int) -> float:
    return float(number * 7919 % 1000)


def written() -> Iterator[list[Row]]:
    """Day by day a sample a minute of a counter and a gauge, and of a series that ends on the first day."""
    keys = {name: key_of({"__name__": name}) for name in ("requests_total", "temperature", "gone")}
    for day in range(DAYS):
        rows: list[Row] = []
        for number in range(day * 1440, (day + 1) * 1440):
            time = DAY + number * MINUTE
            rows.append((keys["requests_total"], time, bits(counter(number))))
            rows.append((keys["temperature"], time, bits(gauge(number))))
            if number <= 123:
                rows.append((keys["gone"], time, bits(1.0) if number < 123 else STALE_BITS))
        yield rows


def build(folder: Path, tiers: tuple[Tier, ...], retention: int) -> None:
    async def live() -> None:
        clock = ManualClock(DAY)
        async with opened(folder, clock, retention, tiers=tiers) as (store, maintenance):
            for rows in written():
                await clock.advance(DAY_MS / 1000)
                await store.append(batch_of(store, rows))
                store.head.seal()
                await maintenance.flush(1 << 20)
                while await maintenance.expire():
                    await maintenance.close()

    asyncio.run(live())


@pytest.fixture(scope="module")
def thinned() -> Iterator[Source]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        build(Path(path) / "data", TIERS, RETENTION)
        with open_folder(Path(path) / "data") as (snapshot, _):
            yield snapshot.open({})


@pytest.fixture(scope="module")
def plain() -> Iterator[Source]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        build(Path(path) / "data", (), 0)
        with open_folder(Path(path) / "data") as (snapshot, _):
            yield snapshot.open({})


def ranged(source: Source, expr: str, start: int, end: int, step: int) -> tuple[Matrix, Evaluation]:
    grid = Grid(start, step, (end - start) // step + 1)
    budget = Budget(Limits())
    evaluation = evaluate(expr, source, grid, budget, instant=False)
    assert isinstance(evaluation.result, Matrix)
    assert 0 <= budget.samples <= 10 * max(grid.count * len(evaluation.result.labels), 1)
    return evaluation.result, evaluation


def values(source: Source, expr: str, start: int, end: int, step: int) -> list[float | None]:
    """Of the one series that the expression gives."""
    matrix, _ = ranged(source, expr, start, end, step)
    assert len(matrix.labels) == 1
    return [v if p else None for v, p in zip(matrix.values[0].tolist(), matrix.present[0].tolist(), strict=True)]


def test_the_fixture_has_all_three_resolutions(thinned: Source, plain: Source) -> None:
    assert thinned.horizons == [Horizon(COARSE_UNTIL, HOUR), Horizon(FINE_UNTIL, 5 * MINUTE)]
    assert list(plain.horizons) == []


EXACT = [
    "min_over_time(temperature[2h])",
    "max_over_time(temperature[2h])",
    "sum_over_time(temperature[2h])",
    "count_over_time(temperature[2h])",
    "avg_over_time(temperature[2h])",
    "last_over_time(temperature[2h])",
    "present_over_time(temperature[2h])",
    "sum(max_over_time(temperature[3h]))",
    "max_over_time(temperature[2h] offset 1h)",
]


@pytest.mark.parametrize("expr", EXACT)
@pytest.mark.parametrize(
    ("start", "end"), [(DAY + 6 * HOUR, COARSE_UNTIL), (COARSE_UNTIL + 6 * HOUR, FINE_UNTIL)], ids=["1h", "5m"]
)
def test_what_aggregates_can_say_is_what_the_samples_say(
    thinned: Source, plain: Source, expr: str, start: int, end: int
) -> None:
    """A window to a full hour has whole buckets: those up to the millisecond before."""
    step = HOUR
    found = values(thinned, expr, start - 1, end - 1, step)
    expected = values(plain, expr, start - 1, end - 1, step)
    np.testing.assert_allclose(np.array(found, float), np.array(expected, float), rtol=1e-14)


@pytest.mark.parametrize(
    ("expr", "seconds"),
    [("increase(requests_total[2h])", 1), ("rate(requests_total[2h])", 7200)],
    ids=["increase", "rate"],
)
@pytest.mark.parametrize(
    ("start", "end"), [(DAY + 6 * HOUR, COARSE_UNTIL), (COARSE_UNTIL + 6 * HOUR, FINE_UNTIL)], ids=["1h", "5m"]
)
def test_a_counter_has_gained_what_it_truly_gained(
    thinned: Source, expr: str, seconds: int, start: int, end: int
) -> None:
    def gained(before: int) -> float:
        """Between the last sample before a window of two hours and its last."""
        last = (before - DAY) // MINUTE - 1
        steps = [(counter(number - 1), counter(number)) for number in range(last - 119, last + 1)]
        return sum(new - old if new >= old else new for old, new in steps)

    found = values(thinned, expr, start - 1, end - 1, HOUR)
    expected = [gained(time) / seconds for time in range(start, end + 1, HOUR)]
    np.testing.assert_allclose(np.array(found, float), expected, rtol=1e-13)


def test_an_increase_over_everything_crosses_both_horizons(thinned: Source) -> None:
    last = DAYS * 1440 - 1
    steps = [(counter(number - 1), counter(number)) for number in range(1, last + 1)]
    gained = sum(new - old if new >= old else new for old, new in steps)
    end = DAY + DAYS * DAY_MS - 1
    window = (DAYS * 24 + 24) * HOUR
    found = values(thinned, f"increase(requests_total[{window}ms])", end, end, 1)
    np.testing.assert_allclose(np.array(found, float), [gained], rtol=1e-13)


@pytest.mark.parametrize("span", [5, 7, 60, 90])
@pytest.mark.parametrize("horizon", [COARSE_UNTIL, FINE_UNTIL], ids=["1h", "5m"])
def test_what_grows_with_a_range_does_not_jump_at_a_horizon(thinned: Source, horizon: int, span: int) -> None:
    """Of a sample a minute there is one for each minute, whatever a window takes its minutes from."""
    start, end = horizon - 2 * HOUR + 30_000, horizon + 3 * HOUR
    counts = np.array(values(thinned, f"count_over_time(temperature[{span}m])", start, end, 77_000), float)
    np.testing.assert_allclose(counts, span, atol=1.01)
    reset = any(
        counter(number) < counter(number - 1) for number in range((start - DAY) // MINUTE - 90, (end - DAY) // MINUTE)
    )
    assert not reset
    rates = np.array(values(thinned, f"rate(requests_total[{span}m])", start, end, 77_000), float)
    np.testing.assert_allclose(rates, 3 / 60, rtol=1.01 / span)


def test_a_plain_selector_gives_the_last_sample_of_the_bucket_before(thinned: Source) -> None:
    found = values(thinned, "requests_total", DAY + 2 * HOUR, DAY + 2 * HOUR, 1)
    assert found == [counter(119)]
    steps = values(thinned, "requests_total", DAY + HOUR + MINUTE, DAY + 5 * HOUR, 7 * MINUTE)
    assert None not in steps, "the lookback reaches at least one bucket back"
    found = values(thinned, "requests_total", COARSE_UNTIL + HOUR, COARSE_UNTIL + HOUR, 1)
    assert found == [counter(3 * 1440 + 59)]
    at = values(thinned, f"requests_total @ {(DAY + 2 * HOUR) // 1000}", FINE_UNTIL + HOUR, FINE_UNTIL + 2 * HOUR, HOUR)
    assert at == [counter(119)] * 2


def test_a_line_over_everything_has_no_gap_at_a_horizon(thinned: Source) -> None:
    found = values(thinned, "temperature", DAY + HOUR, DAY + DAYS * DAY_MS - MINUTE, 13 * MINUTE)
    assert None not in found
    rates = values(thinned, "rate(requests_total[10m])", DAY + HOUR, DAY + DAYS * DAY_MS - MINUTE, 13 * MINUTE)
    assert None not in rates
    assert min(rate for rate in rates if rate is not None) >= 0
    stamps = values(thinned, "timestamp(temperature)", DAY + HOUR, DAY + DAYS * DAY_MS - MINUTE, 13 * MINUTE)
    times = range(DAY + HOUR, DAY + DAYS * DAY_MS - MINUTE + 1, 13 * MINUTE)
    behind = [time / 1000 - stamp for time, stamp in zip(times, stamps, strict=True) if stamp is not None]
    assert 0 <= min(behind) <= max(behind) < 3600


def test_a_series_that_ended_is_gone_where_the_bucket_ends(thinned: Source) -> None:
    found = values(thinned, "gone", DAY + HOUR, DAY + 4 * HOUR, HOUR)
    assert found == [1.0, 1.0, None, None]
    counts = values(thinned, "count_over_time(gone[1h])", DAY + HOUR, DAY + 4 * HOUR, HOUR)
    assert counts == [60.0, 60.0, 3.0, None]
    (absent,) = {*values(thinned, "absent_over_time(gone[1h])", DAY + 5 * HOUR, DAY + 6 * HOUR, HOUR)}
    assert absent == 1.0


def test_a_short_range_is_widened_and_what_grows_with_it_is_a_share(thinned: Source) -> None:
    start, end = COARSE_UNTIL + 6 * HOUR - 1, COARSE_UNTIL + 12 * HOUR - 1
    counts, evaluation = ranged(thinned, "count_over_time(temperature[1m])", start, end, HOUR)
    assert counts.values.tolist() == [[1.0] * 7]
    (info,) = evaluation.infos
    assert "ranges shorter than 5m were widened" in info
    changes, evaluation = ranged(thinned, "delta(temperature[1m])", start, end, HOUR)
    assert changes.present.all()
    (info,) = evaluation.infos
    assert "ranges shorter than 10m were widened to that there; delta() is approximate there" in info


def test_the_annotation_names_what_was_touched_once(thinned: Source) -> None:
    fine = "before 1970-01-01T00:00:00Z only"
    _, evaluation = ranged(thinned, "temperature + temperature", COARSE_UNTIL + HOUR, FINE_UNTIL - HOUR, HOUR)
    (info,) = evaluation.infos
    assert info == "PromQL info: before 2024-10-09T00:00:00Z only aggregates over 5m are kept"
    assert fine not in info
    _, evaluation = ranged(thinned, "temperature or rate(requests_total[1h])", DAY, FINE_UNTIL + HOUR, HOUR)
    (info,) = evaluation.infos
    assert info == (
        "PromQL info: before 2024-10-09T00:00:00Z only aggregates over 5m are kept, before 2024-10-07T00:00:00Z only "
        "aggregates over 1h are kept; ranges shorter than 1h were widened to that there"
    )
    assert evaluation.warnings == ()


RAW = [
    "temperature",
    "rate(requests_total[5m])",
    "avg_over_time(temperature[17m])",
    "count_over_time(temperature[1h])",
    "deriv(temperature[10m])",
    "quantile_over_time(0.3, temperature[1h])",
    "predict_linear(temperature[1h] offset 10m, 3600)",
    "max_over_time(rate(requests_total[5m])[1h:1m])",
]


@pytest.mark.parametrize("expr", RAW)
def test_where_samples_are_kept_nothing_changes_and_nothing_is_said(thinned: Source, plain: Source, expr: str) -> None:
    start, end = FINE_UNTIL + 2 * HOUR, FINE_UNTIL + 20 * HOUR
    ours, evaluation = ranged(thinned, expr, start, end, 7 * MINUTE)
    theirs, _ = ranged(plain, expr, start, end, 7 * MINUTE)
    assert evaluation.infos == ()
    assert ours.values.tobytes() == theirs.values.tobytes()
    assert ours.present.tobytes() == theirs.present.tobytes()


@pytest.mark.parametrize("expr", RAW)
def test_a_query_over_all_resolutions_gives_the_same_where_samples_are_kept(
    thinned: Source, plain: Source, expr: str
) -> None:
    step = 7 * MINUTE
    end = FINE_UNTIL + 20 * HOUR
    ours, _ = ranged(thinned, expr, DAY + HOUR, end, step)
    theirs, _ = ranged(plain, expr, DAY + HOUR, end, step)
    raw = np.flatnonzero(ours.times >= FINE_UNTIL + 2 * HOUR)
    assert ours.values[:, raw].tobytes() == theirs.values[:, raw].tobytes()
    assert ours.present[:, raw].tobytes() == theirs.present[:, raw].tobytes()


def test_an_instant_query_of_a_range_gives_what_is_there(thinned: Source) -> None:
    evaluation = evaluate(
        "temperature[10m]", thinned, Grid.instant(FINE_UNTIL + 3 * MINUTE), Budget(Limits()), instant=True
    )
    assert isinstance(evaluation.result, RangeVector)
    times = evaluation.result.samples.times
    assert times.tolist() == [
        FINE_UNTIL - 5 * MINUTE - 1,
        FINE_UNTIL - 1,
        *range(FINE_UNTIL, FINE_UNTIL + 4 * MINUTE, MINUTE),
    ]
    assert len(evaluation.infos) == 1


def test_a_grid_is_cut_where_the_resolution_changes() -> None:
    horizons = [Horizon(1000, 100), Horizon(2000, 10)]
    found = stretches(Grid(500, 300, 10), 0, horizons)
    assert [(part.grid.times().tolist(), part.first, part.resolution) for part in found] == [
        ([500, 800], 0, 100),
        ([1100, 1400, 1700], 2, 10),
        ([2000, 2300, 2600, 2900, 3200], 5, 0),
    ]
    (pinned,) = stretches(Grid(1500, 0, 5), 600, horizons)
    assert (pinned.grid, pinned.resolution) == (Grid(1500, 0, 5), 100)
    (later,) = stretches(Grid(2600, 300, 3), 600, horizons)
    assert later.resolution == 0
