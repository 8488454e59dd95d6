"""The server finds out from the issuer's document where its own tokens are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl

import pytest

from streamgauge.auth.cluster_settings import Oidc
from streamgauge.auth.oidc import OidcTokens
from streamgauge.clock import ManualClock
from streamgauge.errors import FetchFailed
from streamgauge.http.client import Resolver
from streamgauge.http.options import Secret

pytestmark = pytest.mark.anyio


class Issuer:
    """Gives its document at first, then tokens."""

    def __init__(self) -> None:
        self.url = ""
        self.document: object = None
        self.requests: list[str] = []
        self.forms: list[dict[str, str]] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(head.splitlines()[0])
        answer: object = self.document or {"issuer": self.url, "token_endpoint": f"{self.url}/token"}
        if head.startswith("POST"):
            length = next(int(line[15:]) for line in head.splitlines() if line.startswith("content-length:"))
            self.forms.append(dict(parse_qsl((await reader.readexactly(length)).decode())))
            answer = {"access_token": f"token-{len(self.forms)}", "token_type": "bearer", "expires_in": 100}
        body = json.dumps(answer).encode()
        writer.write(f"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        writer.close()


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    server = await asyncio.start_server(issuer.handle, "127.0.0.1", 0)
    issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/realm"
    yield issuer
    server.close()


async def test_tokens_are_asked_for_where_the_issuer_says(issuer: Issuer, resolver: Resolver) -> None:
    clock = ManualClock()
    tokens = OidcTokens(Oidc(issuer.url, "me", Secret("hunter2"), "telemetry"), resolver, clock)
    assert [await tokens.authorization() for _ in range(2)] == ["Bearer token-1"] * 2
    tokens.refused("Bearer token-1")
    assert await tokens.authorization() == "Bearer token-2"
    await clock.advance(95)
    assert await tokens.authorization() == "Bearer token-3"
    assert issuer.forms[0] == {"grant_type": "client_credentials", "audience": "telemetry"}
    assert [line.split()[1] for line in issuer.requests] == [
        "/realm/.well-known/openid-configuration",
        *["/realm/token"] * 3,
    ]
    tokens.close()


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "http://other", "token_endpoint": "http://other/token"},
        {"token_endpoint": "http://x/token"},
        {"issuer": "URL", "token_endpoint": "file:///etc/passwd"},
        [1],
    ],
)
async def test_a_document_of_somebody_else_is_not_believed(
    issuer: Issuer, resolver: Resolver, document: object
) -> None:
    issuer.document = json.loads(json.dumps(document).replace("URL", issuer.url))
    tokens = OidcTokens(Oidc(issuer.url, "me"), resolver, ManualClock())
    with pytest.raises(FetchFailed):
        await tokens.authorization()
    issuer.document = None
    assert await tokens.authorization() == "Bearer token-1"
    tokens.close()
