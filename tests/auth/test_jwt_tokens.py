"""Signed tokens: what is good, and everything that must not be."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.algorithms import ECAlgorithm, OKPAlgorithm
from jwt.warnings import InsecureKeyLengthWarning

from streamgauge.auth.identity import Permission
from streamgauge.auth.jwks import INTERVAL_SECONDS, KEEP_SECONDS, REFRESH_SECONDS, KeySet, parse_keys
from streamgauge.auth.jwt_tokens import LEEWAY_SECONDS, Issuer, Issuers
from streamgauge.auth.refused import Refused
from streamgauge.auth.rules import Grant, IssuerRule
from streamgauge.clock import ManualClock
from streamgauge.errors import FetchFailed, NotReady
from streamgauge.testing.signer import Signer, key_set

pytestmark = pytest.mark.anyio

ISSUER, AUDIENCE = "https://login.example", "streamgauge"
RULE = IssuerRule(
    ISSUER,
    (AUDIENCE, "other"),
    ("RS256", "ES256", "EdDSA"),
    Grant(frozenset()),
    scopes={"telemetry.read": frozenset({Permission.READ}), "all": frozenset(Permission)},
    labels={"team": "org"},
)
SIGNER, STRANGER, NEXT = Signer("one"), Signer("one"), Signer("two")


class Published:
    """What an issuer publishes, and how often it was asked."""

    def __init__(self, document: bytes) -> None:
        self.document: bytes | None = document
        self.asked = 0

    async def fetch(self) -> bytes:
        self.asked += 1
        if self.document is None:
            raise FetchFailed("it is away")
        return self.document


@pytest.fixture
def published() -> Published:
    return Published(key_set(SIGNER))


@pytest.fixture
def keys(published: Published, clock: ManualClock) -> KeySet:
    return KeySet(ISSUER, published.fetch, clock)


@pytest.fixture
def issuers(keys: KeySet) -> Issuers:
    return Issuers([Issuer(RULE, keys)])


def claims(clock: ManualClock, **more: Any) -> dict[str, Any]:
    now = clock.now_ms() // 1000
    return {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "svc",
        "org": "a",
        "scope": "telemetry.read x",
        "exp": now + 300,
        **more,
    }


def lines(header: dict[str, Any], payload: dict[str, Any]) -> str:
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, payload)
    )


async def test_a_good_token_tells_name_scopes_labels_and_when_it_ends(issuers: Issuers, clock: ManualClock) -> None:
    identity = await issuers.identity(SIGNER.sign(claims(clock)), clock.now_ms())
    assert identity.name == f"jwt:{ISSUER}:svc"
    assert identity.permissions == {Permission.READ}
    assert identity.bound == (("team", "a"),)
    assert identity.expires == (clock.now_ms() // 1000 + 300 + LEEWAY_SECONDS) * 1000


async def test_nobody_is_called_like_somebody_of_another_issuer(published: Published, clock: ManualClock) -> None:
    rules = [RULE, replace(RULE, issuer=f"{ISSUER}:8443")]
    issuers = Issuers([Issuer(rule, KeySet(rule.issuer, published.fetch, clock)) for rule in rules])
    theirs = await issuers.identity(SIGNER.sign(claims(clock, iss=f"{ISSUER}:8443", sub="bob")), clock.now_ms())
    assert theirs.name == f"jwt:{ISSUER}:8443:bob"
    with pytest.raises(Refused, match="like one of another issuer"):
        await issuers.identity(SIGNER.sign(claims(clock, sub="8443:bob")), clock.now_ms())
    other = await issuers.identity(SIGNER.sign(claims(clock, sub="844:bob")), clock.now_ms())
    assert other.name == f"jwt:{ISSUER}:844:bob"


async def test_audiences_and_scopes_may_be_lists(issuers: Issuers, clock: ManualClock) -> None:
    text = SIGNER.sign(claims(clock, aud=["x", "other"], scope=["all", 7, None]))
    assert (await issuers.identity(text, clock.now_ms())).permissions == set(Permission)


async def refused(issuers: Issuers, clock: ManualClock, text: str) -> str:
    with pytest.raises(Refused) as raised:
        await issuers.identity(text, clock.now_ms())
    assert text not in raised.value.message
    return raised.value.message


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"iss": "https://evil.example"}, "no issuer"),
        ({"iss": [ISSUER]}, "no issuer"),
        ({"iss": f"{ISSUER}/"}, "no issuer"),
        ({"aud": "another"}, "another audience"),
        ({"aud": []}, "another audience"),
        ({"aud": {AUDIENCE: 1}}, "another audience"),
        ({"aud": None}, "another audience"),
        ({"exp": None}, "does not say when"),
        ({"exp": 1_700_000_000 - LEEWAY_SECONDS}, "expired"),
        ({"exp": "tomorrow"}, "no time"),
        ({"exp": True}, "no time"),
        ({"exp": float("inf")}, "no time"),
        ({"exp": float("nan")}, "no time"),
        ({"exp": 1e300}, "no time"),
        ({"nbf": 1_700_000_000 + LEEWAY_SECONDS + 1}, "not good yet"),
        ({"iat": 1_700_000_000 + LEEWAY_SECONDS + 1}, "not good yet"),
        ({"sub": ""}, "no name"),
        ({"sub": None}, "no name"),
        ({"sub": 7}, "no name"),
        ({"sub": "a\nb"}, "no name"),
        ({"org": None}, "no org"),
        ({"org": ""}, "no org"),
        ({"org": ["a"]}, "no org"),
    ],
)
async def test_claims_that_are_not_good(issuers: Issuers, clock: ManualClock, change: dict[str, Any], why: str) -> None:
    """Signed by the issuer's own key."""
    given = {name: value for name, value in claims(clock, **change).items() if value is not None}
    text = SIGNER.sign({**given, "iss": "x"} if isinstance(given.get("iss"), list) else given)
    assert why in await refused(issuers, clock, text)


