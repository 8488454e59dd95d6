"""What routes do for somebody who is bound to labels: every question says for whom it is asked, and no answer of the
server itself is of others."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import streamgauge.serve
from streamgauge.auth.authenticator import Credentials
from streamgauge.auth.identity import EVERYBODY, Identity
from streamgauge.model.view import EVERYTHING, View
from streamgauge.query.requests import FederateQuery, RunningQuery
from streamgauge.serve.app import endpoints
from streamgauge.serve.services import HttpOptions

pytestmark = pytest.mark.anyio
VIEW = View((("team", "a"),), "a")
TOKEN = {"authorization": "Bearer a"}


class ByToken:
    async def identify(self, credentials: Credentials) -> Identity:
        if list(credentials.authorization) == ["Bearer a"]:
            return Identity("a", EVERYBODY.permissions, VIEW.labels)
        return EVERYBODY


@pytest.fixture
async def tenant(served, monkeypatch):
    monkeypatch.setattr(served.services.authenticator, "identify", ByToken().identify)
    return served


def test_questions_are_made_in_one_place() -> None:
    """So that none of them can leave out who asks."""
    for path in Path(streamgauge.serve.__path__[0]).rglob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        made = [call for call in calls if isinstance(call, ast.Name) and call.id == "Job"]
        assert bool(made) == (path.name == "jobs.py"), path


async def test_every_question_is_asked_for_whoever_asks_it(tenant):
    asked = [
        ("GET", "/api/v1/query?query=up"),
        ("GET", "/api/v1/series?match[]=up"),
        ("GET", "/api/v1/labels"),
        ("GET", "/federate?match[]=up"),
        ("GET", "/api/v1/status/tsdb"),
        ("GET", "/api/v1/status/cardinality"),
    ]
    for method, path in asked:
        for headers in (TOKEN, {}):
            assert (await tenant.http.request(method, path, headers=headers)).status_code == 200
    sql = {"content-type": "application/sql"}
    for headers in (TOKEN, {}):
        assert (await tenant.http.post("/api/v1/sql", content="SELECT 1", headers=sql | headers)).status_code == 200
    jobs = [(job.view, job.sender) for job in tenant.services.workers.jobs]
    assert jobs == [(VIEW, "a"), (EVERYTHING, "")] * (len(asked) + 1)


async def test_types_of_metrics_are_told_to_those_who_see_all(tenant):
    for headers in (TOKEN, {}):
        await tenant.http.get("/federate?match[]=up", headers=headers)
    own, all_types = (job.query for job in tenant.services.workers.jobs)
    assert isinstance(own, FederateQuery)
    assert own.types == ()
    assert ("up", "gauge") in all_types.types
    assert (await tenant.http.get("/api/v1/metadata", headers=TOKEN)).status_code == 403


async def test_queries_of_others_are_neither_seen_nor_stopped(tenant):
    workers = tenant.services.workers
    other = View((("team", "b"),), "b")
    running = [
        RunningQuery(6, "mine", 0, "running", 1, "a", VIEW),
        RunningQuery(7, "theirs", 0, "running", 1, "b", other),
        RunningQuery(8, "of a namesake", 0, "running", 1, "a", EVERYTHING),
    ]
    workers.running = lambda: running
    workers.cancel = lambda number: workers.cancelled.append(number) or True
    seen = (await tenant.http.get("/api/v1/status/queries", headers=TOKEN)).json()["data"]["queries"]
    assert [query["query"] for query in seen] == ["mine"]
    answers = [await tenant.http.post(f"/api/v1/admin/queries/{n}/cancel", headers=TOKEN) for n in (6, 7, 8, 9)]
    assert [answer.status_code for answer in answers] == [200, 404, 404, 404]
    assert answers[1].text.replace("7", "9") == answers[3].text
    assert workers.cancelled == [6]
    assert len((await tenant.http.get("/api/v1/status/queries")).json()["data"]["queries"]) == 3
    assert (await tenant.http.post("/api/v1/admin/queries/7/cancel")).status_code == 200


async def test_writers_are_bound(tenant):
    for headers in (TOKEN, {}):
        await tenant.http.post("/api/v1/write", content=b"x", headers=headers)
        await tenant.http.post("/api/v1/import", content=b"x", headers=headers)
    assert tenant.services.bindings == [VIEW.labels] * 2 + [()] * 2


@pytest.mark.parametrize("path", ["/", "/api/v1/events"])
async def test_streams_belong_to_whoever_is_bound(tenant, path: str):
    named = {"x-stream-id": "log", "x-stream-index": "1"}
    for headers in (TOKEN, TOKEN | named, named, {}):
        assert (await tenant.http.post(path, content=b"1", headers=headers)).status_code == 200
    streams = list(tenant.services.event_sink.streams.values())
    assert [json.loads(stream.headers).get(":owner") for stream in streams] == ["a", "a", None, None]
    assert streams[1].name != streams[2].name == "log"
    gap = await tenant.http.post(path, content=b"1", headers=TOKEN | named | {"x-stream-index": "5"})
    assert (gap.status_code, gap.headers["x-stream-next"]) == (409, "2")


def test_the_page_of_tenants_names_every_route_that_is_theirs() -> None:
    nothing: Any = None
    text = (Path(__file__).parents[2] / "docs" / "tenants.md").read_text()
    for endpoint in endpoints(nothing, HttpOptions()):
        name = endpoint.path.removeprefix("/api/v1/").removeprefix("label/").split("/")[-1]
        known = {"/", "/graph", "/ui/{file}", "/api/v1/events/ws", "/api/v1/admin/queries/{id}/cancel"}
        if endpoint.bound and endpoint.path not in known:
            assert name in text, endpoint.path
