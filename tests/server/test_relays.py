"""Relays of the real server: from their lines to PromQL, the stats API and the live channel."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.sync.client import connect

from streamgauge.serve.server import raise_descriptor_limit
from streamgauge.testing.server import SECONDS, ServerProcess, eventually, launch_command

TOKEN = {"X-AUTH-TOKEN": "a secret"}
CONFIG = """\
relay:
  server-listen-address: 127.0.0.1:0
  http-listen-address: 127.0.0.1:0
  live-listen-address: 127.0.0.1:0
  poll-interval: 3600
  token: a secret
  cors-allow: https://pages.example
"""


class RelayServer:
    """relay, stats, live: ports."""

    def __init__(self, process: ServerProcess) -> None:
        self.process = process
        self.relay, self.stats, self.live = (
            int(re.findall(r":(\d+)/?$", process.await_line(words).strip())[0])
            for words in ("relays are listened for", "the stats API is on", "live values are on")
        )

    def get(self, path: str, **parameters: Any) -> tuple[int, Any]:
        answer = self.process.get(f"/pulse{path}", parameters, TOKEN)
        assert answer.body.endswith(b"\n")
        return answer.status, answer.json()


class Relay:
    """A bare one."""

    def __init__(self, server: RelayServer, text: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.relay), SECONDS)
        self.lines = self._socket.makefile("rb")
        self.say(text)

    def say(self, text: str) -> None:
        self._socket.sendall(text.encode())

    def hears(self, line: bytes) -> None:
        """Read until this line comes."""
        while (found := self.lines.readline()) != line:
            assert found, "the server has hung up"

    def close(self) -> None:
        self.lines.close()
        self._socket.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayServer]:
    folder = tmp_path_factory.mktemp("relays")
    (folder / "c.yml").write_text(CONFIG)
    arguments = ["--no-self-monitoring", "--config", str(folder / "c.yml")]
    with ServerProcess.start(folder / "data", arguments) as process:
        yield RelayServer(process)
        assert process.stop() == 0, "".join(process.output)
        assert not [line for line in process.output if "Traceback" in line], "".join(process.output)


@pytest.fixture(scope="module")
def relays(server: RelayServer) -> Iterator[list[Relay]]:
    """Two that have answered once."""
    found = []
    for name, value in (("a", 1), ("b", 3)):
        relay = Relay(server, f"id {name}\nadd cpu:dc:x,tag\nadd disk:dc:x\n")
        relay.hears(b"get cpu,disk\n")
        relay.say(f"got cpu-cpu:{value}.0000,disk-sda:{value}0\n")
        found.append(relay)
    eventually(lambda: len(server.process.query("cpu")) == 2)
    yield found
    for relay in found:
        relay.close()


@pytest.mark.usefixtures("relays")
def test_what_relays_answer_is_in_promql(server: RelayServer) -> None:
    (sample,) = server.process.query('cpu{host="b"}')
    assert sample["metric"] == {"__name__": "cpu", "host": "b", "dc": "x"}
    assert sample["value"][1] == "3"


@pytest.mark.usefixtures("relays")
def test_the_stats_api_answers(server: RelayServer) -> None:
    assert server.get("/keys") == (200, ["cpu", "sda"])
    assert server.get("/tags") == (200, ["dc", "host"])
    status, latest = server.get("/latest/cpu")
    assert (status, latest["value"], latest["time"] % 3_600_000) == (200, 2.0, 0)
    assert server.get("/latest/cpu", host="a")[1]["value"] == 1
    assert server.get("/latest/cpu", host=["a", "b"], verb="sum", dc="x")[1]["value"] == 4
    raw = server.get("/latest/cpu", host=["a", "b"], verb="none")[1]
    assert sorted((each["host"], each["value"]) for each in raw) == [("a", 1), ("b", 3)]
    assert server.get("/hourly/sda", verb="max", start="1h")[0] in (200, 404)  # a quarter hour may begin just now
    assert [each["value"] for each in server.get("/hourly/sda", verb="max")[1]] == [30]
    (quarter,) = server.get("/daily/sda")[1]
    assert re.fullmatch(r"\d\d:(00|15|30|45)", quarter["time"])
    assert quarter["value"] == 20
    assert server.get("/daily_peaks/sda") == server.get("/daily/sda")


@pytest.mark.usefixtures("relays")
@pytest.mark.parametrize(
    "path", ["/latest/cpu?host=c", "/latest/nothing", "/hourly/cpu?dc=y", "/daily/x{y}", "/hourly/"]
)
def test_what_is_not_there_is_not_found(server: RelayServer, path: str) -> None:
    answer = server.process.request("GET", f"/pulse{path}", headers=TOKEN)
    assert (answer.status, answer.body) == (404, b'{"error":"Not Found"}\n')


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/latest/cpu?verb=average", "verb"),
        ("/hourly/cpu?verb=none", "verb"),
        ("/hourly/cpu?start=yesterday", "start"),
        ("/daily/cpu?stop=-1d", "stop"),
    ],
)
def test_parameters_that_say_nothing_are_named(server: RelayServer, path: str, name: str) -> None:
    answer = server.process.request("GET", f"/pulse{path}", headers=TOKEN)
    assert answer.status == 400
    assert f'"{name}"' in answer.json()["error"]
    assert answer.body.endswith(b"\n")


def test_who_shows_no_token_or_a_wrong_one_is_sent_away(server: RelayServer) -> None:
    paths = ("/pulse/ping", "/pulse/keys", "/pulse/latest/cpu", "/pulse/override", "/subscribe/websocket")
    for path in paths:
        for headers in ({}, {"X-AUTH-TOKEN": "a secre"}):
            method = "POST" if path == "/pulse/override" else "GET"
            assert server.process.request(method, path, headers=headers).status == 401, path
    refused = server.process.get("/pulse/ping")
    assert set(refused.json()) == {"error"}
    answer = server.process.get("/pulse/ping", {"x-auth-token": "a secret"})
    assert (answer.status, answer.body) == (200, b"pong\n")


def test_the_port_of_its_own_has_the_stats_api_at_the_root_and_nothing_else(server: RelayServer) -> None:
    main, server.process.port = server.process.port, server.stats
    try:
        assert server.process.get("/ping", headers=TOKEN).body == b"pong\n"
        assert server.process.get("/ping").status == 401
        assert server.process.get("/api/v1/query", {"query": "1"}, TOKEN).status == 404
    finally:
        server.process.port = main


def test_pages_of_the_configured_origin_may_call(server: RelayServer) -> None:
    allowed, foreign = {"Origin": "https://pages.example"}, {"Origin": "https://other.example"}
    answer = server.process.get("/pulse/ping", headers=TOKEN | allowed)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "https://pages.example")
    assert server.process.get("/pulse/ping").headers["access-control-allow-origin"] == "https://pages.example"
    preflight = server.process.request("OPTIONS", "/pulse/keys", headers=allowed)
    assert preflight.status == 204
    assert "X-AUTH-TOKEN" in preflight.headers["access-control-allow-headers"]
    assert server.process.get("/pulse/ping", headers=TOKEN | foreign).status == 403
    assert server.process.get("/api/v1/labels", headers=allowed).status == 403


def test_override_and_flush_reach_the_relays(server: RelayServer, relays: list[Relay]) -> None:
    body = json.dumps({"seconds": 60, "collectors": {"cpu": 5, "nothing": 1}}).encode()
    answer = server.process.request("POST", "/pulse/override", body, TOKEN)
    assert (answer.status, answer.json()) == (200, {"relays": 2})
    relays[0].hears(b"override 60 cpu:5\n")
    assert server.process.request("POST", "/pulse/flush", b"", TOKEN).json() == {"relays": 2}
    relays[1].hears(b"flush\n")
    for bad in (b"", b"[]", b"{}", b'{"seconds": 0, "collectors": {"cpu": 1}}', b'{"seconds": 1, "collectors": {}}'):
        assert server.process.request("POST", "/pulse/override", bad, TOKEN).status == 400
    assert server.process.request("POST", "/pulse/alerts", b"{}", TOKEN).status == 501


def test_values_are_told_as_they_come_to_who_subscribed_to_their_tags(server: RelayServer, relays: list[Relay]) -> None:
    url = f"ws://127.0.0.1:{server.process.port}/subscribe/websocket"
    with (
        connect(url, additional_headers=TOKEN, proxy=None) as web,
        socket.create_connection(("127.0.0.1", server.live), SECONDS) as tcp,
    ):
        lines = tcp.makefile("rb")
        tcp.sendall(b'{"command":"auth","data":"a secret"}\n{"command":"subscribe","tags":["cpu"]}\n')
        tcp.sendall(b'{"command":"list"}\n')
        assert json.loads(lines.readline())["data"] == "cpu"
        web.send('{"command":"subscribe","tags":["host:a","metrics"]}')
        web.send('{"command":"subscribe","tags":["sda"]}')
        web.send('{"command":"ping"}')
        assert json.loads(web.recv(SECONDS)) == {"command": "ping", "tags": [], "data": "pong"}
        relays[0].say("got cpu-cpu:7.5000,disk-sda:1\n")
        tags = ["dc:x", "tag", "metrics", "host:a", "cpu"]
        assert json.loads(web.recv(SECONDS)) == {"command": "publish", "tags": tags, "data": "7.5000"}
        assert json.loads(lines.readline()) == {"command": "publish", "tags": tags, "data": "7.5000"}
        assert json.loads(web.recv(SECONDS))["tags"] == ["dc:x", "metrics", "host:a", "sda"]
        tcp.sendall(b'{"command":"publish","tags":["sda","cpu"],"data":"hello"}\n{"command":"what"}\n')
        assert json.loads(lines.readline())["error"] == "Unknown Command"
        assert json.loads(web.recv(SECONDS))["data"] == "hello"
        lines.close()
    with socket.create_connection(("127.0.0.1", server.live), SECONDS) as stranger:
        stranger.sendall(b'{"command":"auth","data":"wrong"}\n')
        assert b"error" in stranger.makefile("rb").readline()


def test_the_relay_command_has_its_host_asked(server: RelayServer) -> None:
    arguments = ["relay", "--server", f"127.0.0.1:{server.relay}", "--id", "itself", "--tag", "dc:z"]
    process = launch_command([*arguments, "--collect", "memory", "--collect", "load"], {})
    try:
        assert process.stderr is not None
        assert "asks itself for memory, load" in process.stderr.readline()
        eventually(lambda: server.process.query('memory_total{host="itself", dc="z"} > 1e6'))
        assert server.process.query('load1{host="itself"}')
        process.terminate()
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.communicate()


STORM = 2_000


async def _storm(port: int, before: Callable[[], object]) -> None:
    """So many relays connect at once, go without a word, and are all back at once."""

    async def one(name: str) -> asyncio.StreamWriter:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"id {name}\nadd cpu\n".encode())
        assert await reader.readline() == b"ok\n"
        return writer

    writers: list[asyncio.StreamWriter] = []
    for _ in range(2):
        for writer in writers:
            writer.transport.abort()
        writers = await asyncio.gather(*(one(f"storm{number}") for number in range(STORM)))
    await asyncio.to_thread(before)
    for writer in writers:
        writer.transport.abort()


def test_a_storm_of_relays_that_reconnect_delays_nobody(server: RelayServer, relays: list[Relay]) -> None:
    assert raise_descriptor_limit() > 2 * STORM
    before = server.process.metric("streamgauge_relays")

    def meanwhile() -> None:
        assert server.process.metric("streamgauge_relays") == before + STORM
        relays[0].say("got cpu-cpu:42\n")
        eventually(lambda: server.process.query('cpu{host="a"} == 42'))

    asyncio.run(_storm(server.relay, meanwhile))
    eventually(lambda: server.process.metric("streamgauge_relays") == before)
    assert server.process.metric_sum("streamgauge_relay_connections_ended_total") >= 2 * STORM
