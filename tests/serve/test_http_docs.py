"""docs/http.md names every route, its methods and its parameters, and none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamgauge.serve import influx_api
from streamgauge.serve.app import endpoints
from streamgauge.serve.connections import ConnectionLimits
from streamgauge.serve.remote_read import MAX_REQUEST_BYTES
from streamgauge.serve.services import HttpOptions
from streamgauge.serve.upload_api import PUSH_PATHS
from streamgauge.wire.remote_read import MAX_FIELDS
from streamgauge.wire.xor_chunks import CHUNK_SAMPLES

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "http.md"
ROW = re.compile(r"\| ((?:`[A-Z]+` )+)`(/[^`]*)` \|([^|]*)\|")
METHODS = {"GET", "POST", "PUT", "DELETE"}


async def test_every_route_is_documented_with_its_parameters(served):
    written = {
        path: (set(re.findall(r"[A-Z]+", methods)), re.findall(r"`([^`]+)`", params))
        for methods, path, params in ROW.findall(PAGE.read_text())
    }
    routes = {
        endpoint.path: (METHODS & set(endpoint.methods), list(endpoint.params))
        for endpoint in endpoints(served.services, HttpOptions())
    }
    past_the_router = {path: {"POST"} for path in ("/api/v1/write", *PUSH_PATHS)}
    past_the_router |= {path: METHODS & set(methods) for path, methods in influx_api.METHODS.items()}
    parameters = {path: list(influx_api.PARAMETERS[path]) for path in influx_api.METHODS}
    assert written == routes | {path: (methods, parameters.get(path, [])) for path, methods in past_the_router.items()}


def test_the_limits_are_those_of_the_code():
    text, limits = PAGE.read_text(), ConnectionLimits()
    for shown in (
        f"| {limits.header_bytes // 1024} KiB | 431",
        f"| {limits.target_bytes // 1024} KiB | 414",
        f"| {limits.header_seconds:g} s | 408",
        f"| {limits.body_rate // 1000} kB/s, after {limits.grace_seconds:g} s | 408",
        f"| {limits.answer_rate // 1000} kB/s, after",
        f"| {limits.idle_seconds:g} s | closed",
        f"| {limits.pipelined} | reset",
        f"| {limits.connections:,},",
    ):
        assert shown in text


def test_the_limits_of_a_read_request_are_those_of_the_code():
    text = " ".join(PAGE.read_text().split())
    assert f"at most {MAX_REQUEST_BYTES // 1024} KiB before and after" in text
    assert f"at most {MAX_FIELDS:,} fields" in text
    assert f"chunks of {CHUNK_SAMPLES}" in text
