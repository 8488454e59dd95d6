"""The authorities of a server: tokens made while it runs, the configuration, and what damage does."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamgauge.auth.authenticator import Credentials
from streamgauge.auth.identity import EVERYBODY, Permission
from streamgauge.auth.rules import AuthRules, Grant, TokenRule
from streamgauge.auth.tokens import digest_of
from streamgauge.authentication import Authentication
from streamgauge.clock import ManualClock
from streamgauge.errors import Corrupt, NotFound, Unauthorized
from streamgauge.stats import Stats
from streamgauge.store.names import tokens_file

pytestmark = pytest.mark.anyio

RULES = AuthRules((TokenRule("fixed", digest_of("fixed"), Grant(frozenset({Permission.READ}))),))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def opened(data: Path, stats: Stats | None = None) -> Authentication:
    authentication = Authentication(data, ManualClock(), stats or Stats())
    authentication.load()
    return authentication


async def name(authentication: Authentication, token: str) -> str:
    return (await authentication.authorities.identify(Credentials((f"Bearer {token}",)))).name


async def test_the_first_token_closes_the_door_for_good(tmp_path: Path) -> None:
    authentication = opened(tmp_path)
    assert await authentication.authorities.identify(Credentials()) is EVERYBODY
    text, _ = await authentication.create("ci", ["read"], [], None)
    for each in (authentication, opened(tmp_path)):
        assert await name(each, text) == "token:ci"
        with pytest.raises(Unauthorized):
            await each.authorities.identify(Credentials())
    version = authentication.authorities.version
    await authentication.revoke("ci")
    assert authentication.authorities.version > version
    for each in (authentication, opened(tmp_path)):
        with pytest.raises(Unauthorized):
            await name(each, text)
    with pytest.raises(NotFound):
        await authentication.revoke("ci")


async def test_a_damaged_file_lets_nobody_in_and_is_kept(tmp_path: Path) -> None:
    text, _ = await opened(tmp_path).create("ci", ["read"], [], None)
    damaged = tokens_file(tmp_path).read_bytes()[:-4]
    tokens_file(tmp_path).write_bytes(damaged)
    authentication = opened(tmp_path)
    with pytest.raises(Unauthorized):
        await name(authentication, text)
    with pytest.raises(Corrupt):
        await authentication.create("other", ["read"], [], None)
    assert tokens_file(tmp_path).read_bytes() == damaged
    authentication.apply(RULES)
    assert await name(authentication, "fixed") == "token:fixed"


async def test_the_configuration_comes_and_goes(tmp_path: Path) -> None:
    authentication = opened(tmp_path)
    authentication.apply(RULES)
    assert await name(authentication, "fixed") == "token:fixed"
    authentication.apply(AuthRules())
    with pytest.raises(Unauthorized):
        await name(authentication, "fixed")
    authentication.apply(None)
    assert await name(authentication, "fixed") == ""


async def test_refusals_are_counted_by_reason(tmp_path: Path) -> None:
    stats = Stats()
    authentication = opened(tmp_path, stats)
    authentication.apply(RULES)
    for _ in range(3):
        with pytest.raises(Unauthorized):
            await name(authentication, "wrong")
    assert b'streamgauge_auth_refused_total{reason="unknown"} 3.0' in stats.exposition()
    authentication.close()
