"""Every route with what it needs, held against docs/security.md: a new one cannot be forgotten."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.requests import Request

from streamgauge.auth.identity import Permission
from streamgauge.serve import influx_api
from streamgauge.serve.app import endpoints
from streamgauge.serve.services import HttpOptions

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
WORDS = {
    "nothing": {None},
    "`read`": {Permission.READ},
    "`write`": {Permission.WRITE},
    "`write` to send, else `read`": {Permission.READ, Permission.WRITE},
    "`admin`": {Permission.ADMIN},
}


def needs(endpoint) -> set[Permission | None]:
    """What it needs, over all methods, and as a WebSocket."""
    found = set()
    for method in endpoint.methods:
        for headers in ([], [(b"upgrade", b"websocket")]):
            scope = {"type": "http", "method": method, "path": endpoint.path, "query_string": b"", "headers": headers}
            found.add(endpoint.needs(Request(scope)))
    return found


async def test_every_route_is_listed_with_what_it_needs(served):
    rows = re.findall(r"^\| ([^|]+) \| ((?:`/[^`]*` ?)+)\|$", PAGE.read_text(), re.MULTILINE)
    assert [words for words, _ in rows] == list(WORDS)
    listed = {path: WORDS[words] for words, paths in rows for path in re.findall(r"`(/[^`]*)`", paths)}
    routes = {endpoint.path: needs(endpoint) for endpoint in endpoints(served.services, HttpOptions())}
    past_the_router = {"/api/v1/write": {Permission.WRITE}}
    past_the_router |= {
        path: {None if path == influx_api.PING_PATH else Permission.WRITE} for path in influx_api.METHODS
    }
    assert listed == routes | past_the_router


async def test_what_changes_something_needs_more_than_reading(served):
    """Whatever takes PUT or DELETE, or POST without GET, but for remote read, which only asks."""
    asking = {"/api/v1/read", "/api/v1/sql", "/api/v1/admin/queries/{id}/cancel", "/authorize"}
    for endpoint in endpoints(served.services, HttpOptions()):
        changes = {"PUT", "DELETE"} & set(endpoint.methods) or "GET" not in endpoint.methods
        if changes and endpoint.path not in asking:
            assert needs(endpoint) <= {Permission.WRITE, Permission.ADMIN}, endpoint.path
