"""Events through the whole server, with clients that others wrote, and through a crash."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from streamgauge.model.event_source import EVERY_EVENT
from streamgauge.store.offline import open_folder
from streamgauge.testing.server import ServerProcess

NODE = """
const socket = new WebSocket(process.argv[1]);
let count = "";
socket.onopen = () => {
  for (const message of ['{"n": 1}', "plain \\u00e9", '[3]', new Uint8Array(0)]) socket.send(message);
};
socket.onmessage = (message) => { count = message.data; };
socket.onclose = (event) => { console.log(JSON.stringify([count, event.code, event.wasClean])); };
socket.onerror = (event) => { console.log("error", event.message); };
"""


def stored(data: Path) -> dict[int, list[tuple[int, bytes]]]:
    """Index and payload of every event in a folder, by stream."""
    found: dict[int, list[tuple[int, bytes]]] = {}
    with open_folder(data) as (snapshot, damage):
        assert not damage
        for batch in snapshot.open({}).events().payloads(EVERY_EVENT):
            for stream, index, _, text in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                found.setdefault(stream, []).append((index, text.encode()))
    return {stream: sorted(events) for stream, events in found.items()}


@pytest.mark.peer("curl")
def test_curl_sends_events(start_server, tmp_path: Path) -> None:
    server = start_server()
    lines = "".join(json.dumps({"n": n, "text": "é" * (n % 50)}) + "\n" for n in range(20_000))
    (tmp_path / "events.jsonl").write_text(lines, encoding="utf-8")
    for arguments, answer in (
        (["-d", '{"a":1}{"b":2}', f"{server.url}/"], "2"),
        (["--data-binary", f"@{tmp_path / 'events.jsonl'}", f"{server.url}/api/v1/events"], "20000"),
        (["-H", "Transfer-Encoding: chunked", "--data-binary", f"@{tmp_path / 'events.jsonl'}", server.url], "20000"),
        (["-d", '{"a":1},', f"{server.url}/"], "1"),
    ):
        done = subprocess.run(["curl", "-sS", *arguments], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout == answer
    assert server.stop() == 0
    events = stored(server.data)
    assert events[1] == [(1, b'{"a":1}'), (2, b'{"b":2}')]
    wanted = [(n, line.encode()) for n, line in enumerate(lines.splitlines(), 1)]
    for stream in (2, 3):
        assert [(index, json.loads(text)) for index, text in events[stream]] == [
            (index, json.loads(text)) for index, text in wanted
        ]


@pytest.mark.peer("node")
def test_a_websocket_client_of_another_language(start_server) -> None:
    server = start_server()
    node = ["node", "--experimental-websocket", "-e", NODE, server.url.replace("http", "ws")]
    done = subprocess.run(node, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == ["3", 1000, True], done.stderr
    assert server.stop() == 0
    (events,) = stored(server.data).values()
    assert [json.loads(text) for _, text in events] == [{"n": 1}, "plain é", [3]]


def test_an_event_of_many_megabytes_on_one_line(start_server) -> None:
    server = start_server("--event-max-bytes", "32MB")
    large = b'{"text":"' + b"x" * (20 << 20) + b'"}'
    answer = server.request("POST", "/", large + b"\n" + b"[" + b"1," * (20 << 20), {"accept": "application/json"})
    assert (answer.status, answer.json()["data"]["count"]) == (413, 1)
    with connect(server.url.replace("http", "ws"), max_size=None, proxy=None) as socket:
        socket.send(large.decode())
        assert socket.recv() == "1"
        with pytest.raises(ConnectionClosed):
            socket.send("x" * (33 << 20))
            while True:
                assert socket.recv() == "1"
        assert socket.close_code == 1009
    assert server.metric('streamgauge_ingested_events_total{source="events_http"}') == 1
    assert server.stop() == 0


@pytest.mark.parametrize("moment", [1, 40, 200])
def test_every_event_counted_before_a_crash_is_there_once(tmp_path: Path, moment: int) -> None:
    """Killed in the middle of a burst; the client sends again what was not counted."""
    data = tmp_path / "data"
    texts = [json.dumps({"n": n}) for n in range(1, 20_001)]
    counted = 0
    with (
        ServerProcess.start(data, ("--no-self-monitoring",)) as server,
        connect(f"{server.url.replace('http', 'ws')}/?stream=a&index=1", proxy=None) as socket,
    ):
        sender = threading.Thread(target=_send_all, args=(socket, texts))
        sender.start()
        try:
            while counted < moment:
                counted = int(socket.recv())
            server.kill()
            while True:
                counted = int(socket.recv())
        except ConnectionClosed:
            pass
        sender.join()
    with ServerProcess.start(data, ("--no-self-monitoring",)) as server:
        first = counted + 1
        with connect(f"{server.url.replace('http', 'ws')}/?stream=a&index={first}", proxy=None) as socket:
            assert counted < int(socket.response.headers["x-stream-next"]) <= len(texts) + 1
            sender = threading.Thread(target=_send_all, args=(socket, texts[counted:]))
            sender.start()
            while counted < len(texts):
                counted = first - 1 + int(socket.recv())
            sender.join()
        assert server.stop() == 0
    (events,) = stored(data).values()
    assert [index for index, _ in events] == list(range(1, len(texts) + 1))
    assert [json.loads(text)["n"] for _, text in events] == list(range(1, len(texts) + 1))


def _send_all(socket, texts: list[str]) -> None:
    try:
        for text in texts:
            socket.send(text)
    except ConnectionClosed:
        pass


def test_a_gigabyte_on_one_line_ends_at_the_limit_in_bounded_memory(start_server) -> None:
    server = start_server("--event-max-bytes", "8MB")
    assert server.request("POST", "/", b"1").text == "1"
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss

    def endless() -> Iterator[bytes]:
        yield b'2\n{"text":"'
        for _ in range(1 << 10):
            yield b"x" * (1 << 20)

    peak = 0
    answered: list[bytes] = []
    with server.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):  # the server does not want all of it
            for piece in endless():
                client.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                peak = max(peak, process.memory_info().rss)
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                answered.append(data)
    head, _, count = b"".join(answered).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert count == b"1"
    assert peak - before < 64 << 20
    assert server.metric('streamgauge_ingested_events_total{source="events_http"}') == 2


def test_a_field_that_is_a_number_and_then_an_object_is_asked_for_in_sql(start_server) -> None:
    server = start_server()
    body = (
        b'{"k":1,"n":9223372036854775807}{"k":{"a.b":"x","\xc3\xa9\\"":2}}{"k":"1"}{"k":null}{"n":18446744073709551615}'
    )
    assert server.request("POST", "/", body).text == "5"

    def ask(query: str) -> list[list[object]]:
        answer = server.request("POST", "/api/v1/sql", query.encode(), {"content-type": "application/sql"})
        rows: list[list[object]] = answer.json()["data"]["rows"]
        return rows

    assert ask("SELECT count(*) FROM events WHERE payload.k = 1") == [[2]]
    assert ask("SELECT count(*) FROM events WHERE payload.k = '1'") == [[2]]
    assert ask("SELECT sum(payload.k::DOUBLE) FROM events WHERE payload.k <= 1") == [[2]]
    assert ask("""SELECT payload.k."a.b", payload.k."é""\" FROM events WHERE payload.k."a.b" = 'x'""") == [["x", 2]]
    assert ask("SELECT payload.n FROM events WHERE payload.n > 0 ORDER BY 1") == [
        [9223372036854775807],
        [18446744073709551615],
    ]
    assert ask("SELECT payload.n FROM events WHERE payload.n = 9223372036854775807") == [[9223372036854775807]]
    assert ask("SELECT payload.n FROM events WHERE payload.n = 9223372036854775806") == []
    assert ask("SELECT count(payload.k) FROM events") == [[3]]
