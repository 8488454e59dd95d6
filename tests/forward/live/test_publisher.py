"""Live values to real brokers: what they get, and what is counted while they are away."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import aiomqtt
import nats
import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import DeliveryFailed
from streamgauge.forward.live import open as opening
from streamgauge.forward.live import publisher as publisher_module
from streamgauge.forward.live.open import check_packages, open_publisher
from streamgauge.forward.live.publisher import MAX_WAITING, LivePublisher, readings
from streamgauge.forward.live.target import (
    Given,
    LiveTarget,
    LiveValue,
    MistTarget,
    MqttTarget,
    NatsTarget,
    Take,
)
from streamgauge.live.tags import TagHub
from streamgauge.serve.live_tags_tcp import LiveTagsListener
from streamgauge.serve.server import bind
from streamgauge.testing.free_port import bound
from streamgauge.testing.programs import required
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def value(name: str = "cpu", text: str = "7.5000", host: str = "web 1") -> LiveValue:
    return LiveValue(host, "stats", name, text, ("dc:x", "metrics", f"host:{host}", name), 1_700_000_000_123)


def free_port() -> int:
    with closing(bound()) as sock:
        return int(sock.getsockname()[1])


@contextmanager
def program(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def publishing(target: LiveTarget) -> AsyncIterator[tuple[LivePublisher, ManualClock]]:
    clock = ManualClock()
    publisher = open_publisher(target, clock)
    work = asyncio.create_task(publisher.run())
    try:
        yield publisher, clock
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def reach(clock: ManualClock, condition: Callable[[], object]) -> None:
    """Let time pass until it holds."""
    while not condition():
        await clock.advance(5)
        await asyncio.sleep(0.01)


@contextmanager
def mosquitto(folder: Path, port: int) -> Iterator[None]:
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with program(required("mosquitto"), "-c", str(config)):
        yield


@contextmanager
def nats_server(port: int) -> Iterator[subprocess.Popen[bytes]]:
    with program(required("nats-server"), "-a", "127.0.0.1", "-p", str(port), "--user", "u", "--pass", "p") as server:
        yield server


@pytest.mark.peer("mosquitto")
async def test_an_mqtt_broker_gets_a_message_for_each_value_and_those_after_an_outage(tmp_path: Path) -> None:
    port = free_port()
    async with publishing(MqttTarget("127.0.0.1", port, topic="pulse/{host}/{collector}/{name}")) as (out, clock):
        out.put(value("early"))
        await reach(clock, lambda: out.failures)
        for _ in range(2):  # the second time after the broker was away
            with mosquitto(tmp_path, port):
                await reach(clock, lambda: out.connected)
                async with aiomqtt.Client("127.0.0.1", port) as reader:
                    await reader.subscribe("pulse/#")
                    out.put(value("a/b+c#"))
                    async for message in reader.messages:
                        if "early" not in str(message.topic):
                            break
                assert str(message.topic) == "pulse/web 1/stats/a_b_c_"
                assert json.loads(message.payload) == {
                    "time": 1_700_000_000_123,
                    "value": 7.5,
                    "tags": ["dc:x", "metrics", "host:web 1", "a/b+c#"],
                }
                published = out.published
            out.put(value("lost"))
            await reach(clock, lambda: not out.connected)
        assert published == 3
        assert out.lost["connection"] >= 1


@pytest.mark.peer("mosquitto")
async def test_one_value_with_a_name_that_no_broker_takes_loses_no_others(tmp_path: Path) -> None:
    port = free_port()
    with mosquitto(tmp_path, port):
        async with publishing(MqttTarget("127.0.0.1", port, topic="{name}" * 300)) as (out, clock):
            await reach(clock, lambda: out.connected)
            for name in ("n" * 70_000, "a\x85", "b\uffff\ufdd0", "c"):
                out.put(value(name))
            await until(lambda: out.published == 3)
            assert +out.lost == {"name": 1}


@pytest.mark.peer("nats-server")
async def test_nats_gets_a_message_for_each_value_from_who_may_send_them() -> None:
    port = free_port()
    with nats_server(port) as server:
        wrong = NatsTarget("127.0.0.1", port, user="u", password="wrong")
        async with publishing(wrong) as (out, clock):
            await reach(clock, lambda: out.failures > 1)
            assert not out.published
        async with publishing(NatsTarget("127.0.0.1", port, user="u", password="p")) as (out, clock):
            await reach(clock, lambda: out.connected)
            reader = await nats.connect(f"nats://127.0.0.1:{port}", user="u", password="p")
            subscription = await reader.subscribe("pulse.>")
            await reader.flush()
            for number in range(1_200):
                out.put(value("a.b*> c", str(number)))
            messages = [await subscription.next_msg(30) for _ in range(1_200)]
            assert {message.subject for message in messages} == {"pulse.web_1.a_b___c"}
            assert [json.loads(message.data)["value"] for message in messages] == list(range(1_200))
            await until(lambda: out.published == 1_200)
            await reader.close()
        doubled = NatsTarget("127.0.0.1", port, user="u", password="p", subject="{name}" * 16)
        async with publishing(doubled) as (out, clock):
            out.put(value("n" * 255))
            out.put(value("\x85"))
            await until(lambda: out.published == 1)
            assert +out.lost == {"name": 1}
            server.kill()  # which is noticed though no value comes
            await until(lambda: out.failures and not out.connected)
            assert +out.lost == {"name": 1}


@asynccontextmanager
async def mist(port: int = 0) -> AsyncIterator[tuple[TagHub, int]]:
    """A server of Mist's protocol: ours."""
    hub = TagHub()
    listener = LiveTagsListener(hub, lambda token: token == "t", lambda: True)
    sockets = bind("127.0.0.1", port)
    await listener.start(sockets)
    try:
        yield hub, sockets[0].getsockname()[1]
    finally:
        await listener.stop()


