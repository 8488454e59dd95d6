"""Uploads that repeat the one before are taken at once, and give nothing that the usual way would not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.clock import ManualClock
from streamgauge.errors import ReadOnly, StreamgaugeError
from streamgauge.ingest.federation.repeats import MAX_BYTES
from streamgauge.ingest.federation.settings import PushSettings
from streamgauge.ingest.turns import Turns
from streamgauge.model.labels import key_of
from streamgauge.stats import Stats
from streamgauge.testing.push_receiver import EVERYTHING, Federation, push, receiver_of, rule
from streamgauge.testing.pushes import HEADERS, TEXT_HEADERS, body_of, family, identity, labels, upload
from streamgauge.testing.sink import MemorySink
from streamgauge.wire import metric_family_protobuf, metric_family_text, snappy_frames
from streamgauge.wire.metric_family import MetricFamily
from streamgauge.wire.push_part import HEADER as PART

pytestmark = pytest.mark.anyio
Federate = Callable[..., Federation]
NOW = ManualClock().now_ms()
REPEATED = 'streamgauge_push_layouts_total{outcome="same"}'


def families(*values: float, time: int = NOW) -> list[MetricFamily]:
    """A family with a series for each value, and another with one."""
    many = [(labels(instance=str(number)), value, time) for number, value in enumerate(values)]
    return [family("many", many), family("one", [(labels(), values[0], time)])]


async def test_from_the_second_on_an_upload_is_taken_at_once(federation: Federation) -> None:
    assert [await federation.upload(*families(n + 1, 2.0, time=NOW + n)) for n in range(3)] == [False, True, True]
    assert federation.sink.samples(__name__="many", _id="one", instance="0") == [(NOW + n, n + 1) for n in range(3)]
    assert federation.metric('streamgauge_ingest_requests_total{code="200",source="upload"}') == 3
    assert federation.metric('streamgauge_ingested_samples_total{source="upload"}') == 9
    assert federation.metric('streamgauge_ingest_request_duration_seconds_count{source="upload"}') == 3
    assert federation.metric(REPEATED) == 2
    sizes = [len(upload(families(n + 1, 2.0, time=NOW + n))) for n in range(3)]
    assert federation.metric('streamgauge_ingest_request_bytes_total{source="upload"}') == sum(sizes)
    assert not await federation.upload(*families(3, 2.0, 5.0))
    assert await federation.upload(*families(4, 2.0, 5.0))


async def test_what_the_whitelist_leaves_out_is_left_out_and_counted(federate: Federate) -> None:
    federation = federate(replace(EVERYTHING, whitelist=(rule(__name__="one"), rule(instance="1"))))
    for number in range(3):
        assert await federation.upload(*families(number + 1, number + 1, number + 1)) == (number > 0)
    assert [row["__name__"] for row in federation.sink.series()] == ["many", "one"]
    assert federation.sink.samples(__name__="many", _id="one", instance="1") == [(NOW, 3.0)]
    assert federation.metric('streamgauge_push_left_out_samples_total{source="upload"}') == 6
    assert federation.metric('streamgauge_ingested_samples_total{source="upload"}') == 6
    nothing = federate(replace(EVERYTHING, whitelist=(rule(__name__="other"),)))
    assert [await nothing.upload(*families(1)) for _ in range(2)] == [False, False]


def elsewhere(federation: Federation) -> None:
    federation.sink.prune()


def is_full(federation: Federation) -> None:
    federation.receiver._turns._spent = 1.0


UNUSUAL: dict[str, tuple[bytes, dict[str, str], Callable[[Federation], None]]] = {
    "text": (b"".join(metric_family_text.encode(families(1.0))), TEXT_HEADERS, lambda _: None),
    "no snappy": (metric_family_protobuf.encode(families(1.0)), {**HEADERS, "content-encoding": ""}, lambda _: None),
    "another part": (upload(families(1.0)), {**HEADERS, PART: "first"}, lambda _: None),
    "another order": (upload(families(1.0)[::-1]), HEADERS, lambda _: None),
    "pruned": (upload(families(1.0)), HEADERS, elsewhere),
    "others have their turn": (upload(families(1.0)), HEADERS, is_full),
}


@pytest.mark.parametrize("case", UNUSUAL)
async def test_whatever_is_unusual_goes_the_usual_way(federation: Federation, case: str) -> None:
    body, headers, change = UNUSUAL[case]
    await federation.upload(*families(1.0))
    change(federation)
    assert not await federation.send(body, headers)
    assert federation.sink.appends == 2


async def test_timestamps_that_are_overwritten_go_the_usual_way(federate: Federate) -> None:
    federation = federate(replace(EVERYTHING, overwrite_timestamps=True))
    assert [await federation.upload(*families(1.0)) for _ in range(2)] == [False, False]


async def test_a_large_one_goes_the_usual_way(federate: Federate) -> None:
    federation = federate(replace(EVERYTHING, limit_bytes=2 * MAX_BYTES))
    values = range(1, MAX_BYTES // 40)
    assert [await federation.upload(*families(*values)) for _ in range(2)] == [False, False]


async def test_the_limit_of_pushes_holds(federate: Federate) -> None:
    federation = federate(replace(EVERYTHING, ratelimit=60_000, burst=2))
    assert [await federation.upload(*families(1.0)) for _ in range(2)] == [False, True]
    with pytest.raises(StreamgaugeError, match="write limit reached"):
        await federation.upload(*families(2.0))
    await federation.clock.advance(60)
    assert await federation.upload(*families(3.0))
    assert federation.metric('streamgauge_push_rate_limited_total{source="upload"}') == 1


async def test_one_that_the_store_fails_to_keep_draws_on_no_limit(federate: Federate) -> None:
    federation = federate(replace(EVERYTHING, ratelimit=60_000, burst=2))
    await federation.upload(*families(1.0))
    federation.sink.failure = ReadOnly("the disk is full")
    for _ in range(3):
        with pytest.raises(ReadOnly):
            await federation.upload(*families(2.0))
    federation.sink.failure = None
    assert await federation.upload(*families(3.0))
    refused = f'streamgauge_ingest_requests_total{{code="{ReadOnly.status}",source="upload"}}'
    assert federation.metric(refused) == 3
    assert federation.metric('streamgauge_ingested_samples_total{source="upload"}') == 4


async def test_what_it_ends_is_marked_before_it_is_answered(federation: Federation) -> None:
    """An upload of the time before this start has more series, which the store remembers."""
    await federation.upload(*families(1.0))
    old = federation.sink.resolve(key_of({"__name__": "old", "_id": "one"}))
    federation.receiver.liveness.found("one", np.array([old], np.uint32), NOW, 0.0)
    assert await federation.upload(*families(2.0, time=NOW + 1))
    assert federation.stale(__name__="old", _id="one") == [NOW + 1]


async def test_two_of_one_moment_are_both_stored(federation: Federation) -> None:
    await federation.upload(*families(1.0))
    bodies = [upload(families(float(number), time=NOW + number)) for number in (1, 2)]
    sends = [push(federation.receiver, identity(), HEADERS, body) for body in bodies]
    assert await asyncio.gather(*sends) == [True, True]
    assert [time for time, _ in federation.sink.samples(__name__="one", _id="one")] == [NOW, NOW + 1, NOW + 2]


# ---- against the usual way ------------------------------------------------------------------------------------------

PLAIN = metric_family_protobuf.encode(families(1.0, 2.0, 3.0))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """The body that is known, with some bytes of it changed, or cut or repeated in places."""
    content = bytearray(PLAIN)
    for _ in range(draw(st.integers(0, 3))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    at = draw(st.integers(0, len(content)))
    match draw(st.sampled_from(["whole", "cut", "grown", "damaged"])):
        case "cut":
            del content[at:]
        case "grown":
            content[at:at] = content[: draw(st.integers(0, 20))]
        case "damaged":
            raw = bytearray(snappy_frames.encode(bytes(content)))
            raw[draw(st.integers(0, len(raw) - 1))] ^= 1 << draw(st.integers(0, 7))
            return bytes(raw)
    return snappy_frames.encode(bytes(content))


@settings(max_examples=60)
@given(st.lists(mutated(), min_size=1, max_size=3), st.booleans())
async def test_a_body_gives_what_it_gives_on_the_usual_way(bodies: list[bytes], limited: bool) -> None:
    clock = ManualClock()
    limits = replace(EVERYTHING, max_series=4) if limited else EVERYTHING
    quick, plain = _Side(clock, limits), _Side(clock, limits)
    for body in [snappy_frames.encode(PLAIN), *bodies, snappy_frames.encode(PLAIN)]:
        assert await quick.take(body, True) == await plain.take(body, False)
        assert quick.rows() == plain.rows()


class _Side:
    def __init__(self, clock: ManualClock, settings: PushSettings) -> None:
        self._sink = MemorySink()
        self._receiver = receiver_of(self._sink, Stats(), clock, settings, Turns(clock))

    async def take(self, body: bytes, quick: bool) -> str:
        try:
            if quick:
                await push(self._receiver, identity(), HEADERS, body)
            else:
                await self._receiver.upload(identity(), HEADERS, body_of(body))
        except StreamgaugeError as error:
            return f"{error.status} {error.message}"
        return ""

    def rows(self) -> list[tuple[bytes, int, int]]:
        return [
            (self._sink.keys[series], time, bits)
            for batch in self._sink.batches
            for series, time, bits in zip(
                batch.series.tolist(), batch.times.tolist(), batch.values.view("i8").tolist(), strict=True
            )
        ]
