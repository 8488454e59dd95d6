"""Nothing crosses a tenant: one server, two teams and somebody who belongs to none, and every route that there is.

Everything that is not team apple's has the word zebra in it: names and values of labels, metrics, events, streams,
queries. No answer to team apple has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamgauge.auth.identity import Permission
from streamgauge.clock import ManualClock
from streamgauge.model.labels import key_of
from streamgauge.model.owned import owned_headers, owned_name
from streamgauge.serve.app import endpoints, past_the_router
from streamgauge.serve.endpoint import Endpoint
from streamgauge.serve.services import HttpOptions
from streamgauge.serve.upload_api import PUSH_PATHS
from streamgauge.store.ports import DAY_MS
from streamgauge.store.resolutions import Tier, thinned
from streamgauge.testing import requests
from streamgauge.testing.lives import Row, batch_of, opened
from streamgauge.testing.remote_read import HEADERS as READ_HEADERS
from streamgauge.testing.remote_read import query, request
from streamgauge.testing.server import Response, ServerProcess, eventually
from streamgauge.wire.sample_table import CONTENT_TYPE, SeriesRows, encode
from streamgauge.wire.snappy import decompress

OWN, OTHER = "apple", "zebra"
NOW = int(time.time()) * 1000
OLD = NOW // DAY_MS * DAY_MS - 20 * DAY_MS
MINUTE = 60_000


# ---- what is stored -------------------------------------------------------------------------------------------------


def label_sets() -> list[dict[str, str]]:
    """Of team apple one series, with a name that others use, too; and one for each way to be another's."""
    shared = {"__name__": "up", "instance": "1", "job": "j"}
    return [
        {**shared, "team": OWN, "host": "apple-host"},
        {**shared, "team": OTHER, "host": "zebra-host"},
        {**shared, "host": "zebra-nobody"},
        {**shared, "Team": OWN, "host": "zebra-case"},
        {"__name__": "zebra_total", "team": OTHER, "zebra_label": "1"},
        {"__name__": "target_info", "instance": "1", "job": "j", "team": OTHER, "version": "zebra-9"},
        *(
            {"__name__": "host_history_requests_sec", "team": team, "host": host}
            for team, host in ((OWN, "shop"), (OTHER, "shop"), (OTHER, "zebra-host"))
        ),
    ]


def rows(*times: int) -> list[Row]:
    one = int(np.float64(1).view(np.int64))
    return [(key_of(labels), at, one) for labels in label_sets() for at in times]


async def _fill(data: Path) -> None:
    """Old days as aggregates, the last hour in blocks; events in a block, and streams that go on."""
    clock = ManualClock(NOW)
    async with opened(data, clock, DAY_MS, tiers=(Tier(300_000, 90 * DAY_MS),)) as (store, maintenance):
        await store.append(batch_of(store, rows(*range(OLD, OLD + 60 * MINUTE, MINUTE))))
        await store.append(batch_of(store, rows(NOW - 30 * MINUTE)))
        for owner, count in ((OWN, 1), (OTHER, 5), (None, 7)):
            name = "log" if owner is None else owned_name(owner, "log")
            headers = '{"x":"zebra"}' if owner is None else owned_headers(owner, json.dumps({"x": owner}))
            stream, _ = store.events.resume_stream(name, "http", headers)
            texts = [event(owner or OTHER, number) for number in range(count)]
            await store.events.append_events(stream, 1, pa.array(texts, pa.binary()))
        await maintenance.flush_all()
        while await maintenance.expire():
            pass
        assert thinned(store.state.blocks)
        assert store.events.state.blocks


def event(team: str, number: int) -> bytes:
    """Of one team the level is a number, of the others a word that is none."""
    level: object = number if team == OWN else f"{team}-level"
    return json.dumps({"type": "log", "level": level, "message": f"{team} says {number}", team: {"n": number}}).encode()


class Tenant:
    """Somebody who sends requests."""

    def __init__(self, server: ServerProcess, name: str) -> None:
        self.server = server
        self.headers = {"authorization": f"Bearer {name}"}

    def ask(self, form: Form) -> Response:
        return self.server.request(form.method, form.target, form.body, {**form.headers, **self.headers})

    @contextlib.contextmanager
    def opened(self, target: str) -> Iterator[HTTPResponse]:
        with contextlib.closing(HTTPConnection("127.0.0.1", self.server.port, timeout=60)) as connection:
            connection.request("GET", target, headers=self.headers)
            yield connection.getresponse()


