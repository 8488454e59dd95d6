"""Who may push where nobody else is asked."""

from __future__ import annotations

import hashlib
import json

import pytest

from streamgauge.auth.cluster_settings import PushToken
from streamgauge.auth.push_authorizer import Anybody, LocalTokens, Nobody, PushAuthorizer, short_hash
from streamgauge.auth.receive_credentials import ReceiveCredentials
from streamgauge.errors import Forbidden, Unauthorized

pytestmark = pytest.mark.anyio


def shown(token: str, cluster: str) -> ReceiveCredentials:
    return ReceiveCredentials(json.dumps([token, cluster]).encode(), token, cluster)


def known(name: str, token: str, *clusters: str) -> PushToken:
    return PushToken(name, hashlib.sha256(token.encode()).hexdigest(), clusters)


@pytest.mark.parametrize(
    ("text", "digest"), [("tok", "5dudn3526b7tt"), ("c", "auouu9i303rvi"), ("test", "fjpn6tscnoap5")]
)
async def test_the_reference_calls_accounts_by_these_names(text: str, digest: str) -> None:
    assert short_hash(text) == digest
    assert await Anybody().account(text, "any") == digest
    assert await Anybody().confirm(shown(text, "any")) == digest
    assert Anybody().confirmed(shown(text, "any")) == digest


async def test_nobody_is_let_in_where_nothing_says_who_may() -> None:
    with pytest.raises(Forbidden, match="neither push-tokens nor authorize"):
        await Nobody().account("a", "b")
    with pytest.raises(Forbidden):
        await Nobody().confirm(shown("a", "b"))
    assert Nobody().confirmed(shown("a", "b")) is None


@pytest.mark.parametrize("others", [None, Nobody(), Anybody()])
async def test_a_token_of_the_configuration_is_good_for_its_clusters(others: PushAuthorizer | None) -> None:
    tokens = LocalTokens([known("all", "one"), known("some", "two", "a", "b")], others)
    assert await tokens.account("one", "anything") == "all"
    assert await tokens.account("two", "b") == "some"
    assert await tokens.confirm(shown("two", "a")) == "some"
    assert [tokens.confirmed(shown("two", cluster)) for cluster in "abA"] == ["some", "some", None]
    for attempt in (tokens.account("two", "c"), tokens.confirm(shown("two", "A")), tokens.account("two", "а")):
        with pytest.raises(Forbidden, match='"some" may not push for this cluster'):
            await attempt


async def test_other_tokens_go_to_who_is_asked_or_are_refused() -> None:
    tokens = [known("all", "one")]
    assert await LocalTokens(tokens, Anybody()).account("tok", "x") == "5dudn3526b7tt"
    assert await LocalTokens(tokens, Anybody()).confirm(shown("tok", "x")) == "5dudn3526b7tt"
    assert LocalTokens(tokens, Anybody()).confirmed(shown("tok", "x")) == "5dudn3526b7tt"
    assert LocalTokens(tokens).confirmed(shown("tok", "x")) is None
    for token in ("", "on", "one ", "ONE", tokens[0].sha256):
        with pytest.raises(Unauthorized, match="unauthorized"):
            await LocalTokens(tokens).account(token, "x")
        with pytest.raises(Unauthorized, match="unauthorized"):
            await LocalTokens(tokens).confirm(shown(token, "x"))
