"""The writer: what is written arrives, once, whatever happens on the way; or is counted as lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from streamgauge.client import Bounds, Retry, Undelivered, Writer
from streamgauge.testing.event_server import EventServer, Faults, Store
from streamgauge.testing.server import eventually

NewWriter = Callable[..., Writer]
SCHEMES = pytest.mark.parametrize("scheme", ["ws", "http"])
NUMBERED = pytest.mark.parametrize("is_numbered", [False, True], ids=["reference", "numbered"])
SECONDS = 60.0


def numbers(store: Store) -> list[int]:
    return [value["n"] for value in store.values()]


@SCHEMES
@NUMBERED
def test_all_events_arrive_in_order(new_writer: NewWriter, scheme: str, is_numbered: bool) -> None:
    with EventServer(Store(is_numbered)) as server:
        writer = new_writer(server.url(scheme))
        for n in range(10_000):
            assert writer.write({"n": n, "text": "Ünïcode 中\n"})
        assert writer.close(SECONDS) == Undelivered()
        assert server.store.values() == [{"n": n, "text": "Ünïcode 中\n"} for n in range(10_000)]
        counts = writer.counts()
        assert (counts.accepted, counts.acknowledged, counts.lost, counts.held) == (10_000, 10_000, 0, 0)


@SCHEMES
def test_flush_waits_for_the_acknowledgement(reference: EventServer, new_writer: NewWriter, scheme: str) -> None:
    writer = new_writer(reference.url(scheme))
    assert writer.write({"n": 1})
    assert writer.flush(SECONDS)
    assert numbers(reference.store) == [1]
    reference.faults.gate.clear()
    assert writer.write({"n": 2})
    assert not writer.flush(0.01)


def test_a_writer_that_is_not_used_never_connects(reference: EventServer, new_writer: NewWriter) -> None:
    writer = new_writer(reference.url("ws"))
    assert not writer.close()
    assert reference.store.streams == []


def test_it_sends_its_headers_and_the_password_of_its_url(reference: EventServer, new_writer: NewWriter) -> None:
    url = reference.url("ws").replace("ws://", "ws://me:se%20cret@")
    assert new_writer(url, headers={"X-Team": "shop"}).write(1)
    eventually(lambda: reference.store.events)
    headers = reference.store.streams[0]
    assert headers["x-team"] == "shop"
    assert headers["authorization"] == "Basic bWU6c2UgY3JldA=="


@pytest.mark.parametrize("url", ["", "localhost:4318", "ftp://localhost", "ws://", "http://me:secret@"])
def test_a_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="is not a URL") as caught:
        Writer(url)
    assert "secret" not in str(caught.value)


@SCHEMES
def test_ten_threads(numbered: EventServer, new_writer: NewWriter, scheme: str) -> None:
    writer = new_writer(numbered.url(scheme))
    together = threading.Barrier(10)

    def work(thread: int) -> None:
        together.wait()
        for n in range(1_000):
            writer.write({"thread": thread, "n": n})

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not writer.close(SECONDS)
    values = numbered.store.values()
    for thread_number in range(10):
        assert [v["n"] for v in values if v["thread"] == thread_number] == list(range(1_000))


def test_coroutines_share_a_writer_and_never_block_the_loop(numbered: EventServer, new_writer: NewWriter) -> None:
    numbered.faults.gate.clear()
    writer = new_writer(numbered.url("ws"), bounds=Bounds(events=10, block_seconds=SECONDS))

    async def work(task: int) -> None:
        for n in range(20):
            assert await writer.write_async({"task": task, "n": n})

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for task in range(5):
                group.create_task(work(task))
            while writer.counts().held != 10:  # noqa: ASYNC110 - the buffer signals nothing
                await asyncio.sleep(0)
            numbered.faults.gate.set()
        assert await writer.flush_async(SECONDS)
        assert not await writer.close_async(SECONDS)

    asyncio.run(main())
    values = numbered.store.values()
    assert len(values) == 100
    for task in range(5):
        assert [v["n"] for v in values if v["task"] == task] == list(range(20))


# ---- servers and networks that fail ----


@SCHEMES
def test_a_server_killed_in_a_burst_has_each_event_once(new_writer: NewWriter, errors: list[str], scheme: str) -> None:
    store = Store(numbered=True)
    server = EventServer(store, faults=Faults(hang_up_after=700))
    writer = new_writer(server.url(scheme))
    for n in range(5_000):
        assert writer.write({"n": n})
    for kill_at in (700, 1_500, 1_501, 4_000):
        eventually(lambda at=kill_at: len(store.events) >= at)  # type: ignore[misc]
        server.kill()
        server = EventServer(store, server.port, Faults(hang_up_after={700: 1_500, 1_500: 1_501}.get(kill_at, 4_000)))
    with server:
        server.faults.hang_up_after = -1
        assert not writer.close(SECONDS)
        assert numbers(store) == list(range(5_000))
        assert len({headers["x-stream-id"] for headers in store.streams}) == 1
        assert errors


@SCHEMES
def test_a_reference_server_killed_in_a_burst_lacks_nothing(new_writer: NewWriter, scheme: str) -> None:
    server = EventServer(faults=Faults(hang_up_after=700))
    writer = new_writer(server.url(scheme))
    for n in range(2_000):
        assert writer.write({"n": n})
    eventually(lambda: len(server.store.events) >= 700)
    server.kill()
    with EventServer(server.store, server.port):
        assert not writer.close(SECONDS)
        assert set(numbers(server.store)) == set(range(2_000))


@SCHEMES
def test_a_server_that_never_acknowledges_is_left_and_given_the_same_again(
    new_writer: NewWriter, errors: list[str], scheme: str
) -> None:
    with EventServer(Store(numbered=True), faults=Faults(silent=True)) as server:
        writer = new_writer(server.url(scheme), silence=0.05)
        for n in range(10):
            writer.write({"n": n})
        eventually(lambda: len(server.store.streams) >= 3)
        assert writer.counts().acknowledged == 0
        server.faults.silent = False
        server.faults.gate.set()
        assert writer.flush(SECONDS)
        assert numbers(server.store) == list(range(10))
        assert errors


@SCHEMES
def test_a_slow_server_gets_all_at_its_own_pace(numbered: EventServer, new_writer: NewWriter, scheme: str) -> None:
    numbered.faults.gate.clear()
    writer = new_writer(numbered.url(scheme))
    text = "x" * 10_000
    for n in range(2_000):  # more than the network holds
        assert writer.write({"n": n, "text": text})
    eventually(lambda: numbered.store.streams)
    assert writer.counts().acknowledged == 0
    numbered.faults.gate.set()
    assert writer.flush(SECONDS)
    assert numbers(numbered.store) == list(range(2_000))
    assert len(numbered.store.streams) == 1 or scheme == "http"


@SCHEMES
@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
def test_what_a_server_does_not_take_now_is_kept(
    new_writer: NewWriter, errors: list[str], scheme: str, status: int
) -> None:
    with EventServer(Store(numbered=True), faults=Faults(status=status)) as server:
        writer = new_writer(server.url(scheme))
        writer.write({"n": 1})
        eventually(lambda: errors)
        assert str(status) in errors[0]
        server.faults.status = 200
        assert writer.flush(SECONDS)
        assert numbers(server.store) == [1]


@SCHEMES
def test_an_event_that_the_server_refuses_is_replaced_by_a_notice(
    numbered: EventServer, new_writer: NewWriter, scheme: str
) -> None:
    numbered.faults.event_bytes = 1_000
    writer = new_writer(numbered.url(scheme))
    for n in range(300):
        writer.write({"n": n, "text": "x" * (2_000 if n in (7, 250) else 10)})
    assert writer.flush(SECONDS)
    values = numbered.store.values()
    assert [value.get("n", value.get("type")) for value in values] == [
        "lost" if n in (7, 250) else n for n in range(300)
    ]
    assert writer.counts().refused == 2


def test_an_event_beyond_the_bound_is_not_taken(
    reference: EventServer, new_writer: NewWriter, errors: list[str]
) -> None:
    writer = new_writer(reference.url("ws"), bounds=Bounds(event_bytes=100))
    assert not writer.write("x" * 100)
    assert writer.write("x" * 98)
    assert writer.counts().refused == 1
    assert "larger than 100" in errors[0]


@SCHEMES
def test_a_server_that_lost_its_data_gets_the_rest_as_a_new_stream(new_writer: NewWriter, scheme: str) -> None:
    first = EventServer(Store(numbered=True))
    writer = new_writer(first.url(scheme))
    writer.write({"n": 1})
    assert writer.flush(SECONDS)
    first.kill()
    with EventServer(Store(numbered=True), first.port) as second:
        for n in range(2, 10):
            writer.write({"n": n})
        assert writer.flush(SECONDS)
        assert numbers(second.store) == list(range(2, 10))
        names = [headers["x-stream-id"] for headers in second.store.streams]
        assert len(set(names)) == 2
        assert second.store.streams[-1]["x-stream-index"] == "1" or scheme == "http"


@SCHEMES
def test_what_is_no_event_server_gets_nothing_acknowledged(
    new_writer: NewWriter, errors: list[str], scheme: str
) -> None:
    with EventServer(faults=Faults(status=204)) as server:
        writer = new_writer(server.url(scheme))
        writer.write({"n": 1})
        eventually(lambda: errors)
        assert writer.counts().acknowledged == 0


# ---- a full buffer ----


def test_block_waits_for_room_and_then_loses_the_newest(new_writer: NewWriter, errors: list[str]) -> None:
    with EventServer(Store(numbered=True)) as server:
        server.faults.gate.clear()
        writer = new_writer(server.url("ws"), bounds=Bounds(events=10, block_seconds=0.01))
        assert [writer.write({"n": n}) for n in range(12)] == [True] * 10 + [False] * 2
        assert writer.counts().lost == 2
        assert errors == ["the buffer is full: an event is lost"]
        server.faults.gate.set()
        assert writer.flush(SECONDS)
        assert writer.write({"n": 12})
        assert writer.flush(SECONDS)
        *events, notice, last = server.store.values()
        assert [event["n"] for event in events] == list(range(10))
        assert (notice["type"], notice["lost"], last["n"]) == ("lost", 2, 12)


def test_block_goes_on_as_soon_as_there_is_room(new_writer: NewWriter) -> None:
    with EventServer(Store(numbered=True)) as server:
        server.faults.gate.clear()
        writer = new_writer(server.url("ws"), bounds=Bounds(events=10, block_seconds=SECONDS))
        thread = threading.Thread(target=lambda: [writer.write({"n": n}) for n in range(500)])
        thread.start()
        eventually(lambda: writer.counts().held == 10)
        server.faults.gate.set()
        thread.join()
        assert writer.flush(SECONDS)
        assert numbers(server.store) == list(range(500))
        assert writer.counts().lost == 0


def test_drop_oldest_keeps_what_is_on_its_way_and_the_newest_and_says_how_many_are_missing(
    new_writer: NewWriter,
) -> None:
    with EventServer(Store(numbered=True)) as server:
        server.faults.gate.clear()
        writer = new_writer(server.url("ws"), when_full="drop-oldest", bounds=Bounds(events=10))
        for n in range(100):
            assert writer.write({"n": n})
        assert writer.counts().lost == 90
        server.faults.gate.set()
        assert writer.flush(SECONDS)
        values = server.store.values()
        (notice,) = [value for value in values if value.get("type") == "lost"]
        at = values.index(notice)
        assert notice["lost"] == 90
        assert [value["n"] for value in values[:at]] == list(range(at))
        assert [value["n"] for value in values[at + 1 :]] == list(range(90 + at, 100))


def test_the_bound_counts_bytes_too(reference: EventServer, new_writer: NewWriter) -> None:
    reference.faults.gate.clear()
    writer = new_writer(reference.url("ws"), bounds=Bounds(bytes=1_000, block_seconds=0))
    assert writer.write("x" * 5_000), "a single event may be larger"
    assert not writer.write("x")


# ---- closing ----


@SCHEMES
def test_close_keeps_its_deadline_and_says_what_was_not_delivered(
    new_writer: NewWriter, errors: list[str], scheme: str
) -> None:
    with EventServer() as server:
        server.faults.gate.clear()
        writer = new_writer(server.url(scheme))
        for n in range(10):
            writer.write({"n": n})
        assert writer.close(0.05) == Undelivered(events=10)
        assert "10 events were not delivered" in errors[-1]
        assert not writer.write({"n": 10})
        assert writer.counts().lost == 11


def test_close_does_not_wait_for_a_pause_between_tries(new_writer: NewWriter, errors: list[str]) -> None:
    server = EventServer(faults=Faults(status=503, headers={"Retry-After": "300"}))
    writer = new_writer(server.url("http"), retry=Retry(200, 300))
    writer.write({"n": 1})
    eventually(lambda: errors)
    server.faults.status = 200
    with server:
        assert not writer.close(SECONDS)
        assert numbers(server.store) == [1]


def test_a_writer_that_nobody_has_any_more_delivers_and_ends(numbered: EventServer) -> None:
    writer = Writer(numbered.url("ws"))
    writer.write({"n": 1})
    thread = writer._thread
    assert thread is not None
    del writer
    thread.join(SECONDS)
    assert not thread.is_alive()
    assert numbers(numbered.store) == [1]


def test_an_error_function_that_fails_or_writes_is_no_trouble(reference: EventServer, new_writer: NewWriter) -> None:
    reference.faults.status = 503

    def on_error(message: str) -> None:
        writer.write({"error": message})
        raise RuntimeError

    writer = new_writer(reference.url("ws"), bounds=Bounds(events=1, block_seconds=SECONDS), on_error=on_error)
    writer.write({"n": 1})
    eventually(lambda: writer.counts().lost)
    reference.faults.status = 200
    assert writer.flush(SECONDS)
