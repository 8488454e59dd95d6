"""/api/v1/admin/tsdb/delete_series and clean_tombstones, with the parameters and answers of Prometheus."""

from __future__ import annotations

import pytest

from streamgauge.serve.deletion_api import MAX_SELECTORS
from streamgauge.serve.params import MAX_TIME, MIN_TIME
from streamgauge.serve.services import HttpOptions

pytestmark = pytest.mark.anyio

DELETE = "/api/v1/admin/tsdb/delete_series"
CLEAN = "/api/v1/admin/tsdb/clean_tombstones"


@pytest.fixture
async def admin(serve):
    return await serve(HttpOptions(admin_api=True))


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_selectors_and_times_are_passed_on(admin, method: str):
    response = await admin.http.request(method, f"{DELETE}?match[]=up&match[]=down&start=1.5&end=1970-01-01T00:00:02Z")
    assert (response.status_code, response.content) == (204, b"")
    response = await admin.http.request(method, DELETE, data={"match[]": '{job="a"}'})
    assert response.status_code == 204
    assert admin.services.deleted == [(("up", "down"), 1500, 2000), (('{job="a"}',), MIN_TIME, MAX_TIME)]


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_cleaning_takes_no_parameters(admin, method: str):
    response = await admin.http.request(method, CLEAN)
    assert (response.status_code, response.content) == (204, b"")
    assert admin.services.cleaned == 1


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ("", "no match[] parameter provided"),
        ("start=1&end=2", "no match[] parameter provided"),
        ("match[]=up&start=2&end=1", "end timestamp must not be before start"),
        ("match[]=up&start=soon", 'invalid parameter "start"'),
        ("&".join(["match[]=up"] * (MAX_SELECTORS + 1)), f"at most {MAX_SELECTORS} match[]"),
    ],
)
async def test_what_is_wrong_is_said_and_nothing_is_deleted(admin, assert_error, query: str, part: str):
    assert_error(await admin.http.post(f"{DELETE}?{query}"), 400, "bad_data", part)
    assert admin.services.deleted == []


@pytest.mark.parametrize("path", [f"{DELETE}?match[]=up", CLEAN])
async def test_both_are_off_unless_enabled(served, assert_error, path: str):
    assert_error(await served.http.post(path), 503, "unavailable", "admin APIs disabled")
    assert_error(await served.http.get(path), 405, "bad_data", "POST, PUT")
    assert (served.services.deleted, served.services.cleaned) == ([], 0)
