"""The endpoint of SQL: what becomes a job for the workers, and what is refused before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamgauge.query.requests import SqlFormat, SqlQuery
from streamgauge.serve.services import HttpOptions
from streamgauge.serve.sql_api import MAX_REQUEST_BYTES, PATH

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}


async def asked(served: Any, body: object, headers: dict[str, str] | None = None) -> SqlQuery:
    response = await served.http.post(PATH, content=json.dumps(body), headers=JSON | (headers or {}))
    assert response.status_code == 200, response.text
    query: SqlQuery = served.services.workers.jobs[-1].query
    return query


async def test_a_request_becomes_a_job(served):
    query = await asked(served, {"query": "SELECT $1", "params": ["a", 1, 2.5, True, None]})
    assert query == SqlQuery("SELECT $1", SqlFormat.JSON, (("1", "a"), ("2", 1), ("3", 2.5), ("4", True), ("5", None)))
    assert served.services.workers.jobs[-1].limits == HttpOptions().limits


async def test_parameters_may_have_names(served):
    query = await asked(served, {"query": "SELECT $level", "params": {"level": "ERROR"}})
    assert query.parameters == (("level", "ERROR"),)


async def test_a_query_may_come_as_it_is(served):
    for kind in ("application/sql", "Application/SQL; charset=utf-8", "text/plain"):
        response = await served.http.post(PATH, content="SELECT 'é'", headers={"content-type": kind})
        assert response.status_code == 200
        assert served.services.workers.jobs[-1].query == SqlQuery("SELECT 'é'")


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", SqlFormat.JSON),
        ("*/*", SqlFormat.JSON),
        ("application/json", SqlFormat.JSON),
        ("application/x-ndjson", SqlFormat.NDJSON),
        ("text/csv;q=0.9, application/json", SqlFormat.CSV),
        ("text/html, application/vnd.apache.arrow.stream, */*", SqlFormat.ARROW),
        ("Application/Vnd.Apache.Parquet", SqlFormat.PARQUET),
    ],
)
async def test_accept_chooses_the_format(served, accept: str, form: SqlFormat):
    assert (await asked(served, {"query": "SELECT 1"}, {"accept": accept})).format is form


async def test_a_format_that_is_not_there_is_refused(served, assert_error):
    response = await served.http.post(PATH, content="SELECT 1", headers={"accept": "text/html"})
    assert_error(response, 415, "bad_data", "text/csv")


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"SELECT 1", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"[]", 'the body has no "query"'),
        (b'{"query": 1}', 'the body has no "query"'),
        (b'{"query": "SELECT 1", "parameters": []}', '"parameters"'),
        (b'{"query": "SELECT 1", "params": "a"}', "params is a list"),
        (b'{"query": "SELECT $1", "params": [[1]]}', "the parameter $1 is a list or an object"),
    ],
)
async def test_a_body_that_is_no_query_is_refused(served, assert_error, body: bytes, part: str):
    assert_error(await served.http.post(PATH, content=body, headers=JSON), 400, "bad_data", part)
    assert served.services.workers.jobs == []


async def test_other_types_are_refused(served, assert_error):
    response = await served.http.post(PATH, data={"query": "SELECT 1"})
    assert_error(response, 415, "bad_data", "application/sql")
    response = await served.http.post(PATH, content=b"\xff", headers={"content-type": "application/sql"})
    assert_error(response, 400, "bad_data", "not UTF-8")


async def test_a_body_that_is_too_large_is_refused(served, assert_error):
    response = await served.http.post(PATH, content=b" " * (MAX_REQUEST_BYTES + 1), headers=JSON)
    assert_error(response, 413, "bad_data", f"{MAX_REQUEST_BYTES} bytes")
