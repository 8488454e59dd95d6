"""Who may send what."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from starlette.requests import Request

from streamgauge.auth.authenticator import Credentials
from streamgauge.auth.identity import Identity, Permission
from streamgauge.errors import Forbidden, Unauthorized
from streamgauge.serve.access import admit
from streamgauge.serve.endpoint import administers, identity_of, is_open, reads, writes

READER = Identity("grafana", frozenset({Permission.READ}))
TENANT = Identity("a", frozenset({Permission.READ, Permission.WRITE}), (("team", "a"),))


class ByHeader:
    """Knows two by the whole of their Authorization header."""

    async def identify(self, credentials: Credentials) -> Identity:
        known: Mapping[str, Identity] = {"reader": READER, "tenant": TENANT}
        if len(credentials.authorization) != 1 or credentials.authorization[0] not in known:
            raise Unauthorized("a token is needed", ("Bearer",))
        return known[credentials.authorization[0]]


def scope_with(*authorization: str) -> dict[str, object]:
    headers = [(b"authorization", value.encode()) for value in authorization]
    return {"type": "http", "method": "GET", "path": "/", "headers": headers}


@pytest.mark.anyio
async def test_who_sends_a_request_is_known_to_its_handler() -> None:
    scope = scope_with("reader")
    await admit(scope, reads, False, ByHeader())
    assert identity_of(Request(scope)) is READER


@pytest.mark.anyio
@pytest.mark.parametrize("authorization", [(), ("nobody",), ("reader", "reader")])
async def test_without_one_good_token_nobody_comes_in(authorization: tuple[str, ...]) -> None:
    with pytest.raises(Unauthorized):
        await admit(scope_with(*authorization), reads, False, ByHeader())


@pytest.mark.anyio
@pytest.mark.parametrize("needs", [writes, administers])
async def test_a_reader_neither_writes_nor_administers(needs: object) -> None:
    with pytest.raises(Forbidden, match="grafana"):
        await admit(scope_with("reader"), needs, True, ByHeader())  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_whoever_is_bound_comes_only_where_bounds_hold() -> None:
    await admit(scope_with("tenant"), writes, True, ByHeader())
    with pytest.raises(Forbidden, match="bound"):
        await admit(scope_with("tenant"), reads, False, ByHeader())


@pytest.mark.anyio
async def test_what_is_open_asks_nobody() -> None:
    await admit(scope_with(), is_open, False, ByHeader())
