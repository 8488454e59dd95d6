"""Which series end, and when: order is by the pushes' own timestamps, whenever they arrive."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.clock import ManualClock
from streamgauge.errors import ReadOnly
from streamgauge.ingest.federation.liveness import Ended, Liveness
from streamgauge.ingest.federation.rates import Rate
from streamgauge.testing import pushes, requests
from streamgauge.testing.push_receiver import EVERYTHING, Federation
from streamgauge.testing.pushes import family, labels
from streamgauge.wire.metric_family import MetricFamily
from streamgauge.wire.push_part import Part, part

pytestmark = pytest.mark.anyio
TTL = 600_000
CLUSTERS = 100_000


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.uint32)


def shown(ended: Ended | None) -> tuple[list[int], int] | None:
    return None if ended is None else (ended.series.tolist(), ended.time)


def test_what_is_missing_from_the_next_upload_has_ended() -> None:
    live = Liveness()
    assert live.upload("c", ids(1, 2, 3), 1000, 0.0) is None
    assert shown(live.upload("c", ids(2, 4), 2000, 0.0)) == ([1, 3], 2000)
    assert live.upload("other", ids(9), 9000, 0.0) is None
    assert live.of("c").tolist() == [2, 4]
    assert (len(live), live.series) == (2, 3)


def test_a_late_upload_ends_nothing_that_is_newer() -> None:
    live = Liveness()
    live.upload("c", ids(1, 2), 2000, 0.0)
    assert live.upload("c", ids(1), 1000, 0.0) is None  # 2 goes on
    assert shown(live.upload("c", ids(1, 7), 1500, 0.0)) == ([7], 2000)  # 7 was gone by 2000
    assert live.of("c").tolist() == [1, 2]


def test_parts_of_one_moment_belong_together() -> None:
    live = Liveness()
    assert live.upload("c", ids(1), 1000, 0.0) is None
    assert live.upload("c", ids(2), 1000, 0.0) is None
    assert shown(live.upload("c", ids(3), 2000, 0.0)) == ([1, 2], 2000)


def test_nothing_ends_before_the_last_part_of_a_scrape() -> None:
    live = Liveness()
    live.upload("c", ids(1, 2, 3, 4), 1000, 0.0)
    assert live.upload("c", ids(1), 2001, 0.0, Part.FIRST) is None
    assert live.upload("c", ids(5), 2002, 0.0, Part.MIDDLE) is None
    assert live.beside("c", Part.LAST).tolist() == [1, 5]
    assert live.of("c").tolist() == [1, 2, 3, 4, 5]
    assert shown(live.upload("c", ids(3), 2000, 0.0, Part.LAST)) == ([2, 4], 2002)
    assert live.beside("c", Part.FIRST).tolist() == []
    assert shown(live.upload("c", ids(3, 5), 3000, 0.0)) == ([1], 3000)
    assert live.series == 2


def test_a_scrape_without_its_end_keeps_no_series_alive() -> None:
    live = Liveness()
    live.upload("c", ids(1), 1000, 0.0)
    live.upload("c", ids(2), 2000, 0.0, Part.FIRST)
    assert live.upload("c", ids(3), 3000, 0.0, Part.FIRST) is None
    assert shown(live.upload("c", ids(4), 3000, 0.0, Part.LAST)) == ([1, 2], 3000)
    live.upload("c", ids(5), 4000, 0.0, Part.FIRST)
    assert shown(live.upload("c", ids(6), 5000, 0.0)) == ([3, 4, 5], 5000)
    live.upload("c", ids(7), 6000, 0.0, Part.FIRST)
    assert [shown(ended) for ended in live.silent(0.0, TTL)] == [([6, 7], 6000 + TTL)]
    assert live.series == 0


def test_parts_that_follow_nothing_are_counted_with_all_that_is_live() -> None:
    live = Liveness()
    live.upload("c", ids(1), 1000, 0.0)
    assert live.beside("c", Part.WHOLE).tolist() == live.beside("d", Part.LAST).tolist() == []
    assert live.beside("c", Part.LAST).tolist() == [1]  # without a first one
    live.upload("c", ids(2), 2000, 0.0, Part.FIRST)
    assert live.beside("c", Part.MIDDLE).tolist() == [2]
    assert live.beside("c", Part.FIRST).tolist() == [1, 2]  # a second one


def test_the_end_of_a_scrape_that_began_before_a_start_ends_nothing() -> None:
    live = Liveness()
    live.found("c", ids(1, 2), 2000, 0.0)
    assert live.upload("c", ids(3), 2001, 0.0, Part.LAST) is None
    assert live.of("c").tolist() == [1, 2, 3]
    assert shown(live.upload("c", ids(1, 3), 3000, 0.0)) == ([2], 3000)


SCRAPES = st.lists(st.frozensets(st.integers(0, 6), min_size=1), min_size=1, max_size=5)


@given(SCRAPES, st.data())
def test_parts_of_scrapes_end_what_whole_ones_end(scrapes: list[frozenset[int]], data: st.DataObject) -> None:
    whole, parted = Liveness(), Liveness()
    for number, scrape in enumerate(scrapes):
        wanted = shown(whole.upload("c", ids(*sorted(scrape)), 1000 * number, 0.0))
        cuts = sorted(data.draw(st.sets(st.integers(1, len(scrape)), max_size=3)) - {len(scrape)})
        ends = [shown(parted.upload("c", some, 1000 * number, 0.0, part)) for some, part in _parts(scrape, cuts)]
        assert ends == [None] * len(cuts) + [wanted]
    assert whole.of("c").tolist() == parted.of("c").tolist()
    assert whole.series == parted.series


def _parts(scrape: frozenset[int], cuts: list[int]) -> Iterator[tuple[np.ndarray, Part]]:
    places = [0, *cuts, len(scrape)]
    for start, end in pairwise(places):
        yield ids(*sorted(scrape)[start:end]), part(start > 0, end < len(scrape))


def test_remote_writes_end_nothing_until_their_cluster_is_silent() -> None:
    live = Liveness()
    live.receive("c", ids(5, 1, 5), 1000, 1.0)
    live.receive("c", ids(2), 3000, 2.0)
    live.upload("c", ids(8), 1500, 3.0)
    live.upload("d", ids(9), 1500, 9.0)
    assert list(live.silent(2.5, TTL)) == []
    assert [shown(ended) for ended in live.silent(3.0, TTL)] == [([1, 2, 5, 8], 3000 + TTL)]
    assert (len(live), live.series) == (1, 1)


def test_what_the_store_had_at_the_start_goes_on() -> None:
    live = Liveness()
    live.found("c", ids(1, 2, 3), 1000, 0.0)
    live.receive("c", ids(3), 1100, 0.0)
    assert live.upload("c", ids(1), 900, 0.0) is None  # an older one says nothing of them
    assert shown(live.upload("c", ids(1), 2000, 0.0)) == ([2], 2000)
    live.found("d", ids(7), 1000, 0.0)
    assert [shown(ended) for ended in live.silent(0.0, TTL)] == [([1, 3], 2000 + TTL), ([7], 1000 + TTL)]
    assert live.series == 0


def test_remote_writes_gather_in_bounded_memory() -> None:
    live = Liveness()
    for _ in range(200):
        live.receive("c", np.arange(1000, dtype=np.uint32), 1000, 0.0)
    assert live.of("c").tolist() == list(range(1000))
    assert live.series == 1000


def test_a_hundred_thousand_clusters_fit() -> None:
    rate = Rate(ManualClock(), 60_000, 2, CLUSTERS)
    live = Liveness()
    tracemalloc.start()  # for a tenth of them: it takes its time
    for number in range(CLUSTERS):
        if number == CLUSTERS // 10:
            size, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert size < 10 << 20
        live.upload(f"cluster-{number}", ids(number), 1000, float(number))
        assert rate.spend(f"cluster-{number}")
    assert sum(1 for _ in live.silent(float(CLUSTERS), TTL)) == CLUSTERS
    assert live.series == len(live) == 0
    assert len(rate) <= CLUSTERS


# ---- rates ----------------------------------------------------------------------------------------------------------


async def test_a_bucket_fills_again_and_is_forgotten() -> None:
    clock = ManualClock()
    rate = Rate(clock, 10_000, 3)
    assert [rate.spend("a") for _ in range(4)] == [True, True, True, False]
    assert rate.wait("a") == 10
    await clock.advance(9.5)
    assert (rate.wait("a"), rate.spend("a")) == (1, False)
    await clock.advance(0.5)
    assert (rate.wait("a"), rate.spend("a"), rate.spend("a")) == (0, True, False)
    clock.jump(-3_600_000)
    assert rate.wait("a") == 10  # the wall clock is not asked
    await clock.advance(1000)
    for number in range(10):
        assert rate.spend(f"b{number}")
    assert rate.wait("a") == 0
    assert len(rate) == 10  # without a


def test_buckets_are_bounded() -> None:
    rate = Rate(ManualClock(), 10_000, 1, buckets=100)
    for number in range(1000):
        assert rate.spend(str(number))
    assert len(rate) == 100


def test_without_an_interval_there_is_no_limit() -> None:
    rate = Rate(ManualClock(), 0, 1)
    assert all(rate.spend("a") for _ in range(100))
    assert (rate.wait("a"), len(rate)) == (0, 0)


def test_a_token_that_is_given_back_can_be_spent() -> None:
    rate = Rate(ManualClock(), 10_000, 1)
    assert rate.spend("a")
    rate.give_back("a")
    assert rate.spend("a")
    assert not rate.spend("a")


# ---- markers --------------------------------------------------------------------------------------------------------


def up(time: int, *jobs: str) -> MetricFamily:
    return family("up", [(labels(job=job), 1.0, time) for job in jobs])


async def test_a_series_that_is_missing_gets_a_marker_at_the_time_of_the_push(federation: Federation) -> None:
    now = federation.now
    await federation.upload(up(now - 60_000, "a", "b"))
    await federation.upload(up(now, "a"))
    assert federation.stale(__name__="up", _id="one", job="b") == [now]
    assert federation.stale(__name__="up", _id="one", job="a") == []
    await federation.upload(up(now - 90_000, "a", "b"))  # late
    await federation.upload(up(now - 30_000, "b"))
    assert federation.stale(__name__="up", _id="one", job="a") == []
    assert set(federation.stale(__name__="up", _id="one", job="b")) == {now}


async def test_a_scrape_in_several_uploads_ends_nothing_of_itself(federation: Federation) -> None:
    for now in (federation.now - 60_000, federation.now):
        for name, word in (("a", "first"), ("b", "middle"), ("c", "last")):
            body = pushes.upload([up(now, name)])
            await federation.send(body, {**pushes.HEADERS, "x-streamgauge-part": word})
    for name in "abc":
        assert federation.stale(__name__="up", _id="one", job=name) == []
    assert federation.metric('streamgauge_push_layouts_total{outcome="same"}') == 3  # each part has a layout of its own
    await federation.upload(up(federation.now + 1000, "a"))
    assert federation.stale(__name__="up", _id="one", job="c") == [federation.now + 1000]


async def test_a_silent_cluster_is_marked_after_its_time(federate: Callable[..., Federation]) -> None:
    federation = federate(replace(EVERYTHING, ttl=TTL))
    now = federation.now
    await federation.upload(up(now, "a"))
    await federation.write([requests.Series({"__name__": "w", "_id": "two"}, [(now, 1.0)])], cluster="two")
    await federation.clock.advance(TTL / 1000 - 1)
    await federation.receiver.markers.mark_silent()
    assert federation.stale(__name__="up", _id="one", job="a") == []
    await federation.clock.advance(1)
    await federation.receiver.markers.mark_silent()
    assert federation.stale(__name__="up", _id="one", job="a") == [now + TTL]
    assert federation.stale(__name__="w", _id="two") == [now + TTL]
    assert federation.metric('streamgauge_push_stale_markers_total{cause="silent"}') == 2


async def test_markers_wait_while_the_store_refuses(federate: Callable[..., Federation]) -> None:
    federation = federate(replace(EVERYTHING, ttl=TTL))
    task = asyncio.ensure_future(federation.receiver.markers.run())
    now = federation.now
    await federation.upload(up(now, "a"))
    federation.sink.failure = ReadOnly("the disk is full")
    await federation.clock.advance(TTL / 1000 + 60)
    assert federation.stale(__name__="up", _id="one", job="a") == []
    federation.sink.failure = None
    await federation.clock.advance(60)
    task.cancel()
    assert federation.stale(__name__="up", _id="one", job="a") == [now + TTL]


async def test_what_was_live_is_read_from_the_stores_answer(federation: Federation) -> None:
    now = federation.now
    lines = [
        "# TYPE up untyped",
        f'up{{_id="one",job="a",instance=""}} 1 {now - 60_000}',
        f'up{{_id="one",job="b\\n",instance=""}} 1 {now - 50_000}',
        f'{{"a name",_id="two",instance=""}} 1 {now}',
    ]
    text = "\n".join(lines).encode() + b"\n"

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(text), 7):
            yield text[start : start + 7]

    assert await federation.receiver.recover(pieces()) == 3
    await federation.upload(up(now, "a"))
    assert federation.stale(__name__="up", _id="one", job="b\n") == [now]
