"""The remote-write endpoint on a real store that prunes series meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamgauge.clock import ManualClock
from streamgauge.ingest.admission import InFlight, Limits
from streamgauge.ingest.remote_write import RemoteWrite, Reply
from streamgauge.model.labels import key_of
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
    return RemoteWrite(store, stats, ManualClock(NOON), InFlight(Limits().inflight, stats))


async def post(remote_write: RemoteWrite, message: str, first: int) -> Reply:
    series = [requests.Series(labels(number), [(NOON, float(number))]) for number in range(first, first + PER_REQUEST)]
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
                writing = [asyncio.ensure_future(post(remote_write, message, first)) for first in firsts]
                for _ in range(6):
                    await asyncio.sleep(0)
                pruning = asyncio.ensure_future(store.pruner.prune(dead))
                turns = 0
                while not pruning.done():
                    turns += not any(request.done() for request in writing)
                    await asyncio.sleep(0)
                assert turns > 5, "the prune was at work while the requests were"
                replies = await asyncio.gather(*writing)
                assert await pruning > PRUNED // 2
            assert [reply.status for reply in replies] == [204, 204, 204], [reply.body for reply in replies]
            assert store.generation == generation + 1
            wanted = {number for first in firsts for number in range(first, first + PER_REQUEST)}
            assert content(store).keys() == {(key_of(labels(number)), NOON) for number in wanted}

    asyncio.run(work())
