"""The hub by itself: what is shared, what is cut off, what is dropped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pyarrow as pa
import pytest

from streamgauge.clock import ManualClock
from streamgauge.live.filters import EventFilter, SampleFilter, event_filter, sample_filter
from streamgauge.live.hub import QUEUE_BYTES, Hub
from streamgauge.model.batch import SampleBatch
from streamgauge.model.events import EventBatch, Stream
from streamgauge.model.labels import key_of
from streamgauge.model.owned import owned_headers, owned_name
from streamgauge.model.source import Matcher, MatchOp
from streamgauge.model.view import EVERYTHING, View

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


# ---- who may not see everything -------------------------------------------------------------------------------------

VIEWS = {name: View((("team", name),), name) for name in ("a", "b")}


def teams_of(ids: np.ndarray) -> Sequence[bytes]:
    """Of series 1 to 9; the first is of team a."""
    return [key_of({"__name__": "m", "n": str(number), "team": "a" if number < 2 else "b"}) for number in ids.tolist()]


def owned(name: str, *texts: bytes, stream: int) -> EventBatch:
    headers = owned_headers(name, "{}")
    return EventBatch(
        Stream(stream, 0, "http", headers, owned_name(name, "log")), 1, 1_000, pa.array(texts, pa.binary())
    )


async def test_filters_are_shared_by_those_only_who_may_see_the_same() -> None:
    hub = make_hub()
    tails = [hub.subscribe(event_filter([], ["n>0"], [], VIEWS[name])) for name in ("a", "a", "b")]
    tails.append(hub.subscribe(event_filter([], ["n>0"], [])))
    for tail in tails:
        tail.follow()
    async with passing_on(hub):
        hub.stored_events(
            1, [owned("a", b'{"n":1}', stream=1), owned("b", b'{"n":2}', stream=2), batch(b'{"n":3}', stream=3)]
        )
        deliveries = [await tail.next() for tail in tails]
    texts = [[text for frame in each.frames for text in frame.texts] for each in deliveries if each is not None]
    numbers = [[json.loads(text)["payload"]["n"] for text in each] for each in texts]
    assert numbers == [[1], [1], [2], [1, 2, 3]]
    assert deliveries[0] is not None
    assert deliveries[1] is not None
    assert deliveries[0].frames[0] is deliveries[1].frames[0]


async def test_a_stream_is_chosen_by_the_name_that_its_own_client_gave_it() -> None:
    hub = make_hub()
    tails = [hub.subscribe(event_filter(["log"], [], [], view)) for view in (*VIEWS.values(), EVERYTHING)]
    other = hub.subscribe(event_filter(["2"], [], [], VIEWS["a"]))
    for tail in (*tails, other):
        tail.follow()
    async with passing_on(hub):
        hub.stored_events(1, [owned("a", b"1", stream=1), owned("b", b"2", stream=2)])
        deliveries = [await tail.next() for tail in tails]
        hub.stored_events(2, [owned("b", b"3", stream=2)])
        assert await tails[1].next()
        other.beat()
        nothing = await other.next()
    counts = [sum(frame.messages for frame in each.frames) for each in deliveries if each is not None]
    assert counts == [1, 1, 2]
    assert nothing is not None
    assert (nothing.frames, nothing.unchecked) == ((), 0)


async def test_samples_are_of_series_with_the_bound_labels_only() -> None:
    hub = Hub(ManualClock(), teams_of, lambda: 0)
    sets = [[], [[Matcher("team", MatchOp.EQUAL, "b")]], [[Matcher("team", MatchOp.NOT_EQUAL, "")]]]
    tails = [hub.subscribe(sample_filter(each, VIEWS["a"])) for each in sets]
    everything = hub.subscribe(sample_filter([]))
    for tail in (*tails, everything):
        tail.follow()
    async with passing_on(hub):
        hub.stored_samples(1, SampleBatch(np.array([1, 2, 3], np.uint32), np.arange(3), np.ones(3)))
        found = [await everything.next()]
        for tail in tails:
            tail.beat()
            found.append(await tail.next())
    counts = [sum(frame.messages for frame in each.frames) for each in found if each is not None]
    assert counts == [3, 1, 0, 1]


async def test_how_much_was_not_looked_at_is_counted_of_what_may_be_seen() -> None:
    hub = Hub(ManualClock(), teams_of, lambda: 0)
    tails = [hub.subscribe(event_filter([], [], [], view)) for view in (*VIEWS.values(), EVERYTHING)]
    samples = [hub.subscribe(sample_filter([], view)) for view in (*VIEWS.values(), EVERYTHING)]
    for tail in (*tails, *samples):
        tail.follow()
    large = b"1" * (QUEUE_BYTES // 2 - 100)
    rows = SampleBatch(np.array([1, 2, 3], np.uint32), np.arange(3), np.ones(3))
    hub.stored_events(1, [owned("a", b"1", stream=1)])
    hub.stored_samples(2, rows)
    hub.stored_events(3, [owned("b", large, stream=2)])
    hub.stored_events(4, [owned("b", large, stream=2)])
    room = QUEUE_BYTES - hub.queued
    hub.stored_events(5, [owned("b", b"1" * (room + 32), stream=2)])  # too much: the first two are given up
    assert hub.unchecked == (1 + 0 + 1) + (1 + 2 + 3)
    for tail in (*tails, *samples):
        tail.beat()
    missed = [await tail.next() for tail in (*tails, *samples)]
    assert [each.unchecked for each in missed if each is not None] == [1, 0, 1, 1, 2, 3]
