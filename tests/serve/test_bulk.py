"""The mount of the import API."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.anyio

IMPORT = "/api/v1/import"


async def test_the_body_reaches_the_receiver_and_its_account_the_client(served):
    body = bytes(range(256)) * 1_000
    response = await served.http.post(IMPORT, content=body, headers={"Content-Type": "application/x-some"})
    assert response.status_code == 200
    assert response.json() == {"status": "success", "data": {"stored": 2, "refused": {}, "examples": []}}
    ((headers, received),) = served.services.imported
    assert received == body
    assert headers["content-type"] == "application/x-some"


async def test_other_methods_are_not_taken(served, assert_error):
    assert_error(await served.http.get(IMPORT), 405, "bad_data", "POST")
