"""/api/v1/admin/tsdb/snapshot, as Prometheus has it."""

from __future__ import annotations

import pytest

from streamgauge.serve.services import HttpOptions

pytestmark = pytest.mark.anyio

PATH = "/api/v1/admin/tsdb/snapshot"


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_answers_with_the_name(serve, method):
    served = await serve(HttpOptions(admin_api=True))
    answer = await served.http.request(method, PATH)
    assert (answer.status_code, served.services.snapshots) == (200, [False])
    assert answer.json() == {"status": "success", "data": {"name": "20261126T120000Z-0123456789abcdef"}}


@pytest.mark.parametrize(("word", "skips"), [("true", True), ("1", True), ("T", True), ("false", False), ("", False)])
async def test_skip_head_is_one_of_prometheus_words(serve, word, skips):
    served = await serve(HttpOptions(admin_api=True))
    assert (await served.http.post(f"{PATH}?skip_head={word}")).status_code == 200
    assert served.services.snapshots == [skips]


async def test_another_word_is_refused(serve, assert_error):
    served = await serve(HttpOptions(admin_api=True))
    assert_error(await served.http.post(f"{PATH}?skip_head=yes"), 400, "bad_data", '"yes" is neither true nor false')
    assert served.services.snapshots == []


async def test_must_be_enabled_and_is_no_get(serve, served, assert_error):
    assert_error(await served.http.post(PATH), 503, "unavailable", "admin APIs disabled")
    enabled = await serve(HttpOptions(admin_api=True))
    assert (await enabled.http.get(PATH)).status_code == 405
    assert served.services.snapshots == enabled.services.snapshots == []