@dataclass(frozen=True)
class Form:
    """One way to ask. shows: whether the answer to somebody who may see everything has the word in it."""

    path: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    method: str = "GET"
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    query_params: Mapping[str, str] = field(default_factory=dict)
    shows: bool = True

    @property
    def target(self) -> str:
        return self.path + ("?" + urllib.parse.urlencode(self.parameters, doseq=True) if self.parameters else "")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    data = tmp_path_factory.mktemp("tenants") / "data"
    asyncio.run(_fill(data))
    arguments = ("--no-self-monitoring", "--retention", "1d", "--downsampling", "5m:90d", "--enable-admin-api")
    with ServerProcess.start(data, arguments, module="streamgauge.testing.tenants") as running:
        for name in (OWN, OTHER, "all"):
            tenant = Tenant(running, name)
            series = [
                requests.Series(labels, [(NOW, 2.0), (int(time.time()) * 1000, 2.0)])
                for labels in label_sets()
                if name == "all" or labels.get("team") == name
            ]
            body = requests.snappy(requests.v1(series, {"up": ("gauge", f"{OTHER} says what it is", "")}))
            assert tenant.ask(Form("/api/v1/write", {}, "POST", body, requests.headers())).status == 204
            text = event(OTHER if name == "all" else name, 100)
            for path in ("/", "/api/v1/events"):
                assert tenant.ask(Form(path, {}, "POST", text)).text == "1"
        yield running


@pytest.fixture(scope="module")
def own(server: ServerProcess) -> Tenant:
    return Tenant(server, OWN)


@pytest.fixture(scope="module")
def whole(server: ServerProcess) -> Tenant:
    return Tenant(server, "all")


# ---- every way to ask -----------------------------------------------------------------------------------------------

EVERY = '{__name__=~".+"}'
SELECTORS = (
    EVERY,
    '{team!=""}',
    '{team!="apple",__name__!=""}',
    '{team=~"z.*"}',
    '{team="",job="j"}',
    '{Team="apple"}',
    "up",
)
EXPRESSIONS = (
    *SELECTORS,
    f"count by (team, __name__)({EVERY})",
    f'count_values("v", label_replace({EVERY}, "team", "apple", "", ""))',
    'label_replace(up, "team", "$1", "host", "(.*)")',
    "info(up)",
    f"max_over_time({EVERY}[25d])",
    f"sum without (job)(count_over_time({EVERY}[25d]))",
    f"topk(9, {EVERY})",
    "sort_by_label(up, 'host')",
)
QUESTIONS = (
    "SELECT * FROM samples",
    "SELECT * FROM series",
    "SELECT * FROM metrics",
    "SELECT * FROM events",
    "SELECT * FROM events ORDER BY time DESC LIMIT 3",
    "SELECT payload FROM logs",
    "SELECT typeof(payload.level), payload.level, payload.message FROM events",
    "SELECT * FROM spans",
    "SELECT * FROM streams",
    "SELECT DISTINCT labels['host'] FROM metrics",
    f"SELECT * FROM promql('{EVERY}')",
    "SELECT max(message), string_agg(message) FROM logs",
    "SELECT payload.level::INTEGER FROM events",
)
ACCEPTS = (
    "application/json",
    "application/x-ndjson",
    "text/csv",
    "application/vnd.apache.arrow.stream",
    "application/vnd.apache.parquet",
)
TIMES = ({}, {"start": f"{OLD / 1000}", "end": f"{NOW / 1000}"}, {"start": f"{NOW / 1000 - 60}", "limit": "50"})


