"""What relays say and are told, over real connections and by a clock that the test moves."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import ReadOnly
from streamgauge.ingest.relay import connection
from streamgauge.ingest.relay.settings import RelaySettings
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


async def test_a_storm_of_connections(relays: Relays) -> None:
    for _ in range(4):
        clients = await asyncio.gather(*(relays.connect(f"id relay{number % 50}\nadd cpu\n") for number in range(100)))
        await until(lambda: len(relays.listener.relays) == 50)
        for client in clients[:50]:
            await until(lambda client=client: client.over)
    assert len(relays.listener.relays) == 50
