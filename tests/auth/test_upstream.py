"""Another service is asked who may push. What it says reaches the client as a status, and nothing else of it does."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator

import pytest

from streamgauge.auth import upstream
from streamgauge.auth.answer_cache import AnswerCache
from streamgauge.auth.authority_stats import AuthorityStats
from streamgauge.auth.receive_credentials import ReceiveCredentials, read_credentials
from streamgauge.auth.upstream import AWAY, IN_USE, Upstream, read_assent
from streamgauge.clock import ManualClock
from streamgauge.errors import (
    FetchFailed,
    Forbidden,
    NotFound,
    Overloaded,
    RateLimited,
    StreamgaugeError,
    Unauthorized,
    UpstreamRefused,
)
from streamgauge.http.client import Resolver
from streamgauge.stats import Stats

from .conftest import Answering, members

pytestmark = pytest.mark.anyio


class Setup:
    def __init__(self, url: str, resolver: Resolver, tokens: upstream.Tokens | None = None) -> None:
        self.clock = ManualClock()
        self.stats = Stats()
        stats = AuthorityStats(self.stats)
        self.cache = AnswerCache(read_assent, self.clock, stats, 60_000)
        self.upstream = Upstream(url, resolver, self.cache, self.clock, stats, tokens)

    def close(self) -> None:
        self.upstream.close()


@pytest.fixture
async def setup(authority: Answering, resolver: Resolver) -> AsyncIterator[Setup]:
    setup = Setup(authority.url, resolver)
    yield setup
    setup.close()
    await asyncio.sleep(0)


def shown(cluster: str = "c", token: str = "t") -> ReceiveCredentials:
    text = json.dumps({"authorization_token": token, "cluster_id": cluster}).encode()
    return read_credentials("Bearer " + base64.b64encode(text).decode())


async def test_asks_as_the_reference_does(authority: Answering, setup: Setup) -> None:
    assert await setup.upstream.account("tök", "c 1") == "me"
    assert authority.asked[0].decode() == '{"cluster_id":"c 1","authorization_token":"tök","account_id":""}'
    head = authority.heads[0].lower()
    assert head.startswith("post /authorize?x=1 http/1.1\r\n")
    assert "content-type: application/json\r\n" in head
    assert "accept: application/json\r\n" in head
    assert "\r\nauthorization:" not in head


REFUSALS = [
    (401, Unauthorized, "unauthorized"),
    (403, Forbidden, "forbidden"),
    (404, NotFound, "not found"),
    (409, UpstreamRefused, IN_USE),
    (418, UpstreamRefused, "upstream rejected request with code 418"),
    (429, RateLimited, "rate limited, please try again later"),
]


@pytest.mark.parametrize(("status", "kind", "message"), REFUSALS)
async def test_a_refusal_keeps_its_status(
    authority: Answering, setup: Setup, status: int, kind: type[StreamgaugeError], message: str
) -> None:
    authority.status, authority.body = status, b'{"reason":"secret upstream text"}'
    for attempt in (setup.upstream.account("t", "c"), setup.upstream.confirm(shown())):
        with pytest.raises(kind) as refused:
            await attempt
        assert (refused.value.status, refused.value.message) == (status, message)
    if kind is RateLimited:
        assert isinstance(refused.value, RateLimited)
        assert refused.value.retry_after == 300


@pytest.mark.parametrize("status", [204, 301, 307, 500, 502, 503])
async def test_whatever_is_no_answer_is_an_outage(authority: Answering, setup: Setup, status: int) -> None:
    authority.status, authority.body = status, b"" if status == 204 else b'{"account_id":"secret"}'
    authority.headers = "location: /elsewhere\r\n" if status in (301, 307) else ""
    for attempt in (setup.upstream.account("t", "c"), setup.upstream.confirm(shown())):
        with pytest.raises(Overloaded) as away:
            await attempt
        assert (away.value.message, away.value.retry_after, away.value.status) == (AWAY, 30, 503)
    assert len(authority.asked) == 2


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"account_id":""}', b'{"account_id":5}', b"x" * 40_000])
async def test_an_assent_without_an_account_is_none(authority: Answering, setup: Setup, body: bytes) -> None:
    authority.body = body
    with pytest.raises(Overloaded, match="cannot be asked"):
        await setup.upstream.account("t", "c")


@pytest.mark.parametrize("status", [200, 401])
async def test_a_page_of_a_proxy_is_no_answer(authority: Answering, setup: Setup, status: int) -> None:
    authority.status, authority.kind = status, "text/html"
    with pytest.raises(Overloaded):
        await setup.upstream.account("t", "c")
    authority.status, authority.kind = 201, "Application/JSON; charset=utf-8"
    assert await setup.upstream.account("t", "c") == "me"


async def test_nobody_there_is_an_outage_and_is_told_once(
    resolver: Resolver, authority: Answering, caplog: pytest.LogCaptureFixture
) -> None:
    setup = Setup("http://user:hunter2@127.0.0.1:1/x", resolver)
    for _ in range(2):
        with pytest.raises(Overloaded):
            await setup.upstream.account("t", "c")
    assert len([record for record in caplog.records if "cannot be asked" in record.message]) == 1
    assert "hunter2" not in caplog.text
    assert b'authority_requests_total{code="0"} 2.0' in setup.stats.exposition()


async def test_a_silent_authority_is_an_outage(
    authority: Answering, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "TIMEOUT_SECONDS", 0.01)
    authority.silent = True
    with pytest.raises(Overloaded):
        await setup.upstream.account("t", "c")


async def test_a_silent_authority_does_not_make_a_queue_without_end(
    authority: Answering, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "MAX_WAITING", 3)
    authority.silent = True
    asking = [asyncio.create_task(setup.upstream.confirm(shown(token="a")))]
    asking += [asyncio.create_task(setup.upstream.account("t", "c")) for _ in range(2)]
    await authority.arrived.wait()
    with pytest.raises(Overloaded, match="too many wait"):
        await setup.upstream.account("t", "c")
    with pytest.raises(Overloaded, match="too many wait"):
        await setup.upstream.confirm(shown(token="b"))
    same = asyncio.create_task(setup.upstream.confirm(shown(token="a")))  # no question more
    authority.go_on.set()
    assert await asyncio.gather(*asking, same) == ["me"] * 4
    assert await setup.upstream.account("t", "c") == "me"


async def test_credentials_are_passed_on_as_they_came_and_asked_about_once(authority: Answering, setup: Setup) -> None:
    authority.silent = True
    waiting = [asyncio.create_task(setup.upstream.confirm(shown())) for _ in range(100)]
    await authority.arrived.wait()
    authority.go_on.set()
    assert set(await asyncio.gather(*waiting)) == {"me"}
    assert authority.asked == [shown().raw]
    assert await setup.upstream.confirm(shown()) == "me"
    assert setup.upstream.confirmed(shown()) == "me"
    assert setup.upstream.confirmed(shown("another")) is None
    assert len(authority.asked) == 1
    await setup.upstream.confirm(shown("another"))
    assert len(authority.asked) == 2


async def test_an_assent_for_another_cluster_is_none(authority: Answering, setup: Setup) -> None:
    authority.body = b'{"account_id":"me","cluster_id":"mine"}'
    assert await setup.upstream.confirm(shown("mine")) == "me"
    with pytest.raises(Forbidden):
        await setup.upstream.confirm(shown("victim"))
    assert setup.upstream.confirmed(shown("victim")) is None
    assert setup.upstream.confirmed(shown("mine")) == "me"


async def test_an_assent_without_json_is_one_for_credentials(authority: Answering, setup: Setup) -> None:
    authority.kind, authority.body = "text/plain", b"ok"
    assert await setup.upstream.confirm(shown()) == ""


class Tokens:
    """Of the server itself, each used until it is refused."""

    def __init__(self) -> None:
        self.number = 1
        self.away = False

    async def authorization(self) -> str:
        if self.away:
            raise FetchFailed("the issuer is away")
        return f"Bearer own-{self.number}"

    def refused(self, authorization: str) -> None:
        self.number += 1

    def close(self) -> None:
        pass


async def test_a_token_of_ours_that_is_refused_is_renewed(authority: Answering, resolver: Resolver) -> None:
    tokens = Tokens()
    setup = Setup(authority.url, resolver, tokens)
    authority.choose = lambda head, body: (
        (401, b"{}") if "own-1" in head or members(body)["authorization_token"] == "bad" else None
    )
    assert await setup.upstream.account("t", "c") == "me"
    assert [head.partition("authorization: ")[2].splitlines()[0] for head in authority.heads] == [
        "Bearer own-1",
        "Bearer own-2",
    ]
    for _ in range(5):  # clients with bad tokens do not make us ask for one after the other
        with pytest.raises(Unauthorized):
            await setup.upstream.account("bad", "c")
    assert tokens.number == 2
    tokens.away = True
    with pytest.raises(Overloaded):
        await setup.upstream.account("t", "c")
    setup.close()
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("dumped", "good"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", False),
        (b"", False),
        (b"\x00\xff", False),
    ],
)
async def test_what_is_kept_is_a_whole_response(dumped: bytes, good: bool) -> None:
    assert (read_assent(dumped) is not None) == good


async def test_answers_are_kept_under_the_digest_of_the_credentials(authority: Answering, resolver: Resolver) -> None:
    class Shared:
        def __init__(self) -> None:
            self.values: dict[str, bytes] = {}

        async def get(self, key: str) -> bytes | None:
            return self.values.get(key)

        async def set(self, key: str, value: bytes) -> None:
            self.values[key] = value

        def close(self) -> None:
            pass

    clock, stats = ManualClock(), AuthorityStats(Stats())
    shared = Shared()
    asked = Upstream(authority.url, resolver, AnswerCache(read_assent, clock, stats, 0, shared), clock, stats)
    assert await asked.confirm(shown()) == "me"
    ((key, value),) = shared.values.items()
    assert key == hashlib.sha256(shown().raw).hexdigest()
    assert value == (
        b'HTTP/1.1 200 OK\r\nContent-Length: 19\r\nContent-Type: application/json\r\n\r\n{"account_id":"me"}'
    )
    assert await asked.confirm(shown()) == "me"
    assert len(authority.asked) == 1
    asked.close()
    await asyncio.sleep(0)
