"""Every route fails in the same way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import Disabled, FolderInUse, IndexConflict, NotReady, Overloaded, StreamgaugeError
from streamgauge.serve.app import allowed, endpoints
from streamgauge.serve.endpoint import Endpoint
from streamgauge.serve.errors import POST_ALONE, failure, wants_envelope
from streamgauge.serve.services import HttpOptions, Replay

pytestmark = pytest.mark.anyio


@pytest.fixture
async def table(served, clock: ManualClock) -> list[Endpoint]:
    return endpoints(served.services, HttpOptions())


def concrete(endpoint: Endpoint) -> str:
    return endpoint.path.replace("{name}", "job").replace("{id}", "7").replace("{file}", "console.js")


def plain_type(path: str) -> str:
    """What answers to errors are that have no envelope of the API's: text, or the JSON of the stats API of relays."""
    return "application/json" if path.startswith("/pulse/") else "text/plain; charset=utf-8"


async def test_every_route_refuses_other_methods_and_says_which_it_takes(served, table, assert_error):
    for endpoint in table:
        path = concrete(endpoint)
        response = await served.http.patch(path)
        if path in POST_ALONE:
            assert (response.status_code, response.text) == (404, "404 page not found\n")
            continue
        assert response.headers["allow"] == ", ".join(sorted(endpoint.methods)), path
        if wants_envelope(path):
            assert_error(response, 405, "bad_data", "this path takes")
        else:
            assert (response.status_code, response.headers["content-type"]) == (405, plain_type(path))


@pytest.mark.parametrize("enabled", [True, False])
async def test_what_the_admin_api_may_do_must_be_enabled(table, enabled: bool):
    admin = replace(table[0], admin=True)
    plain, gated = allowed([table[0], admin], HttpOptions(admin_api=enabled))
    assert plain is table[0]
    assert (gated is admin) == enabled
    if not enabled:
        with pytest.raises(Disabled, match=r"admin APIs disabled.*--enable-admin-api"):
            await gated.handler(None, None)


async def test_every_route_but_probes_and_the_page_waits_for_the_replay(served, table, assert_error):
    served.services.state = Replay(1, 3, False)
    open_ones = set()
    for endpoint in table:
        path = concrete(endpoint)
        response = await served.http.request(endpoint.methods[0], path)
        if response.status_code == 200:
            open_ones.add(endpoint.path)
        elif wants_envelope(path):
            assert_error(response, 503, "unavailable", "1 of 3")
        else:
            assert (response.status_code, response.headers["content-type"]) == (503, plain_type(path))
    assert open_ones == {"/", "/graph", "/ui/{file}", "/metrics", "/-/healthy", "/api/v1/status/walreplay"}


@pytest.mark.parametrize(
    "path", ["/api/v1/nothing", "/api/v2/query", "/api/", "/api/v1/query/", "/api/v1/label//values"]
)
async def test_an_unknown_api_path_has_the_envelope(served, assert_error, path: str):
    assert_error(await served.http.get(path), 404, "not_found", "nothing at this path")


@pytest.mark.parametrize("path", ["/nothing", "/ui/nothing", "/ui/..%2fconsole.py", "/-/quit", "/api"])
async def test_an_unknown_path_elsewhere_is_text(served, path: str):
    response = await served.http.get(path)
    assert (response.status_code, response.text) == (404, "there is nothing at this path\n")


async def test_a_bug_is_a_500_that_shows_nothing_and_is_logged(served, assert_error, caplog):
    response = await served.http.post("/api/v1/status/check")
    assert_error(response, 500, "internal", "the server's log says more")
    assert "secret" not in response.text
    assert "/secret/path" in caplog.text


def tree(error: type[StreamgaugeError]) -> list[type[StreamgaugeError]]:
    """An error and all below it in the module of errors; some modules have one of their own, for themselves."""
    ours = [child for child in error.__subclasses__() if child.__module__ == StreamgaugeError.__module__]
    return [error, *(below for child in ours for below in tree(child))]


@pytest.mark.parametrize("error", tree(StreamgaugeError))
def test_every_error_of_ours_has_a_status_and_a_kind(error: type[StreamgaugeError]):
    more = (7,) if error is IndexConflict else ()
    response = failure("/api/v1/query", error("a sentence", *more))
    assert response.status_code == error.status
    assert b'"error": "a sentence"' in response.body


def test_when_to_come_again():
    assert failure("/api/v1/query", Overloaded("slower", retry_after=9)).headers["retry-after"] == "9"
    assert "retry-after" not in failure("/api/v1/query", NotReady("soon")).headers
    assert "retry-after" not in failure("/api/v1/query", FolderInUse("by another")).headers
