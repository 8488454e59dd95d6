"""The hub by itself: what is shared, what is cut off, what is dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pyarrow as pa
import pytest

from streamgauge.clock import ManualClock
from streamgauge.live.filters import EventFilter, SampleFilter, event_filter
from streamgauge.live.hub import QUEUE_BYTES, Hub
from streamgauge.model.batch import SampleBatch
from streamgauge.model.events import EventBatch, Stream
from streamgauge.model.labels import key_of

pytestmark = pytest.mark.anyio


def keys_of(ids: np.ndarray) -> Sequence[bytes]:
    """Series 0 to 9; the others have been pruned."""
    if (ids > 9).any():
        raise KeyError("gone")
    return [key_of({"__name__": "m", "n": str(number)}) for number in ids.tolist()]


def make_hub() -> Hub:
    return Hub(ManualClock(), keys_of, lambda: 0)


def batch(*texts: bytes, stream: int = 1, name: str = "") -> EventBatch:
    return EventBatch(Stream(stream, 0, "http", "{}", name), 1, 1_000, pa.array(texts, pa.binary()))


@asynccontextmanager
async def passing_on(hub: Hub) -> AsyncIterator[None]:
    running = asyncio.create_task(hub.run())
    yield
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_tails_with_one_filter_share_what_is_made() -> None:
    hub = make_hub()
    first, second, other = (hub.subscribe(event_filter([], [text], [])) for text in ("a=1", "a=1", "a>0"))
    for tail in (first, second, other):
        tail.follow()
    async with passing_on(hub):
        hub.stored_events(1, [batch(b'{"a":1}', b'{"a":2}')])
        deliveries = [await tail.next() for tail in (first, second, other)]
    assert all(deliveries)
    frames = [delivery.frames for delivery in deliveries]
    assert frames[0][0] is frames[1][0]
    assert [len(each[0].texts) for each in frames] == [1, 1, 2]


async def test_a_tail_gets_what_comes_after_the_step_in_which_it_began_to_follow() -> None:
    hub = make_hub()
    early, late = hub.subscribe(EventFilter()), hub.subscribe(EventFilter())
    early.follow()
    hub.stored_events(1, [batch(b"1")])
    late.follow()
    hub.stored_events(2, [batch(b"2")])  # waits beside the other, and must not be put together with it
    async with passing_on(hub):
        seen = await late.next()
        assert [text[-3:] for frame in seen.frames for text in frame.texts] == [":2}"]
        assert sum(frame.messages for frame in (await early.next()).frames) == 2


async def test_what_waits_is_bounded_and_the_oldest_is_named() -> None:
    hub = make_hub()
    everything, fields = hub.subscribe(EventFilter()), hub.subscribe(event_filter([], ["a=1"], []))
    everything.follow()
    fields.follow()
    text = b'"' + b"x" * (900 << 10) + b'"'
    written = 2 * QUEUE_BYTES // len(text)
    for commit in range(written):
        hub.stored_events(commit, [batch(text)])
        assert hub.queued <= QUEUE_BYTES
    async with passing_on(hub):
        told = await fields.next()
        assert 0 < told.unchecked < written
        assert (told.frames, told.lost) == ((), 0)
    assert hub.unchecked == 2 * told.unchecked


async def test_a_series_that_has_gone_meanwhile_is_left_out() -> None:
    hub = make_hub()
    tail = hub.subscribe(SampleFilter())
    tail.follow()
    series = np.array([3, 11, 4], np.uint32)
    async with passing_on(hub):
        hub.stored_samples(1, SampleBatch(series, np.array([2, 1, 1], np.int64), np.array([1.0, 2.0, 3.0])))
        delivery = await tail.next()
    texts = [text for frame in delivery.frames for text in frame.texts]
    assert [text.partition('"n":"')[2][0] for text in texts] == ["4", "3"]


async def test_many_small_commits_are_looked_at_together() -> None:
    hub = make_hub()
    tail = hub.subscribe(event_filter(["named"], [], []))
    tail.follow()
    for commit in range(1000):
        hub.stored_events(commit, [batch(b"%d" % commit, stream=1 + commit % 2, name=["", "named"][commit % 2])])
    async with passing_on(hub):
        texts: list[str] = []
        while len(texts) < 500:
            delivery = await tail.next()
            texts += [text for frame in delivery.frames for text in frame.texts]
            assert len(delivery.frames) < 10
    assert [text.rpartition(":")[2] for text in texts] == [f"{n}}}" for n in range(1, 1000, 2)]
