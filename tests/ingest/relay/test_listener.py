"""What relays say and are told, over real connections and by a clock that the test moves."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import ReadOnly
from streamgauge.ingest.relay import connection, listener
from streamgauge.ingest.relay.settings import RelaySettings
from streamgauge.ingest.relay.values import Collector
from streamgauge.model.arrays import STALE_BITS
from streamgauge.testing.until import until

if TYPE_CHECKING:
    from conftest import Relays

    StartRelays = Callable[..., Awaitable[Relays]]

pytestmark = pytest.mark.anyio


async def test_a_relay_is_asked_and_its_values_are_stored_with_its_tags(relays: Relays, clock: ManualClock) -> None:
    relay = await relays.relay("web1", "cpu:dc:a,metrics,", "disk:host:other,dc:b")
    await relays.asked(relay)
    assert relay.read == "ok\nbeat 30\nok\nok\nget cpu,disk\n"
    relay.say("got cpu-cpu:1.5000,disk-sda:-2.0,disk-sd-b:3\n")
    await until(lambda: relays.sink.appends)
    time = clock.now_ms()
    assert relays.sink.samples(__name__="cpu", host="web1", dc="a") == [(time, 1.5)]
    assert relays.sink.samples(__name__="sda", host="web1", dc="b") == [(time, -2.0)]
    assert relays.sink.samples(__name__="sd-b", host="web1", dc="b") == [(time, 3.0)]


async def test_each_is_asked_once_in_each_interval(start: StartRelays, clock: ManualClock) -> None:
    relays = await start(RelaySettings(poll=10))
    all_of_them = [await relays.relay(f"relay{number}", "cpu") for number in range(20)]
    await relays.asked(*all_of_them)
    before = [relay.read.count("get cpu\n") for relay in all_of_them]
    for _ in range(30):
        await relays.passes(1.0)
    for relay, count in zip(all_of_them, before, strict=True):
        await until(lambda relay=relay, count=count: relay.read.count("get cpu\n") == count + 3)


async def test_what_is_no_value_is_counted_and_the_rest_of_the_line_counts(relays: Relays) -> None:
    relay = await relays.relay("a", "cpu")
    for _ in range(2):  # of names seen for the first time, and then again
        relay.say("got cpu-x:1,,cpu-y:abc,cpu-z:nan,cpu:4,nothing,other-x:1,cpu-w:1:2,cpu-last:9\n")
    await until(lambda: len(relays.sink.series()) == 2 and relays.refused("unknown_collector") == 2)
    assert relays.sink.samples(__name__="last", host="a")[-1][1] == 9
    assert relays.refused("invalid_number") == 6
    assert relays.refused("invalid_item") == 4


async def test_who_does_not_say_who_it_is_is_told_and_sent_away(relays: Relays) -> None:
    for said, answer, reason in (
        ("ping\n", "identify first with the 'id' command\n", "unidentified"),
        ("id\n", "missing id\n", "missing_id"),
        ("id  \n", "missing id\n", "missing_id"),
        (f"id {'x' * 300}\n", "missing id\n", "missing_id"),
    ):
        before = relays.ended(reason)
        client = await relays.connect(said)
        await until(lambda client=client: client.over)
        assert client.read == answer
        assert relays.ended(reason) == before + 1


async def test_pings_are_answered_and_unknown_commands_are_not(relays: Relays) -> None:
    relay = await relays.relay("a")
    relay.say("what\nping\nok\nadd a-b\nremove nothing\nremove\nping")
    await relay.hears("ok\nbeat 30\npong\nok\nok\n")
    relay.say("\n")
    await relay.hears("ok\nbeat 30\npong\nok\nok\npong\n")
    assert relays.refused("unknown_command") == 1
    assert relays.refused("invalid_collector") == 1
    relay.say("close\n")
    await until(lambda: relay.over)
    assert not relays.listener.relays


async def test_who_is_silent_for_two_beats_is_dropped(relays: Relays, clock: ManualClock) -> None:
    silent, alive = await relays.relay("silent"), await relays.relay("alive")
    nobody = await relays.connect()
    await until(lambda: len(relays.listener._connections) == 3)
    for _ in range(2):
        await relays.passes(31)
        before = alive.read.count("pong")
        alive.say("ping\n")
        await until(lambda before=before: alive.read.count("pong") > before)
    await until(lambda: silent.over and nobody.over)
    assert list(relays.listener.relays) == ["alive"]
    assert relays.ended("silent") == relays.ended("unidentified") == 1


async def test_the_same_id_replaces_the_earlier_connection_for_good(relays: Relays, clock: ManualClock) -> None:
    first = await relays.relay("a", "cpu")
    second = await relays.relay("a", "cpu")
    await until(lambda: first.over)
    assert list(relays.listener.relays) == ["a"]
    await relays.asked(second)
    second.say("got cpu-cpu:7\n")
    await until(lambda: relays.sink.appends)
    assert relays.ended("replaced") == 1


async def test_other_tags_make_other_series(relays: Relays) -> None:
    relay = await relays.relay("a", "cpu:dc:a")
    relay.say("got cpu-x:1\nadd cpu:dc:b\ngot cpu-x:2\nremove cpu\ngot cpu-x:3\n")
    await until(lambda: relays.refused("unknown_collector") and len(relays.sink.series()) == 2)
    assert [value for _, value in relays.sink.samples(__name__="x", host="a", dc="b")] == [2]


async def test_override_and_flush_reach_those_who_are_connected(relays: Relays) -> None:
    relay, other = await relays.relay("a", "cpu", "disk"), await relays.relay("b", "disk")
    assert relays.listener.override(60, {"cpu": 1, "load": 2}) == 1
    assert relays.listener.flush() == 2
    await relay.hears("ok\nbeat 30\nok\nok\noverride 60 cpu:1\nflush\n")
    await other.hears("ok\nbeat 30\nok\nflush\n")


async def test_series_that_were_pruned_are_asked_for_again(relays: Relays) -> None:
    relay = await relays.relay("a", "cpu")
    relay.say("got cpu-x:1\n")
    await until(lambda: relays.sink.appends == 1)
    relays.sink.prune()
    relay.say("got cpu-x:2\n")
    await until(lambda: relays.sink.appends == 2)
    assert relays.refused("overload") == 0


async def test_what_the_store_refuses_is_counted(relays: Relays) -> None:
    relay = await relays.relay("a", "cpu")
    relay.say("got cpu-x:1\n")
    await until(lambda: relays.sink.appends)
    relays.sink.failure = ReadOnly("the disk is full")
    relay.say("got cpu-x:2,cpu-y:3\n")
    await until(lambda: relays.refused("read_only") == 2)
    relays.sink.failure = None
    relay.say("got cpu-x:4\n")
    await until(lambda: relays.sink.appends == 2)


async def test_only_those_from_allowed_networks_are_heard(start: StartRelays) -> None:
    relays = await start(RelaySettings(allow=(ipaddress.ip_network("10.0.0.0/8"),)))
    client = await relays.connect("id a\n")
    await until(lambda: client.over)
    assert client.read == ""
    assert relays.ended("not_allowed") == 1
    assert not relays.listener.allows("")


async def test_garbage_and_long_lines_leave_the_others_alone(relays: Relays, clock: ManualClock) -> None:
    bad, good = await relays.relay("bad", "cpu"), await relays.relay("good", "cpu")
    bad.writer.write(b"\xff\x00\xfe" * 1000 + b"\n" + b"got " + b"x" * 900_000 + b"\n" + b"got cpu-\xff:1\n")
    good.say("got cpu-cpu:1\n")
    await until(lambda: relays.sink.appends and relays.refused("invalid_labels"))
    assert relays.refused("line_too_long") == 1
    assert relays.refused("unknown_command") == 1
    assert relays.sink.samples(__name__="cpu", host="good")


async def test_who_floods_is_read_slower(relays: Relays, clock: ManualClock) -> None:
    flood = await relays.relay("flood", "cpu")
    flood.writer.write(b"ping\n" * 500_000)
    await until(lambda: relays.refused("slowed_down"))
    answered = len(flood.read)
    good = await relays.relay("good", "cpu")
    good.say("got cpu-cpu:1\n")
    await until(lambda: relays.sink.appends)
    assert answered < 2_000_000
    while relays.ended("not_reading") + (len(flood.read) > answered + 1000) < 1:
        await relays.passes(1)


async def test_made_up_names_are_bounded(relays: Relays, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_STATS", 100)
    relay = await relays.relay("a", "cpu")
    for first in (0, 1000):
        await until(lambda first=first: len(relays.sink.series()) >= min(first, 100))
        relay.say("got " + ",".join(f"cpu-x{first + number}:1" for number in range(500)) + "\n")
    await until(lambda: relays.refused("stat_limit") >= 500)
    monkeypatch.setattr(connection, "MAX_COLLECTORS", 2)
    relay.say("add a\nadd b\nadd c\n")
    await until(lambda: relays.refused("collector_limit") == 2)


async def test_names_that_are_too_long_are_counted(relays: Relays) -> None:
    relay = await relays.relay("a", "cpu")
    relay.say(
        f"add {'c' * 256}\nadd c:{'t' * 256}\nadd c:{'t,' * 64}t\ngot cpu-{'s' * 256}:1,{' ' * 600}cpu-s:1,cpu-x:2\n"
    )
    await until(lambda: relays.sink.appends)
    assert relays.refused("invalid_collector") == 3
    assert relays.refused("invalid_item") == 2
    assert list(relays.listener.relays["a"].collectors) == [b"cpu"]


async def test_collectors_of_one_relay_take_bounded_memory(relays: Relays, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_COLLECTORS_BYTES", 50_000)
    relay = await relays.relay("a", "cpu")
    tags = ",".join(f"k{number}:v" for number in range(64))
    for _ in range(2):  # what is taken away leaves room
        before = len(relay.read)
        relay.say("".join(f"add c{number}:{tags}\n" for number in range(10)))
        relay.say("".join(f"remove c{number}\n" for number in range(10)) + "ping\n")
        await until(lambda before=before: "pong" in relay.read[before:])
        assert relay.read[before:] == "ok\n" * 12 + "pong\n"
    assert relays.refused("collector_limit") == 16


async def test_others_have_their_turn_while_a_long_line_is_told(relays: Relays) -> None:
    told: list[str] = []
    long, short = await relays.relay("long", "c"), await relays.relay("short", "c")

    def tell(host: str, collector: Collector, name: bytes, text: bytes) -> None:
        if not told:
            short.say("got c-a:1\n")
        told.append(host)

    relays.listener.live = tell
    long.say("got " + "c-a:1," * 10_000 + "c-last:2\ngot c-end:3\n")
    await until(lambda: len(told) == 10_003 and relays.sink.samples(__name__="end", host="long") != [])
    assert told.index("short") < 10_000
    long.say("got c-end:4\n")  # it is read on
    await until(lambda: len(told) == 10_004)


async def test_who_has_much_told_with_few_bytes_is_read_slower(relays: Relays, clock: ManualClock) -> None:
    told: list[bytes] = []
    relays.listener.live = lambda host, collector, name, text: told.append(text)
    wide = await relays.relay("wide", "c:" + ",".join(f"k{number:02}:{'v' * 250}" for number in range(64)))
    wide.say("got " + "c-a:1," * 1_500 + "c-end:1\n")
    await until(lambda: relays.refused("slowed_down"))
    await until(lambda: len(told) == 1_501 and relays.sink.appends)
    wide.say("got c-a:2\n")
    await relays.passes(2)
    assert b"2" not in told
    while b"2" not in told:
        await relays.passes(2)


async def test_a_storm_of_connections(relays: Relays) -> None:
    for _ in range(4):
        clients = await asyncio.gather(*(relays.connect(f"id relay{number % 50}\nadd cpu\n") for number in range(100)))
        await until(lambda: len(relays.listener.relays) == 50)
        for client in clients[:50]:
            await until(lambda client=client: client.over)
    assert len(relays.listener.relays) == 50


def is_stale(relays: Relays, time: int, **labels: str) -> bool:
    return (time, STALE_BITS) in relays.sink.bits(**labels)


async def test_a_relay_that_goes_makes_its_series_stale_two_intervals_later(relays: Relays, clock: ManualClock) -> None:
    relay, other = await relays.relay("a", "cpu"), await relays.relay("b", "cpu")
    relay.say("got cpu-x:1,cpu-y:1\n")
    other.say("got cpu-x:1\n")
    await until(lambda: len(relays.sink.series()) == 3)
    gone = clock.now_ms() + 60_000
    relay.writer.transport.abort()
    await until(lambda: "a" not in relays.listener.relays)
    await relays.passes(100)
    other.say("ping\n")
    assert not is_stale(relays, gone, __name__="x", host="a")
    await relays.passes(30)
    await until(lambda: is_stale(relays, gone, __name__="x", host="a"))
    assert is_stale(relays, gone, __name__="y", host="a")
    assert len(relays.sink.samples(__name__="x", host="b")) == 1


@pytest.mark.parametrize("said", ["remove cpu\n", "add cpu:dc:b\n"])
async def test_series_of_a_collector_that_goes_are_marked_and_no_others(
    relays: Relays, clock: ManualClock, said: str
) -> None:
    relay = await relays.relay("a", "cpu:dc:a", "disk")
    relay.say("got cpu-x:1,disk-y:1\n")
    await until(lambda: len(relays.sink.series()) == 2)
    relay.say(said + "ping\n")
    await until(lambda: "pong" in relay.read)
    known = relays.listener.relays["a"].series(relays.sink.generation)
    assert len(known) == 1
    await relays.passes(1)
    gone = clock.now_ms() + 60_000
    for _ in range(5):
        await relays.passes(27)
        before = relay.read.count("pong")
        relay.say("ping\n")
        await until(lambda before=before: relay.read.count("pong") > before)
    await until(lambda: is_stale(relays, gone, __name__="x", host="a", dc="a"))
    relay.writer.transport.abort()
    await until(lambda: not relays.listener.relays)
    gone = clock.now_ms() + 60_000
    assert [value for _, value in relays.sink.samples(__name__="y", host="a")] == [1]
    await relays.passes(130)
    await until(lambda: is_stale(relays, gone, __name__="y", host="a"))


@pytest.mark.parametrize("way", ["gone and back", "replaced"])
async def test_what_a_relay_brings_again_is_not_stale(relays: Relays, clock: ManualClock, way: str) -> None:
    relay = await relays.relay("a", "cpu")
    relay.say("got cpu-x:1,cpu-y:1\n")
    await until(lambda: len(relays.sink.series()) == 2)
    gone = clock.now_ms() + 60_000
    if way == "gone and back":
        relay.writer.transport.abort()
        await until(lambda: not relays.listener.relays)
    again = await relays.relay("a", "cpu")
    again.say("got cpu-x:2\n")
    await until(lambda: len(relays.sink.samples(__name__="x", host="a")) == 1 and relays.sink.appends == 2)
    for _ in range(5):
        await relays.passes(27)
        again.say("ping\n")
        await until(lambda: again.read.endswith("pong\n"))
    await until(lambda: is_stale(relays, gone, __name__="y", host="a"))
    assert not is_stale(relays, gone, __name__="x", host="a")


async def test_markers_that_wait_are_bounded(relays: Relays, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MAX_DEPARTED", 1)
    relay = await relays.relay("a", "cpu")
    relay.say("got cpu-x:1,cpu-y:1\n")
    await until(lambda: len(relays.sink.series()) == 2)
    relay.writer.transport.abort()
    await until(lambda: relays.refused("marker_limit") == 2)


async def test_a_clock_that_is_set_while_values_wait_loses_them_alone(relays: Relays, clock: ManualClock) -> None:
    relay = await relays.relay("a", "cpu")
    relay.say("got cpu-x:1\n")
    await until(lambda: relays.sink.appends == 1)
    now = clock.now_ms()
    for window, reason in (((0, now - 1), "too_new"), ((now + 1, now + 2), "too_old")):
        relays.sink.window = window
        relay.say("got cpu-x:2\n")
        await until(lambda reason=reason: relays.refused(reason) == 1)
    relays.sink.window = (0, 1 << 62)
    clock.jump(365 * 86_400_000)  # what comes now has the time that the server has now
    relay.say("got cpu-x:3\n")
    await until(lambda: relays.sink.samples(__name__="x", host="a")[-1] == (now + 365 * 86_400_000, 3.0))
    clock.jump(-365 * 86_400_000)
    relay.say("got cpu-x:4\n")
    await until(lambda: (now, 4.0) in relays.sink.samples(__name__="x", host="a"))


async def test_a_store_that_is_read_only_loses_values_and_no_relay(relays: Relays) -> None:
    """As it is while the disk is full: new series have no room either."""
    some = [await relays.relay(f"r{number}", "cpu") for number in range(20)]
    relays.sink.failure = relays.sink.refuse_series = ReadOnly("the disk is full")
    for relay in some:
        relay.say("got cpu-x:1,cpu-y:2\n")
    await until(lambda: relays.refused("read_only") == 40)
    assert len(relays.listener.relays) == 20
    relays.sink.failure = relays.sink.refuse_series = None
    for relay in some:
        relay.say("got cpu-x:3\n")
    await until(lambda: len(relays.sink.series()) == 20)
    assert not relays.listener._ended


async def test_who_claims_the_id_of_another_has_its_place_and_not_its_past(relays: Relays, clock: ManualClock) -> None:
    """Nothing is lost of what the other said, and the two that fight for it delay nobody."""
    good = await relays.relay("good", "cpu")
    owner = await relays.relay("owner", "cpu:dc:a")
    owner.say("got cpu-x:1\n")
    await until(lambda: relays.sink.appends == 1)
    for _ in range(20):
        thief = await relays.relay("owner", "cpu:dc:evil")
        thief.say("got cpu-x:666\n")
        await until(lambda: len(relays.sink.series()) == 2)
        owner = await relays.relay("owner", "cpu:dc:a")
        await until(lambda thief=thief: thief.over)
    assert relays.ended("replaced") == 40
    assert [value for _, value in relays.sink.samples(__name__="x", host="owner", dc="a")] == [1]
    await relays.asked(good)
    good.say("got cpu-x:2\n")
    await until(lambda: relays.sink.samples(__name__="x", host="good"))
    assert sorted(relays.listener.relays) == ["good", "owner"]
