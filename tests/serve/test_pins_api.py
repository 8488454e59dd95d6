"""/api/v1/admin/pins: for those who know the folder's key, and nobody else."""

from __future__ import annotations

import pytest

from streamgauge.model.token import KEY_HEADER
from streamgauge.serve.pins_api import PATH

pytestmark = pytest.mark.anyio

KEY = {KEY_HEADER: "a key"}


async def test_a_pin_is_taken_renewed_and_ended(served):
    answer = await served.http.post(PATH, headers=KEY)
    assert answer.json() == {"status": "success", "data": {"id": "7", "state": {}}}
    assert (await served.http.post(f"{PATH}/7", headers=KEY)).status_code == 200
    assert (await served.http.delete(f"{PATH}/7", headers=KEY)).status_code == 200
    assert served.services.pins == []


async def test_one_that_has_ended_is_not_renewed(served, assert_error):
    assert_error(await served.http.post(f"{PATH}/8", headers=KEY), 404, "not_found", "has ended")


@pytest.mark.parametrize("headers", [{}, {KEY_HEADER: ""}, {KEY_HEADER: "a kex"}, {KEY_HEADER: "ä key"}])
@pytest.mark.parametrize(("method", "path"), [("POST", PATH), ("POST", f"{PATH}/7"), ("DELETE", f"{PATH}/7")])
async def test_nobody_else(served, assert_error, headers, method, path):
    served.services.pins.append("7")
    raw = {name: value.encode() for name, value in headers.items()}
    assert_error(await served.http.request(method, path, headers=raw), 403, "forbidden", "folder's lock")
    assert served.services.pins == ["7"]


async def test_without_a_key_there_is_none(served, assert_error):
    served.services.folder_key = ""
    assert_error(await served.http.post(PATH, headers={KEY_HEADER: ""}), 403, "forbidden", "folder's lock")