def forms() -> Iterator[Form]:
    v1 = "/api/v1"
    for expression, at in itertools.product(EXPRESSIONS, (NOW, OLD + 59 * MINUTE)):
        yield Form(f"{v1}/query", {"query": expression, "time": at / 1000, "stats": "all", "lookback_delta": "1h"})
    for expression in EXPRESSIONS:
        yield Form(
            f"{v1}/query",
            method="POST",
            parameters={"query": f"({EVERY})[25d:1h]" if expression == "up" else expression},
        )
        span = {"start": OLD / 1000, "end": NOW / 1000, "step": "21600", "stats": "1"}
        yield Form(f"{v1}/query_range", {"query": expression, **span})
    for name in ("query_exemplars", "format_query", "parse_query"):
        yield Form(f"{v1}/{name}", {"query": EVERY}, shows=False)
    for matches, span in itertools.product(((), *((each,) for each in SELECTORS), SELECTORS), TIMES):
        if matches:
            yield Form(f"{v1}/series", {"match[]": matches, **span})
        yield Form(f"{v1}/labels", {"match[]": matches, **span})
        if not span:
            for label in ("team", "__name__", "host", "version"):
                yield Form(f"{v1}/label/{label}/values", {"match[]": matches})
    for each in (*SELECTORS, SELECTORS):
        yield Form("/federate", {"match[]": each})
    yield Form("/telemetry/hosts", {"start": OLD / 1000})
    yield Form("/telemetry/history", {"host": "shop"}, shows=False)
    matchers = [[("__name__", "=~", ".+")], [("team", "!=", OWN)], [("team", "=", ""), ("job", "=", "j")]]
    for types, wanted in itertools.product(((), (1,)), matchers):
        body = requests.snappy(request(query(OLD, NOW, *wanted), accept=types))
        yield Form(f"{v1}/read", {}, "POST", body, READ_HEADERS)
    for question, accept in [(text, accept) for text in QUESTIONS for accept in _accepts(text)]:
        headers = {"content-type": "application/sql", "accept": accept}
        yield Form(f"{v1}/sql", {}, "POST", question.encode(), headers)
    yield Form(f"{v1}/status/tsdb", {"limit": "100"})
    for by, order in itertools.product(("metric", "team", "label", "pair", "team,host"), ("series", "created")):
        asked = {"by": by, "order": order, "limit": "100", "since": "30d"}
        yield Form(f"{v1}/status/cardinality", asked)
        yield Form(f"{v1}/status/cardinality", {**asked, "match[]": '{team!="apple",__name__!=""}'})
    for path in ("/", "/graph", "/ui/console.js", f"{v1}/status/buildinfo", f"{v1}/status/queries"):
        yield Form(path, shows=False)
    for path in ("/", f"{v1}/events"):
        yield Form(path, {"stream": "log", "index": "3"}, "POST", b"1", {"accept": "application/json"}, shows=False)
    yield Form(f"{v1}/import", {}, "POST", _imported(), {"content-type": CONTENT_TYPE}, shows=False)


def _accepts(question: str) -> tuple[str, ...]:
    """All forms of answers to what asks for whole rows; of the others one."""
    return ACCEPTS if question.startswith("SELECT * FROM") and "LIMIT" not in question else ACCEPTS[:1]


def _imported() -> bytes:
    return encode(SeriesRows([b'imported{team="apple"}'], np.zeros(1, np.int64), np.array([NOW]), np.ones(1)), [])


ELSEWHERE = {
    "/api/v1/tail": "test_tails_show_nothing_of_others",
    "/api/v1/events/ws": "test_a_stream_of_the_same_name_is_another",
    "/api/v1/admin/queries/{id}/cancel": "test_queries_of_others_are_neither_seen_nor_stopped",
}
"""Routes that are tried by a test of their own."""


def words(answer: Response) -> bytes:
    """All that an answer says, whatever it is packed in."""
    kind = answer.headers.get("content-type", "")
    if "parquet" in kind and answer.status == 200:
        return answer.body + repr(pq.read_table(io.BytesIO(answer.body)).to_pylist()).encode()
    if "arrow" in kind and answer.status == 200:
        return answer.body + repr(pa.ipc.open_stream(answer.body).read_all().to_pylist()).encode()
    if answer.headers.get("content-encoding") == "snappy":
        return decompress(answer.body, 1 << 24)
    return answer.body + repr(answer.headers).encode()


def routes() -> list[Endpoint]:
    nothing: Any = None
    return endpoints(nothing, HttpOptions())


def test_every_route_that_is_open_to_tenants_is_tried() -> None:
    tried = {form.path for form in forms()} | ELSEWHERE.keys()
    for endpoint in routes():
        if endpoint.bound:
            pattern = endpoint.path.replace("{name}", "team").replace("{file}", "console.js")
            assert {endpoint.path, pattern} & tried, f"{endpoint.path}: say how it is asked"
    assert all(name in globals() for name in ELSEWHERE.values())


