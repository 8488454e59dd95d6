"""Tokens from a real endpoint: fetched once, used while they last, fetched again when they are refused."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import FetchFailed
from streamgauge.http.client import Resolver
from streamgauge.http.oauth2 import TokenSource
from streamgauge.http.options import ClientCredentials, Secret
from streamgauge.testing.target import HttpTarget, Request, answer, http_target

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def endpoint() -> AsyncIterator[HttpTarget]:
    async with http_target() as serving:
        yield serving


@pytest.fixture
async def resolver() -> AsyncIterator[Resolver]:
    resolver = Resolver()
    yield resolver
    resolver.close()


def token(serving: HttpTarget, **more: Any) -> None:
    """Give tokens, each another one."""

    def reply(request: Request) -> bytes:
        return answer(json.dumps({"access_token": f"t{len(serving.requests)}", "token_type": "bearer", **more}))

    serving.reply = reply


def form(request: Request) -> dict[str, list[str]]:
    return urllib.parse.parse_qs(request.body.decode())


async def test_a_token_is_used_until_shortly_before_it_expires(
    endpoint: HttpTarget, resolver: Resolver, tmp_path: Path
) -> None:
    clock, secret = ManualClock(), tmp_path / "secret"
    secret.write_text("p:ss\n")
    known = ClientCredentials(
        "me@x", Secret(file=str(secret)), endpoint.url("/token"), ("a", "b"), (("audience", "metrics"),)
    )
    source = TokenSource(known, resolver, clock)
    token(endpoint, expires_in=60)
    assert await asyncio.gather(*(source.authorization() for _ in range(3))) == ["Bearer t1"] * 3
    (asked,) = endpoint.requests
    assert (asked.method, asked.target) == ("POST", "/token")
    assert form(asked) == {"grant_type": ["client_credentials"], "scope": ["a b"], "audience": ["metrics"]}
    assert asked.headers["authorization"] == "Basic " + base64.b64encode(b"me%40x:p%3Ass").decode()
    await clock.advance(53)
    assert await source.authorization() == "Bearer t1"
    secret.write_text("renewed")
    await clock.advance(2)
    assert await source.authorization() == "Bearer t2"
    assert endpoint.requests[1].headers["authorization"].endswith(base64.b64encode(b"me%40x:renewed").decode())
    source.refused("Bearer t1")
    assert await source.authorization() == "Bearer t2", "that was an older one"
    source.refused("Bearer t2")
    assert await source.authorization() == "Bearer t3"
    source.close()


async def test_a_server_may_want_the_secret_in_the_body(endpoint: HttpTarget, resolver: Resolver) -> None:
    def reply(request: Request) -> bytes:
        if "client_secret" in form(request):
            return answer(json.dumps({"access_token": "x"}))
        return answer("no", status="401 Unauthorized")

    endpoint.reply = reply
    source = TokenSource(ClientCredentials("me", Secret("s"), endpoint.url()), resolver, ManualClock())
    assert await source.authorization() == "Bearer x"
    source.refused("Bearer x")
    assert await source.authorization() == "Bearer x"
    assert len(endpoint.requests) == 3, "the second time it is asked as it was answered"
    source.close()


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (answer("secret", status="503 Down"), "503 Down"),
        (answer("[]"), "has no access_token"),
        (answer("{"), "has no access_token"),
        (answer('{"access_token": ""}'), "has no access_token"),
    ],
)
async def test_an_answer_without_a_token(endpoint: HttpTarget, resolver: Resolver, reply: bytes, words: str) -> None:
    endpoint.reply = reply
    source = TokenSource(ClientCredentials("me", Secret("hunter2"), endpoint.url("/t?x=y")), resolver, ManualClock())
    with pytest.raises(FetchFailed, match=words) as failed:
        await source.authorization()
    assert "hunter2" not in failed.value.message
    assert "/t?x=…" in failed.value.message
    source.close()


async def test_a_secret_goes_where_it_was_meant_to_go_and_nowhere_else(
    endpoint: HttpTarget, resolver: Resolver
) -> None:
    async with http_target() as other:
        headers = {"location": other.url("/token")}
        endpoint.reply = answer(b"", status="307 Temporary Redirect", headers=headers)
        credentials = ClientCredentials("me", Secret("pass"), endpoint.url("/token"))
        source = TokenSource(credentials, resolver, ManualClock())
        with pytest.raises(FetchFailed, match="the answer is 307 Temporary Redirect"):
            await source.authorization()
        assert other.requests == []
        source.close()
