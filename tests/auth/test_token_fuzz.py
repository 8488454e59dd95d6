"""Signed tokens that somebody made up or changed: refused, or what the good one says, and never anything else."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import jwt
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.auth.cluster_tokens import CLAIM, ClusterTokens
from streamgauge.auth.identity import Permission
from streamgauge.auth.jwks import KeySet
from streamgauge.auth.jwt_tokens import Issuer, Issuers
from streamgauge.auth.refused import Refused
from streamgauge.auth.rules import Grant, IssuerRule
from streamgauge.auth.signing_keys import generate_key, read_key
from streamgauge.clock import ManualClock
from streamgauge.errors import Unauthorized
from streamgauge.testing.signer import Signer, key_set

CLOCK = ManualClock()
NOW = CLOCK.now_ms() // 1000
ISSUER, AUDIENCE = "https://login.example", "streamgauge"
RULE = IssuerRule(
    ISSUER,
    (AUDIENCE,),
    ("RS256",),
    Grant(frozenset()),
    scopes={"r": frozenset({Permission.READ})},
    labels={"team": "org"},
)
SIGNER = Signer()
KEY = read_key(generate_key(), "one")

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(
        [ISSUER, AUDIENCE, "r", "a", "RS256", "none", "telemeter.selfsigned", "telemeter-client", NOW + 9]
    )
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just("labels"), inner, max_size=3)
    ),
    max_leaves=5,
)


async def _published() -> bytes:
    return key_set(SIGNER)


def of_an_issuer(text: str) -> object:
    """None where it is refused."""

    async def ask() -> object:
        try:
            return await Issuers([Issuer(RULE, KeySet(ISSUER, _published, CLOCK))]).identity(text, CLOCK.now_ms())
        except Refused as error:
            assert error.message
            return None

    return asyncio.run(ask())


def of_a_cluster(text: str) -> object:
    """None where it is refused."""
    try:
        return ClusterTokens([KEY], CLOCK).verify(text)
    except Unauthorized as error:
        assert error.message
        return None


GOOD_CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": "svc", "org": "a", "scope": "r", "exp": NOW + 300}
CLUSTER_CLAIMS = {
    "iss": "telemeter.selfsigned",
    "aud": "telemeter-client",
    "sub": "me",
    "exp": NOW + 300,
    "iat": NOW,
    "nbf": NOW,
    CLAIM: {"labels": {"_id": "a"}},
}


def by_the_issuer(content: bytes) -> str:
    return jwt.PyJWS().encode(content, SIGNER.key, "RS256", {"kid": SIGNER.kid})


def by_the_server(content: bytes) -> str:
    return jwt.PyJWS().encode(content, KEY.private, KEY.algorithm)


KINDS: list[tuple[Callable[[str], object], Callable[[bytes], str], dict[str, Any]]] = [
    (of_an_issuer, by_the_issuer, GOOD_CLAIMS),
    (of_a_cluster, by_the_server, CLUSTER_CLAIMS),
]
TOKENS = [(verify, sign(json.dumps(claims).encode())) for verify, sign, claims in KINDS]

CHANGES = st.tuples(st.integers(0, 1_000), st.integers(0, 3), st.text("Aa.-_=+/ {\x00é", max_size=3))


@given(st.sampled_from(TOKENS), st.lists(CHANGES, min_size=1, max_size=3))
def test_fuzz_a_token_that_was_changed_says_what_it_said_or_nothing(
    good: tuple[Callable[[str], object], str], changes: list[tuple[int, int, str]]
) -> None:
    verify, text = good
    meant = verify(text)
    assert meant is not None
    for at, gone, put in changes:
        at %= len(text) + 1
        text = text[:at] + put + text[at + gone :]
    assert verify(text) in (None, meant)


@given(
    st.sampled_from([verify for verify, _ in TOKENS]),
    JSON,
    JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(GOOD_CLAIMS, JSON)),
    st.binary(max_size=8),
)
def test_fuzz_what_nobody_signed_is_refused(
    verify: Callable[[str], object], header: Any, claims: Any, signature: bytes
) -> None:
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    assert verify(".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)) is None


@settings(deadline=None)
@given(st.sampled_from(KINDS), st.data())
def test_fuzz_claims_that_are_signed_are_good_or_refused(
    kind: tuple[Callable[[str], object], Callable[[bytes], str], dict[str, Any]], data: st.DataObject
) -> None:
    verify, sign, claims = kind
    changed = data.draw(st.dictionaries(st.sampled_from([*claims, "nbf", "iat"]), JSON, min_size=1, max_size=2))
    content = data.draw(st.just({**claims, **changed}) | JSON)
    found = verify(sign(json.dumps(content).encode()))
    if found is not None:
        assert isinstance(content, dict)
        assert NOW - 100 < content["exp"] < 1 << 53
        assert content["iss"] == claims["iss"]
        assert claims["aud"] in content["aud"]


@given(st.sampled_from([verify for verify, _ in TOKENS]), st.text(st.characters(max_codepoint=255), max_size=60))
def test_fuzz_garbage_is_no_token(verify: Callable[[str], object], text: str) -> None:
    assert verify(text) is None