def test_no_answer_has_anything_of_others_in_it(own: Tenant, whole: Tenant) -> None:
    shown: dict[str, bool] = {}
    for form in forms():
        answer = own.ask(form)
        assert answer.status in (200, 409, 422), (form, answer.text)
        assert OTHER.encode() not in words(answer), form
        if form.shows and not shown.get(form.path):
            shown[form.path] = OTHER.encode() in words(whole.ask(form))
    assert all(shown.values()), f"these forms would not find anything: {shown}"


def past_forms() -> Iterator[tuple[Form, int]]:
    """Ways to ask what is answered past the router, and the status; series are another's, or of a name that is."""
    text = {"content-type": "text/plain"}
    lines = b"zebra_total,team=pear value=9\n"
    written = requests.snappy(requests.v1([requests.Series({"__name__": "zebra_total", "team": "pear"}, [(NOW, 9.0)])]))
    yield Form("/api/v1/write", {}, "POST", written, requests.headers()), 400
    yield Form("/write", {"db": "x"}, "POST", lines, text), 400
    yield Form("/api/v2/write", {"bucket": "x"}, "POST", lines, text), 422
    for method in ("GET", "POST"):
        yield Form("/query", {"q": "SHOW DATABASES"}, method), 200
        yield Form("/query", {"q": "SELECT * FROM up"}, method), 400
    yield Form("/ping", {"verbose": "true"}), 200
    for path in PUSH_PATHS:
        yield Form(path, {}, "POST", b""), 404


def test_what_is_answered_past_the_router_is_narrowed_too(own: Tenant, whole: Tenant) -> None:
    nothing: Any = None
    assert {form.path for form, _ in past_forms()} == past_the_router(nothing).keys(), "say how it is asked"
    for form, status in past_forms():
        answer = own.ask(form)
        assert (form.path, answer.status) == (form.path, status), answer.text
        assert OTHER.encode() not in words(answer).replace(b"zebra_total", b"")
    found = whole.ask(Form("/api/v1/series", {"match[]": '{team="pear"}'})).json()["data"]
    assert found == []


def test_tenants_see_what_is_theirs(own: Tenant) -> None:
    for at, count in ((NOW, 1), (OLD + 59 * MINUTE, 1)):
        asked = {"query": EVERY, "time": at / 1000, "lookback_delta": "10m"}
        found = own.ask(Form("/api/v1/query", asked)).json()["data"]["result"]
        hosts = [series["metric"].get("host") for series in found if series["metric"]["__name__"] == "up"]
        assert hosts == ["apple-host"] * count
    sql = {"content-type": "application/sql"}
    question = (
        b"SELECT message, typeof(payload.level), payload.level + 1 FROM logs WHERE message IS NOT NULL ORDER BY time"
    )
    found = own.ask(Form("/api/v1/sql", {}, "POST", question, sql)).json()["data"]["rows"]
    assert found == [
        ["apple says 0", "BIGINT", 1],
        ["apple says 100", "BIGINT", 101],
        ["apple says 100", "BIGINT", 101],
    ]


def test_the_history_of_a_host_is_of_ones_own_share(own: Tenant, whole: Tenant) -> None:
    asked = Form("/telemetry/history", {"host": "shop", "range": "24h"})
    shares = [[sample["requests_sec"] for sample in each.ask(asked).json()["samples"]] for each in (own, whole)]
    assert shares[0]
    assert shares[1] == [2 * share for share in shares[0]]
    past = {"host": "shop", "start": OLD / 1000, "end": OLD / 1000 + 3599, "step": "10m"}
    aggregates = own.ask(Form("/telemetry/history", past)).json()["samples"]
    assert [sample["requests_sec"] for sample in aggregates] == [1] * 6
    assert own.ask(Form("/telemetry/hosts")).json() == {"hosts": ["shop"]}


