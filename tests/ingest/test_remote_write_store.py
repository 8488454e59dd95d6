"""The remote-write endpoint on a real store: series that go meanwhile, and memory that ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path

import pytest

from streamgauge.clock import ManualClock
from streamgauge.ingest.admission import InFlight, Limits
from streamgauge.ingest.remote_write import RemoteWrite, Reply
from streamgauge.ingest.turns import Turns
from streamgauge.model.labels import key_of
from streamgauge.model.series_limits import CountLimit, SeriesLimits
from streamgauge.stats import Stats
from streamgauge.store.jobs import series_without_data
from streamgauge.store.store import Store
from streamgauge.testing import requests
from streamgauge.testing.lives import NOON, content, opened

PRUNED = 60_000
"""Fifteen slices of the prune."""
PER_REQUEST = 5000


def labels(number: int) -> dict[str, str]:
    return {"__name__": "m", "n": str(number)}


def receiver(store: Store) -> RemoteWrite:
    stats = Stats()
    return RemoteWrite(store, stats, ManualClock(NOON), InFlight(Limits().inflight, stats), Turns())


def numbered(numbers: Iterable[int], time: int = NOON) -> list[requests.Series]:
    return [requests.Series(labels(number), [(time, float(number))]) for number in numbers]


async def post(remote_write: RemoteWrite, message: str, series: Sequence[requests.Series]) -> Reply:
    encode = requests.v1 if message == requests.V1 else requests.v2
    block = requests.snappy(encode(series))

    async def body() -> AsyncIterator[bytes]:
        yield block

    return await remote_write.receive(requests.headers(message), body())


@pytest.mark.parametrize("message", [requests.V1, requests.V2])
def test_a_large_prune_disturbs_a_request_on_its_way_once_at_most(tmp_path: Path, message: str) -> None:
    async def work() -> None:
        async with opened(tmp_path / "data", ManualClock(NOON)) as (store, _):
            remote_write = receiver(store)
            for number in range(PRUNED):
                store.resolve(key_of(labels(number)))
            generation = store.generation
            snapshot, release = store.snapshot()
            with store.pruner.watching(store.queued_series):
                dead = series_without_data(snapshot)
                release()
                assert len(dead) == PRUNED
                # Some of what is written is about to be pruned, at both ends, and some is new.
                firsts = (0, PRUNED // 2, PRUNED - 1000)
                writing = [
                    asyncio.ensure_future(post(remote_write, message, numbered(range(first, first + PER_REQUEST))))
                    for first in firsts
                ]
                for _ in range(4):
                    await asyncio.sleep(0)
                pruning = asyncio.ensure_future(store.pruner.prune(dead))
                turns = 0
                while not pruning.done():
                    turns += not any(request.done() for request in writing)
                    await asyncio.sleep(0)
                assert turns >= 3, "the prune was at work while the requests were"
                replies = await asyncio.gather(*writing)
                assert await pruning > PRUNED // 2
            assert [reply.status for reply in replies] == [204, 204, 204], [reply.body for reply in replies]
            assert store.generation == generation + 1
            wanted = {number for first in firsts for number in range(first, first + PER_REQUEST)}
            assert content(store).keys() == {(key_of(labels(number)), NOON) for number in wanted}

    asyncio.run(work())


@pytest.mark.parametrize("message", [requests.V1, requests.V2])
def test_a_server_without_memory_for_a_new_series_says_so_and_takes_the_request_later(
    tmp_path: Path, message: str, small_files: Callable[[int], None]
) -> None:
    long = [requests.Series({"__name__": "long", "text": letter * 50_000}, [(NOON, 1.0)]) for letter in "abc"]

    async def work() -> None:
        async with opened(tmp_path / "data", ManualClock(NOON)) as (store, _):
            remote_write = receiver(store)
            assert (await post(remote_write, message, numbered(range(10)))).status == 204
            small_files(100_000)
            refused = await post(remote_write, message, [*numbered(range(10), NOON + 1), *long])
            known = await post(remote_write, message, numbered(range(10), NOON + 2))
            small_files(-1)
            assert refused.status == 503
            assert refused.headers["retry-after"] == "5"
            assert "bytes of shared memory" in refused.body
            assert "--shm-size" in refused.body
            assert known.status == 204, "series that are known go on"
            assert (await post(remote_write, message, [*numbered(range(10), NOON + 1), *long])).status == 204
            assert len(content(store)) == 33

    asyncio.run(work())


@pytest.mark.parametrize("message", [requests.V1, requests.V2])
def test_beyond_a_limit_the_good_part_is_stored_and_the_rest_named(tmp_path: Path, message: str) -> None:
    async def work() -> None:
        async with opened(tmp_path / "data", ManualClock(NOON)) as (store, _):
            remote_write = receiver(store)
            store.limit_series(SeriesLimits(CountLimit(3), CountLimit(0, {b"path": 2})))
            paths = [requests.Series({"__name__": f"p{n}", "path": str(n)}, [(NOON, 1.0)]) for n in range(4)]
            for time in (NOON, NOON + 1):  # sent again, those that are there go on, and the others are refused again
                reply = await post(remote_write, message, [*numbered(range(5), time), *paths])
                assert reply.status == 400
                first, *examples = reply.body.splitlines()
                assert first == ("5 samples were stored; 4 items were not: 2 label_values_limit, 2 metric_series_limit")
                limit = "metric m has 3 series; the limit is 3 (--max-series-per-metric)"
                assert examples[:2] == [f'm{{n="{number}"}}: {limit}' for number in (3, 4)]
                limit = "label path has 2 values; the limit is 2 (--max-label-values)"
                assert examples[2:] == [f'p{number}{{path="{number}"}}: {limit}' for number in (2, 3)]
            assert len(content(store)) == 8
            store.limit_series(SeriesLimits())
            assert (await post(remote_write, message, [*numbered(range(5)), *paths])).status == 204
            assert len(content(store)) == 12

    asyncio.run(work())


@pytest.mark.parametrize("message", [requests.V1, requests.V2])
def test_senders_at_once_do_not_get_past_a_limit_together(tmp_path: Path, message: str) -> None:
    """Some send the same series, and some send others."""
    limit, each = 3000, 1500

    async def work() -> None:
        async with opened(tmp_path / "data", ManualClock(NOON)) as (store, _):
            remote_write = receiver(store)
            store.limit_series(SeriesLimits(CountLimit(limit), CountLimit(0)))
            ranges = [range(start, start + each) for start in (0, 1000, 2000, 3000, 0)]
            replies = await asyncio.gather(*(post(remote_write, message, numbered(numbers)) for numbers in ranges))
            assert store.index.series_of(b"m") == len(content(store)) == limit
            written = [int(reply.headers["x-prometheus-remote-write-samples-written"]) for reply in replies]
            assert [reply.status for reply in replies] == [204 if stored == each else 400 for stored in written]
            assert sum(written) >= limit

    asyncio.run(work())
