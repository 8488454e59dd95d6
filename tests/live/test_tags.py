from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from streamgauge.errors import Overloaded
from streamgauge.live import tags
from streamgauge.live.tags import Subscriber, TagHub

pytestmark = pytest.mark.anyio


def say(subscriber: Subscriber, command: str, *wanted: str, data: str = "") -> None:
    subscriber.handle(json.dumps({"command": command, "tags": wanted, "data": data}).encode())


async def waiting(subscriber: Subscriber) -> list[Any]:
    """What waits, and then a pong."""
    say(subscriber, "ping")
    *texts, pong = map(json.loads, await subscriber.next())
    assert pong == {"command": "ping", "tags": [], "data": "pong"}
    return texts


async def test_a_message_goes_once_to_who_wants_tags_that_it_has_all() -> None:
    hub = TagHub()
    one, other = hub.join(), hub.join()
    say(one, "subscribe", "host:a", "cpu")
    say(one, "subscribe", "metrics")
    say(other, "subscribe", "cpu", "host:b")
    hub.publish(["dc:x", "metrics", "host:a", "cpu"], "1.5")
    assert await waiting(one) == [{"command": "publish", "tags": ["dc:x", "metrics", "host:a", "cpu"], "data": "1.5"}]
    assert await waiting(other) == []


async def test_exactly_the_same_tags_end_a_subscription() -> None:
    hub = TagHub()
    one = hub.join()
    say(one, "subscribe", "a", "b")
    say(one, "unsubscribe", "a")
    say(one, "list")
    assert (await waiting(one))[0]["data"] == "a,b"
    say(one, "unsubscribe", "b", "a")
    hub.publish(["a", "b"], "1")
    assert await waiting(one) == []


async def test_nobody_hears_what_it_said_itself() -> None:
    hub = TagHub()
    one, other = hub.join(), hub.join()
    for each in (one, other):
        say(each, "subscribe", "a")
    say(one, "publish", "a", "b", data="hello")
    assert await waiting(one) == []
    assert await waiting(other) == [{"command": "publish", "tags": ["a", "b"], "data": "hello"}]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"command":"what"}', "Unknown Command"),
        (b"{}", "Unknown Command"),
        (b'{"command":"subscribe"}', "a subscription needs tags"),
        (b'{"command":"subscribe","tags":[1]}', "a list of texts"),
        (
            b'{"command":"subscribe","tags":' + json.dumps([str(n) for n in range(68)]).encode() + b"}",
            "at most 67 tags",
        ),
        (b'{"command":"subscribe","tags":["' + b"x" * 1025 + b'"]}', "at most 1024 bytes"),
        (b'{"command":"' + b"x" * 1025 + b'"}', "at most 1024 bytes"),
        (b'{"command":"publish","tags":["m"],"data":"\\ud800"}', "no text"),
        (b'{"command":"publish","tags":["\\udfff"],"data":"x"}', "no text"),
        (b'{"command":"\\ud800"}', "no text"),
        (b"[]", "a message is a JSON object"),
        (b"\xff", "no JSON"),
        (b"[" * 60_000, "no JSON"),
    ],
)
async def test_what_makes_no_sense_is_answered(raw: bytes, words: str) -> None:
    one = TagHub().join()
    one.handle(raw)
    assert words in (await waiting(one))[0]["error"]


async def test_who_may_not_publish_is_told() -> None:
    hub = TagHub()
    one, other = hub.join(), hub.join()
    say(other, "subscribe", "a")
    one.handle(b'{"command":"publish","tags":["a"],"data":"x"}', publishes=False)
    assert "may not" in (await waiting(one))[0]["error"]
    assert await waiting(other) == []


async def test_who_reads_too_slowly_loses_the_oldest_and_it_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "MAX_WAITING", 3)
    hub = TagHub()
    slow = hub.join()
    say(slow, "subscribe", "a")
    for number in range(5):
        hub.publish(["a"], str(number))
    assert [json.loads(text)["data"] for text in await slow.next()] == ["2", "3", "4"]
    assert {reading.name: reading.values[()] for reading in hub.readings()} == {
        "streamgauge_live_subscribers": 1,
        "streamgauge_live_messages_total": 5,
        "streamgauge_live_messages_lost_total": 2,
    }


async def test_what_waits_for_one_is_bounded_in_bytes_and_handed_over_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "MAX_WAITING_BYTES", 50_000)
    monkeypatch.setattr(tags, "DELIVERY_BYTES", 25_000)
    hub = TagHub()
    slow = hub.join()
    say(slow, "subscribe", "a")
    for number in range(10):
        hub.publish(["a"], f"{number}" + "x" * 10_000)
    parts = [[json.loads(text)["data"][0] for text in await slow.next()] for _ in range(2)]
    assert parts == [["6", "7"], ["8", "9"]]
    hub.publish(["a"], "x" * 60_000)  # more than may wait, but it is alone
    assert len(await slow.next()) == 1
    assert {reading.name: reading.values[()] for reading in hub.readings()}["streamgauge_live_messages_lost_total"] == 6


async def test_the_tags_of_all_subscriptions_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "MAX_SUBSCRIPTIONS_BYTES", 1_000)
    one = TagHub().join()
    for letter in "abc":
        say(one, "subscribe", letter * 400)
    say(one, "unsubscribe", "a" * 400)
    say(one, "subscribe", "c" * 400)
    say(one, "list")
    refused, listed = await waiting(one)
    assert "at most 1000 bytes" in refused["error"]
    assert listed["data"] == "b" * 400 + " " + "c" * 400


async def test_who_has_gone_is_told_nothing_more() -> None:
    hub = TagHub()
    one = hub.join()
    say(one, "subscribe", "a")
    one.close()
    say(one, "subscribe", "a")
    hub.publish(["a"], "1")
    assert await one.next() == []
    assert not hub._index._under


async def test_subscribers_and_subscriptions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "MAX_SUBSCRIBERS", 1)
    monkeypatch.setattr(tags, "MAX_SUBSCRIPTIONS", 1)
    changes: list[bool] = []
    note: Callable[[bool], None] = changes.append
    hub = TagHub(note)
    one = hub.join()
    with pytest.raises(Overloaded):
        hub.join()
    say(one, "subscribe", "a")
    say(one, "subscribe", "b")
    assert "at most 1" in (await waiting(one))[0]["error"]
    hub.close()
    assert await one.next() == []
    assert changes == [True, False]