async def test_clocks_may_differ_by_the_leeway(issuers: Issuers, clock: ManualClock) -> None:
    now = clock.now_ms() // 1000
    text = SIGNER.sign(claims(clock, exp=now - LEEWAY_SECONDS + 1, nbf=now + LEEWAY_SECONDS, iat=now + LEEWAY_SECONDS))
    await issuers.identity(text, clock.now_ms())


async def test_a_token_of_another_key_and_one_that_was_changed(issuers: Issuers, clock: ManualClock) -> None:
    assert "signature" in await refused(issuers, clock, STRANGER.sign(claims(clock)))
    header, payload, signature = SIGNER.sign(claims(clock)).split(".")
    _, other, _ = SIGNER.sign(claims(clock, scope="all")).split(".")
    assert "signature" in await refused(issuers, clock, f"{header}.{other}.{signature}")
    assert "signature" in await refused(issuers, clock, f"{header}.{payload}.")
    assert "signature" in await refused(issuers, clock, f"{header}.{payload}.{signature[:-4]}AAAA")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, ["RS256"], 7])
async def test_no_algorithm_is_no_algorithm(issuers: Issuers, clock: ManualClock, algorithm: object) -> None:
    header = {"typ": "JWT", "kid": "one", **({} if algorithm is None else {"alg": algorithm})}
    if isinstance(algorithm, list):
        header["alg"] = "RS256,none"
    assert "algorithm" in await refused(issuers, clock, lines(header, claims(clock)) + ".")


async def test_the_public_key_is_no_secret_to_sign_with(issuers: Issuers, clock: ManualClock) -> None:
    public = SIGNER.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signed = lines({"alg": "HS256", "kid": "one"}, claims(clock))
    mac = hmac.digest(public, signed.encode(), hashlib.sha256)
    text = f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    assert "algorithm" in await refused(issuers, clock, text)


async def test_an_algorithm_that_is_not_listed(issuers: Issuers, clock: ManualClock) -> None:
    assert "algorithm" in await refused(issuers, clock, SIGNER.sign(claims(clock), "RS512"))


@pytest.mark.parametrize("header", [{"crit": ["b64"], "b64": False}, {"crit": ["x"]}, {"b64": True}])
async def test_headers_that_change_the_meaning(issuers: Issuers, clock: ManualClock, header: dict[str, Any]) -> None:
    signature = SIGNER.sign(claims(clock)).rpartition(".")[2]
    text = f"{lines({'alg': 'RS256', 'kid': 'one', **header}, claims(clock))}.{signature}"
    assert "not known here" in await refused(issuers, clock, text)


@pytest.mark.parametrize(
    "text", ["eyJ..", "eyJh.eyJh.x", "eyJhIjoxfQ.W10.x", "eyJ\u00e9.b.c", "eyJhIjoxfQ.e30", "[" * 9000 + ".."]
)
async def test_what_is_no_token_at_all(issuers: Issuers, clock: ManualClock, text: str) -> None:
    await refused(issuers, clock, text)


