"""A metric has no more series, and a label no more values, than it may; what is there goes on, what goes gives room."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from streamgauge.clock import ManualClock
from streamgauge.errors import IndexFull, LabelFull, MetricFull, Overloaded
from streamgauge.model.labels import key_of, labels_of
from streamgauge.model.series_limits import CountLimit, SeriesLimits, parse_limit
from streamgauge.store.index import SeriesIndex
from streamgauge.store.leases import Leases
from streamgauge.store.ports import DAY_MS
from streamgauge.store.refusals import MOST_NAMES, Refusals
from streamgauge.store.shm import SharedMemory
from streamgauge.testing.lives import NOON, batch_of, content, opened
from streamgauge.testing.thorough import examples

RETENTION = 2 * DAY_MS


@contextmanager
def an_index(metric: str = "0", label: str = "0", **settings: int) -> Iterator[SeriesIndex]:
    memory = SharedMemory(secrets.token_hex(16))
    limits = SeriesLimits(parse_limit(metric), parse_limit(label))
    try:
        yield SeriesIndex(memory, Leases(), limits=limits, **settings)
    finally:
        memory.close()


def prune(index: SeriesIndex, ids: list[int]) -> None:
    for _ in index.prune(np.array(ids, np.uint32)):
        pass


# ---- against a recount ----------------------------------------------------------------------------------------------

names = st.sampled_from(["__name__", "a", "b"])
values = st.sampled_from(["", "1", "2", "3", "4"])
label_sets = st.dictionaries(names, values, min_size=1).filter(lambda labels: any(labels.values()))
operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(label_sets, min_size=1, max_size=8)),
        st.tuples(st.just("prune"), st.lists(st.integers(0, 40), max_size=6)),
        st.tuples(st.just("prune in a rebuild"), st.lists(st.integers(0, 40), max_size=6)),
        st.tuples(st.just("limit"), st.tuples(st.integers(0, 5), st.integers(0, 4))),
    ),
    max_size=14,
)


def recount(living: Mapping[int, Mapping[str, str]]) -> tuple[Counter[str], dict[str, set[str]]]:
    """Series by metric, and the values of each label."""
    metrics, distinct = Counter[str](), dict[str, set[str]]()
    for labels in living.values():
        metrics[labels.get("__name__", "")] += 1
        for name, value in labels.items():
            distinct.setdefault(name, set()).add(value)
    return metrics, distinct


def full(labels: Mapping[str, str], living: Mapping[int, Mapping[str, str]], limits: SeriesLimits) -> bool:
    """Whether a new series goes beyond a limit."""
    metrics, distinct = recount(living)
    metric, per_metric = labels.get("__name__", ""), limits.metric.of(b"")
    if metric and 0 < per_metric <= metrics[metric]:
        return True
    most = limits.label.of(b"")
    return any(
        value not in distinct.get(name, set()) and 0 < most <= len(distinct.get(name, set()))
        for name, value in labels.items()
    )


@hypothesis_settings(max_examples=examples(300), deadline=None)
@given(operations)
def test_counts_are_those_of_a_recount_and_refuse_exactly_what_is_too_much(steps: list[tuple[str, Any]]) -> None:
    with an_index() as index:
        living = dict[int, dict[str, str]]()
        for step, argument in steps:
            if step == "add":
                for label_set in argument:
                    labels = {name: value for name, value in label_set.items() if value}
                    known = labels in living.values()
                    if not known and full(labels, living, index.limits):
                        with pytest.raises(IndexFull):
                            index.resolve(key_of(labels))
                    else:
                        living[index.resolve(key_of(labels))] = labels
            elif step == "limit":
                index.limits = SeriesLimits(*map(CountLimit, argument))
            else:
                gone = [series for series in argument if living.pop(series, None) is not None]
                rebuild = index.rebuild() if step == "prune in a rebuild" else iter(())
                next(rebuild, None)
                prune(index, gone)
                for _ in rebuild:
                    pass
            metrics, distinct = recount(living)
            for value in ("1", "2", "3", "4"):
                assert index.series_of(value.encode()) == metrics[value]
            for name in ("__name__", "a", "b", "never"):
                assert index.values_of(name.encode()) == len(distinct.get(name, ()))


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_a_full_metric_says_how_many_it_has_and_how_to_raise_the_limit() -> None:
    with an_index(metric="2,large=3") as index:
        for number in "12":
            index.resolve(key_of({"__name__": "m", "n": number}))
        with pytest.raises(
            MetricFull, match=r"metric m has 2 series; the limit is 2 \(--max-series-per-metric\)"
        ) as no:
            index.resolve(key_of({"__name__": "m", "n": "3"}))
        assert no.value.name == "m"
        assert index.resolve(key_of({"__name__": "m", "n": "1"})) == 0
        for number in "123":
            index.resolve(key_of({"__name__": "large", "n": number}))
        with pytest.raises(MetricFull, match="the limit is 3"):
            index.resolve(key_of({"__name__": "large", "n": "4"}))
        for number in "1234":
            index.resolve(key_of({"n": number}))  # of no metric
        assert index.series == 9


def test_a_full_label_takes_the_values_that_it_has() -> None:
    with an_index(label="2,le=0") as index:
        for number in "12":
            index.resolve(key_of({"path": number, "le": number}))
        with pytest.raises(LabelFull, match=r"label path has 2 values; the limit is 2 \(--max-label-values\)") as no:
            index.resolve(key_of({"path": "3"}))
        assert no.value.name == "path"
        index.resolve(key_of({"path": "1", "le": "3"}))
        with pytest.raises(LabelFull, match="label __name__ has 2"):
            for metric in "abc":
                index.resolve(key_of({"__name__": metric}))


def test_labels_that_other_metrics_had_count_again_once_all_of_them_have_gone() -> None:
    with an_index(label="0,a=1") as index:
        old, new = {"a": "1"}, {"a": "2"}
        prune(index, [index.resolve(key_of({"__name__": f"m_{number}", **old})) for number in range(4)])
        index.resolve(key_of({"__name__": "m_0", **new}))
        with pytest.raises(LabelFull, match="label a has 1 values"):
            index.resolve(key_of({"__name__": "m_0", **old}))
        assert (index.values_of(b"a"), index.series_of(b"m_0"), index.series) == (1, 1, 1)


def test_what_is_refused_takes_no_room() -> None:
    """Else a sender that is refused a million times would fill the index all the same."""
    with an_index(metric="1", label="2") as index:
        for path in "12":
            index.resolve(key_of({"__name__": path, "path": path}))
        before, texts = index.used_bytes, index.snapshot().texts
        for number in range(1000):
            for labels in ({"__name__": "1", "other": str(number)}, {"a": f"a{number}", "path": f"p{number}"}):
                with pytest.raises(IndexFull):
                    index.resolve(key_of(labels))
        assert (index.used_bytes, index.snapshot().texts, index.series) == (before, texts, 2)


def test_a_series_that_finds_no_room_half_way_is_not_counted(small_files: Callable[[int], None]) -> None:
    with an_index(label_bytes=50) as index:
        with pytest.raises(IndexFull, match="label z take"):
            index.resolve(key_of({"__name__": "m", "a": "1", "z": "z" * 51}))
        assert [index.values_of(name) for name in (b"__name__", b"a", b"z")] == [0, 0, 0]
        assert index.series_of(b"m") == 0
    with an_index() as index:
        small_files(100_000)
        with pytest.raises(Overloaded, match="--shm-size"):
            index.resolve(key_of({f"label_{number}": "v" for number in range(20)}))
        small_files(-1)
        assert {index.values_of(f"label_{number}".encode()) for number in range(20)} == {0}
        index.resolve(key_of({"label_0": "v"}))
        assert index.values_of(b"label_0") == 1


def test_a_name_that_is_very_long_leaves_the_limit_in_sight() -> None:
    with an_index(metric="1") as index:
        index.resolve(key_of({"__name__": "m" * 5000}))
        with pytest.raises(MetricFull) as no:
            index.resolve(key_of({"__name__": "m" * 5000, "a": "1"}))
        assert len(no.value.message) < 150
        assert no.value.message.endswith("the limit is 1 (--max-series-per-metric)")


# ---- the account of it ----------------------------------------------------------------------------------------------


def test_who_is_refused_is_listed_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals()
    for time in range(3):
        refusals.note(MetricFull("metric m is full", "m"), key_of({"__name__": "m", "n": str(time)}), 1000 + time)
    refusals.note(LabelFull("label path is full", "path"), key_of({"path": "x" * 5000}), 2000)
    refusals.note(IndexFull("the index is full"), key_of({"a": "1"}), 1500)
    refusals.note(MetricFull("metric m is full", "m"), key_of({"__name__": "m", "n": "last"}), 3000)
    metric, index, label = refusals.listed()
    assert (metric.limit, metric.name, metric.attempts, metric.first, metric.last) == ("metric", "m", 4, 1000, 3000)
    assert metric.example == {"__name__": "m", "n": "last"}
    assert (index.limit, index.name) == ("index", "")
    assert label.example == {"path": "x" * 100}
    assert refusals.totals == {"metric": 4, "label": 1, "index": 1}
    assert [record.getMessage() for record in caplog.records].count("new series are refused: metric m is full") == 1


def test_the_list_keeps_those_last_refused(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals()
    for number in range(MOST_NAMES + 50):
        refusals.note(MetricFull("full", f"m{number}"), key_of({"__name__": f"m{number}"}), number)
        refusals.note(MetricFull("full", "m0"), key_of({"__name__": "m0"}), number)
    listed = refusals.listed()
    assert len(listed) == MOST_NAMES
    assert [listed[0].name, listed[1].name] == ["m0", f"m{MOST_NAMES + 49}"]
    assert refusals.totals["metric"] == 2 * (MOST_NAMES + 50)
    assert len(caplog.records) <= MOST_NAMES


# ---- in a store -----------------------------------------------------------------------------------------------------


def metric_rows(numbers: range, time: int) -> list[tuple[bytes, int, int]]:
    return [(key_of({"__name__": "m", "n": str(number)}), time, number) for number in numbers]


def test_after_a_restart_the_counts_are_right_and_what_is_there_goes_on(tmp_path: Path) -> None:
    limits = SeriesLimits(CountLimit(5), CountLimit(0))

    async def work() -> None:
        async with opened(tmp_path / "data", ManualClock(NOON)) as (store, maintenance):
            await store.append(batch_of(store, metric_rows(range(4), NOON)))
            await maintenance.flush_all()
            await store.append(batch_of(store, metric_rows(range(4, 8), NOON)))  # in the log alone

    async def again() -> None:
        async with opened(tmp_path / "data", ManualClock(NOON)) as (store, _):
            store.limit_series(limits)
            assert (store.index.series_of(b"m"), store.index.values_of(b"n")) == (8, 8)
            await store.append(batch_of(store, metric_rows(range(8), NOON + 1)))
            with pytest.raises(MetricFull, match="has 8 series; the limit is 5"):
                store.resolve(key_of({"__name__": "m", "n": "8"}))
            assert len(content(store)) == 16
            assert store.refusals.totals == {"metric": 1}
            assert store.refusals.listed()[0].last == NOON

    asyncio.run(work())
    asyncio.run(again())


def test_series_that_retention_takes_away_give_their_room_back(tmp_path: Path) -> None:
    async def work() -> None:
        clock = ManualClock(NOON)
        async with opened(tmp_path / "data", clock, RETENTION) as (store, maintenance):
            store.limit_series(SeriesLimits(CountLimit(2), CountLimit(2)))
            for number in (1, 2):
                await store.append(batch_of(store, [(key_of({"__name__": "m", "n": str(number)}), NOON, 1)]))
            await maintenance.flush_all()
            with pytest.raises(MetricFull):
                store.resolve(key_of({"__name__": "m", "n": "3"}))
            await clock.advance(2 * 86_400)
            await store.append(batch_of(store, [(key_of({"__name__": "other"}), clock.now_ms(), 1)]))
            await maintenance.flush_all()
            await clock.advance(1.5 * 86_400)
            assert await maintenance.expire()
            assert store.index.series_of(b"m") == 0
            for number in (3, 4):
                series = store.resolve(key_of({"__name__": "m", "n": str(number)}))
                assert labels_of(store.index.keys_of(np.array([series], np.uint32))[0])["n"] == str(number)
            with pytest.raises(MetricFull):
                store.resolve(key_of({"__name__": "m", "n": "1"}))

    asyncio.run(work())