async def test_a_mist_server_gets_values_with_their_tags() -> None:
    async with mist() as (hub, port):
        reader = hub.join()
        reader.handle(b'{"command":"subscribe","tags":["host:web 1"]}')
        async with publishing(MistTarget("127.0.0.1", port, "t")) as (out, clock):
            out.put(value())
            (text,) = await reader.next()
            tags = ["dc:x", "metrics", "host:web 1", "cpu"]
            assert json.loads(text) == {"command": "publish", "tags": tags, "data": "7.5000"}
            await until(lambda: out.published == 1)
        async with publishing(MistTarget("127.0.0.1", port, "wrong")) as (out, clock):
            await reach(clock, lambda: out.failures)
            assert not out.connected


async def test_a_mist_server_that_goes_is_found_again(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    async with publishing(MistTarget("127.0.0.1", port, "t")) as (out, clock):
        for failures in (1, 2):
            await reach(clock, lambda wanted=failures: out.failures >= wanted)
            async with mist(port) as (hub, _):
                reader = hub.join()
                reader.handle(b'{"command":"subscribe","tags":["cpu"]}')
                out.put(value())
                await reach(clock, lambda: out.connected)
                assert await reader.next()
                reader.close()
    assert sum("tried again" in line for line in caplog.messages) <= out.failures


@asynccontextmanager
async def scripted(*answers: bytes) -> AsyncIterator[int]:
    """A server that says these, each after a line that it was sent, and hangs up when it is sent one more."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for each in answers:
            await reader.readline()
            writer.write(each + b"\n")
        await reader.readline()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_nothing_that_a_mist_server_says_ends_the_publisher() -> None:
    async with scripted(b"[" * 60_000) as port, publishing(MistTarget("127.0.0.1", port)) as (out, clock):
        await reach(clock, lambda: out.failures > 1)


async def test_a_mist_server_has_what_it_answers_a_ping_after() -> None:
    async with scripted(b'{"command":"ping"}') as port, publishing(MistTarget("127.0.0.1", port)) as (out, clock):
        out.put(value())
        await reach(clock, lambda: out.failures)
        assert (out.published, +out.lost) == (0, {"connection": 1})


class Broken:
    async def run(self, take: Take, given: Given) -> None:
        raise KeyError("a bug")


async def test_a_bug_in_one_kind_of_destination_is_a_failed_connection(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    out = LivePublisher("mist", Broken(), clock)
    work = asyncio.create_task(out.run())
    await reach(clock, lambda: out.failures > 1)
    work.cancel()
    assert [record.exc_info is not None for record in caplog.records] == [True]  # told once


class Away:
    """An outlet that takes everything and reaches nobody."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    async def run(self, take: Take, given: Given) -> None:
        self.begun.set()
        if not await take():
            given(0)
        raise DeliveryFailed("nobody is there")


async def test_what_waits_is_bounded_and_every_loss_is_counted_by_its_reason() -> None:
    clock = ManualClock()
    out = LivePublisher("mist", Away(), clock)
    for number in range(MAX_WAITING + 7):
        out.put(value(str(number)))
    assert out.lost == {"overflow": 7}
    work = asyncio.create_task(out.run())
    await until(lambda: out.failures == 1)
    work.cancel()
    assert out.lost == {"overflow": 7, "connection": 500}
    found = {reading.name: reading.values for reading in readings([out])}
    assert found["streamgauge_live_publish_lost_total"] == {("mist", "overflow"): 7, ("mist", "connection"): 500}
    assert found["streamgauge_live_publish_failures_total"] == {("mist",): 1}
    assert found["streamgauge_live_publish_connected"] == {("mist",): 0}


def test_what_waits_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = replace(value("1"), tags=tuple(f"{number:0255}" for number in range(64)))
    monkeypatch.setattr(publisher_module, "MAX_WAITING_BYTES", 100_000)
    out = LivePublisher("mist", Away(), ManualClock())
    for _ in range(10):
        out.put(wide)
    assert out.lost == {"overflow": 6}
    for _ in range(100):  # small ones have room in place of a large one
        out.put(value("2"))
    assert out.lost == {"overflow": 9}


def test_a_package_that_is_missing_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    targets: Sequence[LiveTarget] = (MqttTarget("h", 1), NatsTarget("h", 1), MistTarget("h", 1))
    check_packages(targets)
    monkeypatch.setattr(opening, "_PACKAGES", {NatsTarget: ("no_such_module", "nats-py")})
    with pytest.raises(DeliveryFailed, match=r"needs the package nats-py: pip install 'streamgauge\[nats\]'"):
        check_packages(targets)
