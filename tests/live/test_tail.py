"""What is stored, as live tails see it over HTTP."""

from __future__ import annotations

import asyncio

import pytest

from streamgauge.live.hub import HEARTBEAT_SECONDS, TailLimits
from streamgauge.model.labels import key_of
from streamgauge.model.owned import owned_headers
from streamgauge.testing.lives import NOON, batch_of
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio


async def test_an_event_is_seen_as_it_is_stored(stand):
    reader = await stand.tail()
    assert reader.response.headers["content-type"] == "text/event-stream"
    assert reader.response.headers["cache-control"] == "no-store"
    stream = stand.stream()
    assert await stand.write(stream, 1, {"level": "INFO", "message": "é"}, '"x\\ny"') == 3
    first, second = await reader.take(2)
    assert first == {
        "stream_id": stream.id,
        "stream_event_index": 1,
        "time": "2023-11-14T12:00:00.000000000Z",
        "payload": {"level": "INFO", "message": "é"},
    }
    assert second["payload"] == "x\ny"
    assert reader.parser.id == "2023-11-14T12:00:00.000000000Z/2"


async def test_the_head_of_a_tail_ends(stand):
    answer = await stand.http.head("/api/v1/tail")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    assert stand.hub.open == 0


async def test_a_payload_of_many_lines_is_one_message(stand):
    reader = await stand.tail()
    await stand.write(stand.stream(), 1, '{\r\n "a": [\n1,\n2]\n}')
    assert (await reader.next()).json["payload"] == {"a": [1, 2]}


async def test_history_is_followed_without_a_gap(stand):
    stream, other = stand.stream(), stand.stream()
    await stand.write(stream, 1, 1, 2)
    await stand.clock.advance(1)
    await stand.write(other, 1, 3)
    await stand.clock.advance(1)
    await stand.write(stream, 3, 4)
    reader = await stand.tail(since="5m")
    assert [event["payload"] for event in await reader.take(4)] == [1, 2, 3, 4]
    await stand.write(other, 2, 5)
    assert (await reader.next()).json["payload"] == 5
    later = await stand.tail(since="500ms")
    assert [event["payload"] for event in await later.take(2)] == [4, 5]
    at = await stand.tail(since="2023-11-14T12:00:01Z")
    assert [event["payload"] for event in await at.take(3)] == [3, 4, 5]


async def test_a_tail_resumes_after_the_last_event_that_it_had(stand):
    stream = stand.stream()
    reader = await stand.tail()
    await stand.write(stream, 1, 1, 2, 3)
    await stand.write(stand.stream(), 1, '"a"')
    seen = [await reader.next() for _ in range(2)]
    await reader.response.aclose()
    await stand.write(stream, 4, 4)
    resumed = await stand.tail({"Last-Event-ID": seen[-1].id}, since="1h")
    assert [event["payload"] for event in await resumed.take(3)] == [3, "a", 4]
    await stand.write(stream, 5, 5)
    assert (await resumed.next()).json["payload"] == 5


async def test_the_position_at_the_beginning_is_enough_to_resume(stand):
    await stand.write(stand.stream(), 1, 0)
    reader = await stand.tail()
    await reader.response.aclose()
    await stand.write(stand.stream(), 1, 1)
    resumed = await stand.tail({"Last-Event-ID": reader.parser.id})
    assert (await resumed.next()).json["payload"] == 1


