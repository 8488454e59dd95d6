"""Every outcome of a remote write from a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from streamgauge.auth.cluster_authority import ClusterIdentity
from streamgauge.clock import ManualClock
from streamgauge.errors import BadInput, PushRefused, RateLimited, TooLarge, UnsupportedMedia
from streamgauge.ingest.federation import pushes
from streamgauge.ingest.turns import Turns
from streamgauge.stats import Stats
from streamgauge.testing import requests
from streamgauge.testing.push_receiver import EVERYTHING, Federation, receiver_of, rule
from streamgauge.testing.pushes import HEADERS, body_of, family, identity, labels
from streamgauge.testing.requests import Series
from streamgauge.testing.sink import MemorySink
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio
NOW = ManualClock().now_ms()
Federate = Callable[..., Federation]


def up(cluster: str = "one", time: int = NOW, value: float = 1.0, **more: str) -> Series:
    return Series({"__name__": "up", "_id": cluster, **more}, [(time, value)])


@pytest.mark.parametrize("message", [requests.V1, requests.V2])
async def test_a_remote_write_is_stored(federation: Federation, message: str) -> None:
    for number in range(3):
        reply = await federation.write([up(time=NOW + number, value=0.0), up(time=NOW + number, job="b")], message)
    assert federation.sink.samples(__name__="up", _id="one") == [(NOW, 0.0), (NOW + 1, 0.0), (NOW + 2, 0.0)]
    assert reply.get("x-prometheus-remote-write-samples-written") == ("2" if message == requests.V2 else None)
    assert federation.metric('streamgauge_ingested_samples_total{source="receive"}') == 6


@pytest.mark.parametrize("message", [requests.V1, requests.V2])
@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (Series({"__name__": "up"}, [(NOW, 1.0)]), BadInput, "a required label is missing from the metric: _id"),
        (up(""), BadInput, "a required label is missing"),
        (Series({"__name__": "up", "_ID": "one"}, [(NOW, 1.0)]), BadInput, "a required label is missing"),
        (up("two"), PushRefused, "expected label _id to have value one instead of two"),
        (up("оne"), PushRefused, "instead of оne"),
        (Series([("__name__", "up"), ("_id", "one"), ("_id", "two")], [(NOW, 1.0)]), BadInput, "more than once"),
        (Series([("__name__", "up"), ("__name__", "x"), ("_id", "one")], [(NOW, 1.0)]), BadInput, "more than once"),
        (Series([("__name__", "up"), ("_id", b"\xff")], [(NOW, 1.0)]), BadInput, "not UTF-8"),
    ],
)
async def test_no_series_of_another_cluster_gets_in_and_nothing_beside_it(
    federation: Federation, bad: Series, error: type[Exception], words: str, message: str
) -> None:
    for attempt in ([up(job="good"), bad], [bad, up(job="good")], [bad]):
        with pytest.raises(error, match=words):
            await federation.write(attempt, message)
    assert federation.sink.series() == []


async def test_spellings_of_one_cluster_do_not_resolve_for_another(federation: Federation) -> None:
    for _ in range(2):
        await federation.write([up()])
        with pytest.raises(PushRefused, match="to have value two instead of one"):
            await federation.write([up()], cluster="two")
    with pytest.raises(PushRefused):  # nor after the token's other labels have changed
        await federation.write([up(env="a")], env="b")


@pytest.mark.parametrize("message", [requests.V1, requests.V2])
async def test_series_may_get_the_label_of_a_cluster_that_somebody_else_tells(
    federation: Federation, message: str
) -> None:
    told = ClusterIdentity("one", {"_id": "one"}, adds=True)
    encode = requests.v1 if message == requests.V1 else requests.v2
    bare = [Series({"__name__": "up"}, [(NOW, 1.0)]), up("", NOW + 1), up(time=NOW + 2)]

    async def write(sender: ClusterIdentity, series: list[Series]) -> None:
        body = body_of(requests.snappy(encode(series)))
        await federation.receiver.receive(sender, requests.headers(message), body)

    for _ in range(2):
        await write(told, bare)
        with pytest.raises(PushRefused, match="to have value one instead of two"):
            await write(told, [*bare, up("two")])
        with pytest.raises(BadInput, match="a required label is missing"):  # what is known of it so is not known else
            await write(identity(), bare)
    assert federation.sink.series() == [{"__name__": "up", "_id": "one"}]
    assert federation.sink.samples(__name__="up", _id="one") == [(NOW, 1.0), (NOW + 1, 1.0), (NOW + 2, 1.0)]


@pytest.mark.parametrize("message", [requests.V1, requests.V2])
async def test_the_whitelist_sees_all_labels_and_the_other_rules_apply(federate: Federate, message: str) -> None:
    rules = (rule(_id="one", job="a"), rule(__name__="other"))
    federation = federate(replace(EVERYTHING, whitelist=rules, labels=(("env", "x"),), elide_labels=("secret",)))
    for _ in range(2):
        await federation.write([up(job="a", secret="s"), up(job="b"), up(job="b", z="9")], message)
    assert federation.sink.series() == [{"__name__": "up", "_id": "one", "env": "x", "job": "a"}]
    assert federation.metric('streamgauge_push_left_out_samples_total{source="receive"}') == 4
    with pytest.raises(BadInput, match="empty remote write request after telemeter processing"):
        await federation.write([up(job="b")], message)


async def test_an_empty_whitelist_denies_all(federate: Federate) -> None:
    federation = federate(replace(EVERYTHING, whitelist=()))
    with pytest.raises(BadInput, match="empty remote write request"):
        await federation.write([up()])


async def test_metadata_alone_is_stored(federation: Federation) -> None:
    await federation.write_body(requests.snappy(requests.v1([], {"up": ("gauge", "Whether it is up.", "")})))
    assert federation.sink.metadata["up"].help == "Whether it is up."


async def test_metadata_is_held_against_the_whitelist(federate: Federate) -> None:
    told = dict.fromkeys(["a", "b", "c", *(f"d{number}" for number in range(200))], ("gauge", "Help.", ""))
    rules = (rule(__name__="a", job="x"), rule(__name__="b_bucket"))
    for whitelist, kept in ((rules, ["a", "b"]), ((), []), ((rule(job="x"),), sorted(told))):
        federation = federate(replace(EVERYTHING, whitelist=whitelist))
        await federation.write_body(requests.snappy(requests.v1([], told)))
        assert sorted(federation.sink.metadata) == kept


async def test_times_that_are_not_taken_are_left_out_and_named(federation: Federation) -> None:
    with pytest.raises(BadInput, match=r"1 samples were stored; 1 items were not: 1 too_new"):
        await federation.write([up(), up(time=NOW + 10 * 60_000 + 1, job="b")])
    assert federation.sink.series() == [{"__name__": "up", "_id": "one"}]


async def test_sizes_are_limited_before_and_after_decompression(federate: Federate) -> None:
    content = requests.v1([up(job="x" * 200)])
    block = requests.snappy(content)
    for settings, fits in (
        ({"limit_receive_bytes": len(block), "limit_receive_content_bytes": len(content)}, True),
        ({"limit_receive_bytes": len(block) - 1}, False),
        ({"limit_receive_content_bytes": len(content) - 1}, False),
    ):
        federation = federate(replace(EVERYTHING, **settings))
        if fits:
            await federation.write_body(block)
        else:
            with pytest.raises(TooLarge):
                await federation.write_body(block)
    bomb = b"\xff\xff\xff\xff\x0f" + b"\xfe\x01\x00" * 100
    with pytest.raises(TooLarge, match="decompresses to 4294967295 bytes"):
        await federation.write_body(bomb)


@pytest.mark.parametrize("body", [b"", b"plain", requests.snappy(b"\x0a\xff")])
async def test_an_undecodable_body_is_the_clients_fault(federation: Federation, body: bytes) -> None:
    with pytest.raises(BadInput):
        await federation.write_body(body)


async def test_a_foreign_content_type_is_415(federation: Federation) -> None:
    with pytest.raises(UnsupportedMedia):
        await federation.receiver.receive(identity(), {"content-type": "text/plain"}, body_of(b""))


async def test_a_remote_write_that_comes_too_soon_waits_and_is_refused_where_too_many_do(federate: Federate) -> None:
    """Prometheus throws away what is refused with 429, unless it is told not to."""
    federation = federate(replace(EVERYTHING, receive_ratelimit=1000, receive_burst=2))

    def stored() -> int:
        return len(federation.sink.samples(__name__="up", _id="one"))

    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(federation.write([up(time=NOW + number)]))
            await asyncio.sleep(0)
        await until(lambda: stored() == 2)
        assert federation.clock.sleepers == 10
        with pytest.raises(RateLimited, match='write limit reached for cluster with id "one"') as caught:
            await federation.receiver.receive(identity(), requests.headers(), unread())
        assert caught.value.retry_after == 11
        await federation.write([up("two")], cluster="two")  # others are unaffected
        for number in range(10):
            await federation.clock.advance(1)
            await until(lambda number=number: stored() == number + 3)  # type: ignore[misc]
    assert federation.metric('streamgauge_push_delayed_total{source="receive"}') == 10
    assert federation.metric('streamgauge_push_rate_limited_total{source="receive"}') == 1


async def test_no_more_than_so_many_wait_whoever_they_are(federate: Federate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushes, "MAX_WAITING", 3)
    federation = federate(replace(EVERYTHING, receive_ratelimit=1000, receive_burst=1))
    async with asyncio.TaskGroup() as group:
        for cluster in ("one", "two"):
            for number in range(2):
                group.create_task(federation.write([up(cluster, time=NOW + number)], cluster=cluster))
                await asyncio.sleep(0)
        gone = group.create_task(federation.write([up(time=NOW + 2)]))
        await until(lambda: federation.clock.sleepers == 3)
        with pytest.raises(RateLimited, match='write limit reached for cluster with id "two"'):
            await federation.receiver.receive(identity("two"), requests.headers(), unread())
        await federation.write([up("three")], cluster="three")  # who need not wait are unaffected
        gone.cancel()
        await until(lambda: federation.clock.sleepers == 2)
        group.create_task(federation.write([up("two", time=NOW + 2)], cluster="two"))
        await until(lambda: federation.clock.sleepers == 3)
        for _ in range(2):
            await federation.clock.advance(1)
    assert [len(federation.sink.samples(__name__="up", _id=one)) for one in ("one", "two", "three")] == [2, 3, 1]


async def unread() -> AsyncIterator[bytes]:
    raise AssertionError("the body was read")
    yield b""


@pytest.mark.parametrize("end", ["refused", "gone"])
async def test_a_turn_that_comes_to_nothing_is_another_remote_writes(federate: Federate, end: str) -> None:
    federation = federate(replace(EVERYTHING, receive_ratelimit=60_000, receive_burst=1))
    for _ in range(3):
        if end == "refused":
            with pytest.raises(BadInput):
                await federation.write_body(b"plain")
        else:
            sending = asyncio.ensure_future(federation.receiver.receive(identity(), requests.headers(), forever()))
            await asyncio.sleep(0)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    await federation.write([up()])
    with pytest.raises(RateLimited) as caught:
        await federation.write([up()])
    assert caught.value.retry_after == 60


async def forever() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


async def test_the_series_of_a_cluster_are_limited(federate: Federate) -> None:
    federation = federate(replace(EVERYTHING, max_series=2))
    for _ in range(2):
        await federation.write([up(job="a"), up(job="b")])
        with pytest.raises(PushRefused, match="has 3 series; the limit is 2"):
            await federation.write([up(job="a"), up(job="c")])
    assert federation.metric('streamgauge_push_beyond_limit_total{limit="series",source="receive"}') == 2


async def test_series_that_were_pruned_are_found_again(federation: Federation) -> None:
    for number in range(3):
        await federation.write([up(time=NOW + number)])
        federation.sink.prune()
    assert len(federation.sink.batches) == 3


@pytest.mark.parametrize("passes", range(12))
async def test_series_may_be_pruned_at_any_turn(clock: ManualClock, passes: int) -> None:
    """Ids of before are neither appended nor remembered."""
    sink, stats = MemorySink(), Stats()
    receiver = receiver_of(sink, stats, clock, turns=Turns(clock, seconds=0))  # each turn waits for a pass of the loop
    federation = Federation(clock, sink, stats, receiver)
    await federation.write([up(), up(job="b")])
    async with asyncio.TaskGroup() as group:
        group.create_task(federation.write([up(time=NOW + 1), up(time=NOW + 1, job="b")]))
        for _ in range(passes):
            await asyncio.sleep(0)
        sink.prune()
        await federation.write([up("two")], cluster="two")
    await federation.write([up(time=NOW + 2)])
    assert (NOW + 2, 1.0) in sink.samples(__name__="up", _id="one")


class Gone(Exception):
    """As a listener raises it when a client goes away before the end of its request."""


async def cut_off() -> AsyncIterator[bytes]:
    yield b"\x0a"
    raise Gone


async def test_who_goes_away_is_counted_as_no_push_and_costs_nothing(federate: Federate) -> None:
    federation = federate(replace(EVERYTHING, ratelimit=60_000, burst=1, receive_ratelimit=60_000, receive_burst=1))
    for _ in range(2):
        with pytest.raises(Gone):
            await federation.receiver.upload(identity(), HEADERS, cut_off())
        with pytest.raises(Gone):
            await federation.receiver.receive(identity(), requests.headers(), cut_off())
    for source in ("upload", "receive"):
        assert federation.metric(f'streamgauge_ingest_requests_total{{code="200",source="{source}"}}') == 0
    await federation.write([up()])
    await federation.upload(family("up", [(labels(), 1.0, NOW)]))
