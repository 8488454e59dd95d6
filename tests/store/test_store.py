"""The store as a whole, against a dictionary: what was appended is what is read, through flushes, compactions,
retention and restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.clock import ManualClock
from streamgauge.model.arrays import STALE_BITS
from streamgauge.model.batch import SampleBatch
from streamgauge.model.labels import key_of
from streamgauge.model.source import NoMeter
from streamgauge.store.helper import InThread
from streamgauge.store.lock import acquire
from streamgauge.store.maintenance import Maintenance
from streamgauge.store.offline import open_folder
from streamgauge.store.opening import Progress, open_store
from streamgauge.store.ports import DAY_MS, FIRST_TIME, LAST_TIME
from streamgauge.store.snapshot import StoreSnapshot
from streamgauge.store.store import Store, StoreSettings
from streamgauge.store.verify import check_folder

NOW = 1_700_000_000_000
FOREVER = StoreSettings(retention=0)

Model = dict[tuple[bytes, int], int]
"""Bits of the value by key and time."""


@asynccontextmanager
async def opened(
    data: Path, settings: StoreSettings = FOREVER, clock: ManualClock | None = None
) -> AsyncIterator[tuple[Store, Maintenance]]:
    runner = InThread()
    with acquire(data):
        async with open_store(data, settings, clock or ManualClock(NOW), runner, runner, Progress()) as both:
            yield both


def batch(store: Store, rows: Iterable[tuple[bytes, int, int]]) -> SampleBatch:
    """Rows of key, time and bits."""
    listed = list(rows)
    return SampleBatch(
        np.array([store.resolve(key) for key, _, _ in listed], np.uint32),
        np.array([time for _, time, _ in listed], np.int64),
        np.array([bits for _, _, bits in listed], np.int64).view(np.float64),
    )


def content(snapshot: StoreSnapshot, start: int = FIRST_TIME, end: int = LAST_TIME) -> Model:
    """Everything in a time range, as a query sees it."""
    selection = snapshot.open({}).select([], start, end, NoMeter())
    offsets, times, values = selection.samples.offsets, selection.samples.times, selection.samples.values
    found: Model = {}
    for row in range(len(selection.labels)):
        key = key_of(selection.labels.labels(row))
        part = slice(offsets[row], offsets[row + 1])
        assert (np.diff(times[part]) > 0).all(), "times ascend strictly"
        found |= {(key, int(t)): int(v) for t, v in zip(times[part], values[part].view(np.int64), strict=True)}
    return found


def bits(value: float) -> int:
    return int(np.float64(value).view(np.int64))


KEYS = [key_of({"__name__": "up", "job": job}) for job in "abc"] + [
    key_of({"café.ünï": "x"}),
    key_of({"__name__": "ü"}),
]
VALUES = [bits(v) for v in (0.0, -0.0, 1.5, float("nan"), float("inf"), 5e-324)] + [STALE_BITS]

ROWS = st.lists(
    st.tuples(
        st.sampled_from(KEYS),
        st.integers(-3 * DAY_MS, 3 * DAY_MS).map(lambda t: NOW + t // 7_200_000 * 7_200_000),
        st.sampled_from(VALUES),
    ),
    max_size=12,
)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), ROWS),
        st.tuples(st.just("flush"), st.just([])),
        st.tuples(st.just("compact"), st.just([])),
        st.tuples(st.just("compact fully"), st.just([])),
        st.tuples(st.just("restart"), st.just([])),
    ),
    max_size=25,
)


async def _act(
    store: Store, maintenance: Maintenance, what: str, rows: list[tuple[bytes, int, int]], model: Model
) -> None:
    if what == "append":
        await store.append(batch(store, rows))
        model |= {(key, time): value for key, time, value in rows}
    elif what == "flush":
        store.head.seal()
        await maintenance.flush(1 << 20)
    elif what == "compact":
        await maintenance.compact()
    elif what == "compact fully":
        await maintenance.compact_fully()


@settings(max_examples=15)
@given(operations=OPERATIONS)
def test_store_is_a_dictionary(
    operations: list[tuple[str, list[tuple[bytes, int, int]]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = tmp_path_factory.mktemp("store") / "data"
    model: Model = {}
    todo = list(operations)

    async def one_life() -> None:
        async with opened(data) as (store, maintenance):
            assert content(store.snapshot()[0]) == model
            while todo:
                what, rows = todo.pop(0)
                if what == "restart":
                    return
                await _act(store, maintenance, what, rows, model)
                snapshot, release = store.snapshot()
                assert content(snapshot) == model
                release()

    while todo:
        asyncio.run(one_life())
    if operations:
        assert check_folder(data) == []
        with open_folder(data) as (snapshot, damage):
            assert damage == []
            assert content(snapshot) == model