async def test_the_switch_to_live_is_exact_while_others_write(make_stand):
    """Writers, flushes and compactions go on while tails begin at any moment: each sees each event once, in order."""
    stand = await make_stand(TailLimits(buffer=64 << 20), head_events=200)
    streams = [stand.stream() for _ in range(4)]
    count, begun = 300, asyncio.Event()

    async def writes(stream, other):
        for first in range(1, count + 1, 3):
            await stand.clock.advance(0.001)
            await stand.write(stream, first, *range(first, first + 3))
            if first > count // 4:
                begun.set()

    async def maintains():
        while True:
            stand.store.events.head.seal()
            await stand.maintenance.events.flush(everything=True)
            await stand.maintenance.events.compact()
            await asyncio.sleep(0)

    async def follows(**parameters):
        await begun.wait()
        reader = await stand.tail(since="1h", **parameters)
        wanted = len(streams) if "stream" not in parameters else 1
        return await reader.take(count * wanted)

    maintaining = asyncio.create_task(maintains())
    async with asyncio.TaskGroup() as group:
        for number, stream in enumerate(streams):
            group.create_task(writes(stream, number))
        tails = [group.create_task(follows()) for _ in range(4)]
        one = group.create_task(follows(stream=str(streams[0].id)))
    assert not maintaining.done(), maintaining.result()
    maintaining.cancel()
    for tail in tails:
        for stream in streams:
            seen = [event["stream_event_index"] for event in tail.result() if event["stream_id"] == stream.id]
            assert seen == list(range(1, count + 1))
    assert [event["payload"] for event in one.result()] == list(range(1, count + 1))


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"filter": "level=ERROR"}, [1, 4]),
        ({"filter": ["level=ERROR", "http.status>=500"]}, [1]),
        ({"filter": "http.status<500"}, [2]),
        ({"filter": "level!=ERROR"}, [2, 3, 5]),
        ({"filter": "message~time ?out"}, [4]),
        ({"filter": "message!~time"}, [1, 2, 3, 5]),
        ({"text": "timeout"}, [4, 5]),
        ({"stream": "named"}, [2, 3, 4, 5]),
        ({"stream": "1"}, [1]),
        ({"stream": ["1", "named"], "text": "ERROR"}, [1, 4]),
    ],
)
async def test_filters_hold_for_history_and_for_what_follows(stand, parameters, expected):
    live = await stand.tail(**parameters)
    await stand.write(stand.stream(), 1, {"n": 1, "level": "ERROR", "http": {"status": 503}})
    named = stand.stream("named")
    await stand.write(
        named,
        1,
        {"n": 2, "level": "INFO", "http": {"status": 404}},
        {"n": 3, "http": {"status": "none"}},
        {"n": 4, "level": "ERROR", "message": "timeout"},
        {"n": 5, "why": "timeout"},
    )
    assert [event["payload"]["n"] for event in await live.take(len(expected))] == expected
    past = await stand.tail(since="1h", **parameters)
    assert [event["payload"]["n"] for event in await past.take(len(expected))] == expected


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"kind": "spans"}, "not one of events, samples"),
        ({"filter": "level"}, "is no condition"),
        ({"filter": "a..b=1"}, "is no condition"),
        ({"filter": "message~("}, "invalid regular expression"),
        ({"filter": 'level="ERR'}, "no JSON string"),
        ({"text": ""}, "a condition is empty"),
        ({"text": "x" * 1025}, "at most 1024 bytes"),
        ({"filter": ["a=1"] * 33}, "at most 32 conditions"),
        ({"match": "up"}, "match is for samples"),
        ({"kind": "samples", "text": "x"}, "are for events"),
        ({"kind": "samples", "match": "{"}, "parse"),
        ({"since": "yesterday"}, "no duration such as 5m"),
        ({"since": "2026-13-01T00:00:00Z"}, "no time"),
    ],
)
async def test_what_is_wrong_is_said(stand, parameters, words):
    answer = await stand.http.get("/api/v1/tail", params=parameters)
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert stand.hub.limits.tails == 200


async def test_samples_are_seen_with_their_labels(stand):
    up, down = (key_of({"__name__": "up", "job": job}) for job in ("api", "db"))
    bits = {1.5: 0x3FF8000000000000, "inf": 0x7FF0000000000000, "stale": 0x7FF0000000000002}
    before = [(up, NOON - 60_000, bits[1.5]), (down, NOON - 60_000, bits[1.5]), (up, NOON - 30_000, bits["stale"])]
    await stand.store.append(batch_of(stand.store, before))
    live = await stand.tail(kind="samples", match='{job="api"}')
    past = await stand.tail(kind="samples", match=['up{job="api"}', '{job=~"a.*|x"}'], since="5m")
    await stand.store.append(batch_of(stand.store, [(up, NOON, bits["inf"]), (down, NOON, bits[1.5])]))
    labels = {"__name__": "up", "job": "api"}
    now = {"labels": labels, "time": "2023-11-14T12:00:00.000Z", "value": "+Inf"}
    assert await live.take(1) == [now]
    assert await past.take(2) == [{"labels": labels, "time": "2023-11-14T11:59:00.000Z", "value": 1.5}, now]


async def test_a_slow_reader_is_told_what_it_lost_and_slows_nobody(make_stand):
    stand = await make_stand(TailLimits(buffer=256 << 10))
    slow, fast = await stand.tail(), await stand.tail()
    stream = stand.stream()
    count, text = 0, "x" * 1000
    reading = []
    while not stand.hub.lost:
        await stand.write(stream, count + 1, *[{"n": n, "text": text} for n in range(count, count + 64)])
        count += 64
        reading += await fast.take(64)
    assert [event["payload"]["n"] for event in reading] == list(range(count))
    expected = 0
    lost = 0
    while expected < count:
        event = await slow.next()
        if event.event == "lost":
            assert event.json["unchecked"] == 0
            lost += event.json["lost"]
            expected += event.json["lost"]
        else:
            assert event.json["payload"]["n"] == expected
            expected += 1
    assert lost == stand.hub.lost > 0