async def test_keys_of_other_kinds(issuers: Issuers, published: Published, clock: ManualClock) -> None:
    curve, edwards, weak = (
        ec.generate_private_key(ec.SECP256R1()),
        ed25519.Ed25519PrivateKey.generate(),
        Signer("weak", 1_024),
    )
    published.document = json.dumps(
        {
            "keys": [
                {**json.loads(ECAlgorithm.to_jwk(curve.public_key())), "kid": "ec"},
                {**json.loads(OKPAlgorithm.to_jwk(edwards.public_key())), "kid": "ed"},
                weak.jwk,
                {**SIGNER.jwk, "alg": "RS512"},
                {"kty": "oct", "kid": "oct", "k": "c2VjcmV0"},
            ]
        }
    ).encode()
    for key, algorithm, kid in ((curve, "ES256", "ec"), (edwards, "EdDSA", "ed")):
        text = jwt.encode(claims(clock), key, algorithm, {"kid": kid})  # type: ignore[arg-type]
        await issuers.identity(text, clock.now_ms())
    with pytest.warns(InsecureKeyLengthWarning):
        by_weak = weak.sign(claims(clock))
    for text in (by_weak, SIGNER.sign(claims(clock)), SIGNER.sign(claims(clock), kid="ec")):
        assert "does not list" in await refused(issuers, clock, text)


async def test_without_a_name_the_only_key_is_meant(issuers: Issuers, published: Published, clock: ManualClock) -> None:
    nameless = Signer(None)
    published.document = key_set(nameless)
    await issuers.identity(nameless.sign(claims(clock)), clock.now_ms())


# ---- fetching keys --------------------------------------------------------------------------------------------------


async def test_keys_are_fetched_once_and_again_for_one_that_is_new(
    issuers: Issuers, published: Published, clock: ManualClock
) -> None:
    for _ in range(3):
        await issuers.identity(SIGNER.sign(claims(clock)), clock.now_ms())
    assert published.asked == 1
    published.document = key_set(SIGNER, NEXT)
    await clock.advance(INTERVAL_SECONDS)
    await issuers.identity(NEXT.sign(claims(clock)), clock.now_ms())
    assert published.asked == 2


async def test_names_of_keys_make_nobody_fetch_more_often(
    issuers: Issuers, published: Published, clock: ManualClock
) -> None:
    await issuers.identity(SIGNER.sign(claims(clock)), clock.now_ms())
    for n in range(50):
        assert "does not list" in await refused(issuers, clock, SIGNER.sign(claims(clock), kid=f"k{n}"))
    assert published.asked == 1
    await clock.advance(INTERVAL_SECONDS)
    for n in range(50):
        await refused(issuers, clock, SIGNER.sign(claims(clock), kid=f"k{n}"))
    assert published.asked == 2


async def test_keys_outlive_an_outage_for_a_day(issuers: Issuers, published: Published, clock: ManualClock) -> None:
    await issuers.identity(SIGNER.sign(claims(clock)), clock.now_ms())
    published.document = None
    await clock.advance(KEEP_SECONDS - 1)
    await issuers.identity(SIGNER.sign(claims(clock)), clock.now_ms())
    await clock.advance(1)
    with pytest.raises(NotReady) as raised:
        await issuers.identity(SIGNER.sign(claims(clock)), clock.now_ms())
    assert (raised.value.status, raised.value.retry_after) == (503, int(INTERVAL_SECONDS))
    asked = published.asked
    with pytest.raises(NotReady):
        await issuers.identity(SIGNER.sign(claims(clock)), clock.now_ms())
    assert published.asked == asked
    published.document = key_set(SIGNER)
    await clock.advance(INTERVAL_SECONDS)
    await issuers.identity(SIGNER.sign(claims(clock)), clock.now_ms())


async def test_a_key_that_is_withdrawn_is_forgotten_and_others_are_told(
    published: Published, clock: ManualClock
) -> None:
    changes: list[str] = []
    keys = KeySet(ISSUER, published.fetch, clock, lambda: changes.append("changed"))
    issuers = Issuers([Issuer(RULE, keys)])
    await issuers.identity(SIGNER.sign(claims(clock)), clock.now_ms())
    published.document = key_set(NEXT)
    await clock.advance(REFRESH_SECONDS)
    await issuers.identity(SIGNER.sign(claims(clock)), clock.now_ms())  # nobody waits for the new ones
    await clock.advance(0.0)
    await clock.sleep(0)
    await clock.sleep(0)
    assert "does not list" in await refused(issuers, clock, SIGNER.sign(claims(clock)))
    assert changes == ["changed", "changed"]


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": [1]}', b'{"keys": ' + b"[{}," * 99 + b"{}", b"\xff"]
)
async def test_a_document_that_makes_no_sense_changes_nothing(
    issuers: Issuers, published: Published, clock: ManualClock, document: bytes
) -> None:
    await issuers.identity(SIGNER.sign(claims(clock)), clock.now_ms())
    published.document = document
    await clock.advance(INTERVAL_SECONDS)
    await refused(issuers, clock, NEXT.sign(claims(clock)))
    await issuers.identity(SIGNER.sign(claims(clock)), clock.now_ms())


def test_too_many_keys() -> None:
    with pytest.raises(ValueError, match="100"):
        parse_keys(json.dumps({"keys": [SIGNER.jwk] * 101}).encode())
