"""The paths of InfluxDB: parameters, credentials, and errors as its clients know them."""

from __future__ import annotations

import base64
import json

import pytest

from streamgauge.auth.tokens import Tokens, new_token
from streamgauge.errors import ReadOnly
from streamgauge.serve.services import Replay

pytestmark = pytest.mark.anyio

BODY = b"m,x=1 v=2 5"
WRITE, WRITE_V2 = "/write?db=any&precision=ms", "/api/v2/write?org=o&bucket=b&precision=ms"


@pytest.mark.parametrize("path", [WRITE, WRITE_V2])
async def test_lines_are_stored(served, path: str):
    response = await served.http.post(path, content=BODY)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["x-influxdb-version"].startswith("1.8")
    assert served.services.push_sink.samples(__name__="m_v", x="1") == [(5, 2.0)]
    assert served.stats.requests == {(path.partition("?")[0], 204): 1}


@pytest.mark.parametrize(
    ("path", "time"),
    [
        ("/write?db=a", 1_700_000_000),
        ("/write?db=a&precision=n", 1_700_000_000),
        ("/write?db=a&precision=u", 1_700_000_000_000),
        ("/write?db=a&precision=%C2%B5", 1_700_000_000_000),
        ("/api/v2/write?bucket=b", 1_700_000_000),
        ("/api/v2/write?bucket=b&precision=us", 1_700_000_000_000),
    ],
)
async def test_precisions_by_their_names(served, path: str, time: int):
    served.services.push_sink.window = (0, 1 << 60)
    assert (await served.http.post(path, content=b"m v=2 1700000000000000")).status_code == 204
    assert served.services.push_sink.samples(__name__="m_v") == [(time, 2.0)]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/write", "database is required"),
        ("/write?db=a&precision=x", 'invalid precision "x"; valid are ns, us, ms, s, n, u, µ, m, h'),
        ("/api/v2/write", "bucket is required"),
        ("/api/v2/write?bucket=b&precision=h", 'invalid precision "h"; valid are ns, us, ms, s'),
    ],
)
async def test_parameters_that_are_wrong_are_told_and_nothing_is_stored(served, path: str, message: str):
    response = await served.http.post(path, content=BODY)
    assert response.status_code == 400
    if path.startswith("/api/v2"):
        assert response.json() == {"code": "invalid", "message": message}
        assert response.headers["x-platform-error-code"] == "invalid"
    else:
        assert response.json() == {"error": message}
        assert response.headers["x-influxdb-error"] == message.replace("µ", "?")
    assert not served.services.push_sink.batches


async def test_a_partial_write_is_told_as_both_versions_tell_it(served):
    text = 'field type conflict: input field "s" on measurement "m" is type string, already exists as type float'
    response = await served.http.post(WRITE, content=b'm s="x",v=1\nm\xc3\xa4\n')
    assert response.status_code == 400
    assert response.json()["error"] == f"partial write: {text}\nunable to parse 'mä': missing fields dropped=1"
    assert "\n" not in response.headers["x-influxdb-error"]
    response = await served.http.post(WRITE_V2, content=b'm s="x",v=1')
    assert (response.status_code, response.json()["code"]) == (422, "unprocessable entity")
    assert response.json()["message"] == f"partial write: {text} dropped=1"
    response = await served.http.post(WRITE_V2, content=b"m")
    assert (response.status_code, response.json()["code"]) == (400, "invalid")


async def test_troubles_of_the_server_can_be_tried_again(served):
    served.services.push_sink.failure = ReadOnly("the disk is full")
    for path, code in ((WRITE, None), (WRITE_V2, "unavailable")):
        response = await served.http.post(path, content=BODY)
        assert (response.status_code, response.json().get("code")) == (503, code)
        assert response.headers["retry-after"] == "5"
    served.services.state = Replay(0, 3, False)
    assert (await served.http.post(WRITE, content=BODY)).headers["retry-after"] == "1"


async def test_a_bomb_is_refused(served):
    response = await served.http.post(WRITE, content=b"nothing", headers={"content-encoding": "gzip"})
    assert response.status_code == 400
    response = await served.http.post(WRITE_V2, content=b"x" * (17 << 20))
    assert (response.status_code, response.json()["code"]) == (413, "request too large")


async def test_ping_is_open_and_tells_a_version(served):
    served.authorities.asks = True
    for method in ("GET", "HEAD"):
        response = await served.http.request(method, "/ping")
        assert response.status_code == 204
        assert response.headers["x-influxdb-build"] == "streamgauge"
    assert (await served.http.get("/ping?verbose=true")).json() == {"version": response.headers["x-influxdb-version"]}
    assert (await served.http.post("/ping")).status_code == 405


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_databases_can_be_made_and_are_none(served, method: str):
    async def ask(text: str):
        return await served.http.request(method, "/query", params={"q": text, "db": "x"})

    for text in ('CREATE DATABASE "telegraf"', "create database a_1", 'CREATE DATABASE "a\\"b" WITH DURATION 1d'):
        response = await ask(text)
        assert (response.status_code, response.json()) == (200, {"results": [{"statement_id": 0}]})
    both = (await ask("CREATE DATABASE a; SHOW DATABASES;")).json()["results"]
    assert both[1] == {"statement_id": 1, "series": [{"name": "databases", "columns": ["name"]}]}
    for text in ("", ";", "SELECT * FROM cpu", "CREATE DATABASE", "DROP DATABASE a", "CREATE DATABASE a b"):
        response = await ask(text)
        assert response.status_code == 400
        assert response.json().keys() == {"error"}


async def test_a_statement_may_come_in_a_form(served):
    response = await served.http.post("/query", data={"q": "SHOW DATABASES"})
    assert response.json()["results"][0]["series"]


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def test_whoever_may_write_shows_it_in_any_of_influxdbs_ways(served):
    text, token = new_token("t", ["write"], [("team", "a")], 0, None)
    reader, other = new_token("r", ["read"], [], 0, None)
    served.authorities.tokens = Tokens([token, other])
    served.authorities.asks = True
    for headers, parameters in (
        ({"authorization": f"Token {text}"}, ""),
        ({"authorization": f"token any:{text}"}, ""),
        ({"authorization": f"Bearer {text}"}, ""),
        ({"authorization": basic("any", text)}, ""),
        ({}, f"&u=any&p={text}"),
        ({}, f"&p={text}"),
    ):
        for path in (WRITE, WRITE_V2):
            assert (await served.http.post(path + parameters, content=BODY, headers=headers)).status_code == 204
        asked = f"/query?q=SHOW+DATABASES{parameters}"
        assert (await served.http.get(asked, headers=headers)).status_code == 200
    assert served.services.bindings == [(("team", "a"),)] * 12
    for headers, parameters, status in (
        ({}, "", 401),
        ({"authorization": "Token sg_nonsense"}, "", 401),
        ({"authorization": f"Token {text}"}, f"&u=any&p={text}", 401),
        ({"authorization": f"Token {reader}"}, "", 403),
        ({}, "&u=any&p=wrong", 401),
    ):
        response = await served.http.post(WRITE + parameters, content=BODY, headers=headers)
        assert (response.status_code, list(response.json())) == (status, ["error"])
        assert (status == 401) == ("www-authenticate" in response.headers)
        response = await served.http.post(WRITE_V2 + parameters, content=BODY, headers=headers)
        assert response.json()["code"] == {401: "unauthorized", 403: "forbidden"}[status]
    assert text not in json.dumps(response.json())