async def test_a_silent_tail_shows_that_it_is_alive(stand):
    reader = await stand.tail()
    await stand.clock.advance(HEARTBEAT_SECONDS)
    await reader.comment()


async def test_there_are_only_so_many_tails(make_stand):
    stand = await make_stand(TailLimits(tails=1))
    first = await stand.tail()
    refused = await stand.http.get("/api/v1/tail")
    assert refused.status_code == 503
    assert "--max-tails" in refused.json()["error"]
    assert "retry-after" in refused.headers
    await first.response.aclose()
    await until(lambda: stand.hub.open == 0)
    await (await stand.tail()).response.aclose()


async def test_the_server_ends_tails_when_it_stops(stand):
    reader = await stand.tail()
    stand.hub.close()
    assert await reader.ended()
    assert (await stand.http.get("/api/v1/tail")).status_code == 503


async def test_an_event_too_large_to_show_is_named(stand):
    reader, looks = await stand.tail(), await stand.tail(filter="a=1")
    await stand.write(stand.stream(), 1, {"a": "x" * (2 << 20)})
    event = (await reader.next()).json
    assert event["payload"] is None
    assert event["payload_bytes"] > 2 << 20
    missing = await looks.next()
    assert (missing.event, missing.json) == ("lost", {"lost": 0, "unchecked": 1})


async def test_nothing_is_kept_while_nobody_listens(stand):
    await stand.write(stand.stream(), 1, 1)
    assert stand.hub.queued == 0
    samples = await stand.tail(kind="samples")
    await stand.write(stand.stream(), 1, 2)
    assert stand.hub.queued == 0
    await samples.response.aclose()


async def test_who_is_bound_follows_their_own_in_the_past_and_from_now_on(stand):
    own = stand.store.events.open_stream("http", owned_headers("a", "{}"))
    others = [stand.store.events.open_stream("http", headers) for headers in ("{}", owned_headers("b", "{}"))]
    keys = [key_of({"__name__": "up", "team": team}) for team in ("a", "b")]
    for stream in (*others, own):
        await stand.write(stream, 1, {"n": stream.id}, {"n": -stream.id})
    await stand.maintenance.events.flush(everything=True)
    await stand.store.append(batch_of(stand.store, [(key, NOON, n) for n, key in enumerate(keys)]))
    token = {"authorization": "Bearer a"}
    events = await stand.tail(token, since="1h")
    filtered = await stand.tail(token, since="1h", filter="n<0")
    by_number = await stand.tail(token, since="1h", stream=[str(stream.id) for stream in (own, *others)])
    samples = await stand.tail(token, since="1h", kind="samples", match='{team=~"a|b"}')
    foreign = await stand.tail(token, since="1h", kind="samples", match='{team="b"}')
    assert [each["payload"]["n"] for each in await events.take(2)] == [own.id, -own.id]
    assert [each["payload"]["n"] for each in await filtered.take(1)] == [-own.id]
    assert [each["payload"]["n"] for each in await by_number.take(2)] == [own.id, -own.id]
    assert [each["labels"]["team"] for each in await samples.take(1)] == ["a"]

    for stream in (*others, own):
        await stand.write(stream, 3, {"n": -100 - stream.id})
    await stand.store.append(batch_of(stand.store, [(key, NOON + 1, n) for n, key in enumerate(keys)]))
    for tail in (events, filtered, by_number):
        assert [each["payload"]["n"] for each in await tail.take(1)] == [-100 - own.id]
    assert [each["labels"]["team"] for each in await samples.take(1)] == ["a"]
    await until(lambda: not stand.hub.queued)
    await stand.clock.advance(HEARTBEAT_SECONDS)
    await foreign.comment()


async def test_when_others_stored_their_last_event_is_not_told(stand):
    token = {"authorization": "Bearer a"}
    before = await stand.tail(token, kind="events", filter="n=1")
    await before.begun()
    await stand.write(stand.stream(), 1, {"n": 1})
    after = await stand.tail(token, kind="events", filter="n=1")
    await after.begun()
    assert before.parser.id == after.parser.id