def test_what_concerns_the_whole_server_is_refused(own: Tenant) -> None:
    for endpoint in routes():
        needed = [endpoint.needs(_Fake(method)) for method in endpoint.methods]  # type: ignore[arg-type]
        if endpoint.bound or needed[0] is None:
            continue
        assert set(needed) <= set(Permission)
        path = endpoint.path.replace("{id}", "1").replace("{name}", "x")
        for method in set(endpoint.methods) - {"HEAD"}:
            answer = own.ask(Form(path, {}, method, b"" if method != "GET" else None))
            assert answer.status == 403, (method, path)
            assert "bound" in answer.text


@dataclass
class _Fake:
    method: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query_params: Mapping[str, str] = field(default_factory=dict)


# ---- what is not one question and one answer ------------------------------------------------------------------------


def test_queries_of_others_are_neither_seen_nor_stopped(server: ServerProcess, own: Tenant, whole: Tenant) -> None:
    other = Tenant(server, OTHER)
    slow = b"SELECT count(*) AS zebra FROM range(100000000000) a"
    sql = {"content-type": "application/sql"}
    asking = threading.Thread(target=lambda: other.ask(Form("/api/v1/sql", {}, "POST", slow, sql)))
    asking.start()

    def listed(tenant: Tenant) -> list[Any]:
        queries: list[Any] = tenant.ask(Form("/api/v1/status/queries")).json()["data"]["queries"]
        return queries

    try:
        eventually(lambda: listed(whole))
        [running] = listed(other)
        assert listed(own) == []
        for number in (running["id"], running["id"] + 1):
            refused = own.ask(Form(f"/api/v1/admin/queries/{number}/cancel", {}, "POST"))
            assert (refused.status, OTHER in refused.text) == (404, False)
        assert listed(other)
    finally:
        assert other.ask(Form(f"/api/v1/admin/queries/{listed(whole)[0]['id']}/cancel", {}, "POST")).status == 200
        asking.join()


def test_a_stream_of_the_same_name_is_another(server: ServerProcess, own: Tenant) -> None:
    """Others have brought five and seven events of streams of that name."""
    upgrade = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    for name in (OWN, OTHER, "all"):
        expected = {OWN: "2", OTHER: "6", "all": "8"}[name]
        gap = Form("/api/v1/events/ws", {"stream": "log", "index": "50"}, headers=upgrade)
        answer = Tenant(server, name).ask(gap)
        assert (answer.status, answer.headers["x-stream-next"]) == (409, expected)
        assert OTHER not in answer.headers["x-reason"]
    body = b'{"type":"log"}'
    gap = Form("/api/v1/events", {"stream": "zebra", "index": "2"}, "POST", body)
    assert own.ask(gap).headers["x-stream-next"] == "1"


NUMBERS = itertools.count(1000)


@pytest.mark.parametrize(
    "parameters",
    [
        {"kind": "events"},
        {"kind": "events", "filter": "type=log"},
        {"kind": "events", "text": "says"},
        {"kind": "events", "stream": ["log", *map(str, range(1, 20))]},
        {"kind": "samples"},
        {"kind": "samples", "match": [EVERY, '{team!="apple",__name__!=""}']},
    ],
)
def test_tails_show_nothing_of_others(
    server: ServerProcess, own: Tenant, whole: Tenant, parameters: Mapping[str, object]
) -> None:
    target = Form("/api/v1/tail", {"since": "25d", **parameters}).target
    with own.opened(target) as mine, whole.opened(target) as everything:
        read = _read_until(mine, b"apple")
        _read_until(everything, b"zebra")
        if "stream" in parameters:
            return
        number = next(NUMBERS)
        for name in (OTHER, "all", OWN):  # the last is what is waited for
            labels = [each for each in label_sets() if name == "all" or each.get("team") == name]
            series = [requests.Series(each, [(NOW + number, float(number))]) for each in labels]
            body = requests.snappy(requests.v1(series))
            tenant = Tenant(server, name)
            assert tenant.ask(Form("/api/v1/write", {}, "POST", body, requests.headers())).status == 204
            text = event(OTHER if name == "all" else name, number)
            assert tenant.ask(Form("/", {}, "POST", text)).text == "1"
        last = f'"value":{number}' if parameters["kind"] == "samples" else f"apple says {number}"
        read += _read_until(mine, last.encode())
    assert b"zebra" not in read


def _read_until(answer: HTTPResponse, text: bytes) -> bytes:
    read = b""
    while text not in read:
        line = answer.readline()
        assert line, read
        read += line
    return read
