"""A cluster token is as good as its signature, its time and whom it is for; nothing else is."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from streamgauge.auth.cluster_authority import ClusterIdentity
from streamgauge.auth.cluster_tokens import MAX_CACHED, ClusterTokens
from streamgauge.auth.signing_keys import SigningKey, generate_key, read_key
from streamgauge.clock import ManualClock
from streamgauge.errors import Unauthorized

KEY = read_key(generate_key(), "one")
OTHER = read_key(generate_key(), "other")
START = 1_700_000_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def tokens(clock: ManualClock) -> ClusterTokens:
    return ClusterTokens([KEY], clock)


def encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a good token, but for the changes; None takes one away."""
    good = {
        "aud": "telemeter-client",
        "exp": START + 60,
        "iat": START,
        "iss": "telemeter.selfsigned",
        "nbf": START,
        "sub": "me",
        "telemeter.openshift.io": {"labels": {"_id": "a"}},
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(payload: dict[str, Any] | bytes, key: SigningKey = KEY) -> str:
    content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return jwt.PyJWS().encode(content, key.private, key.algorithm)


def refused(tokens: ClusterTokens, token: str) -> str:
    with pytest.raises(Unauthorized) as error:
        tokens.verify(token)
    assert error.value.challenges == ("Bearer",)
    return error.value.message


def test_a_token_looks_as_the_references(tokens: ClusterTokens) -> None:
    header, payload, _ = tokens.sign("me", {"z": "1", "_id": "ä"}, 86_400).split(".")
    assert decoded(header) == b'{"alg":"ES256"}'
    assert decoded(payload).decode() == (
        '{"aud":"telemeter-client","exp":1700086400,"iat":1700000000,"iss":"telemeter.selfsigned","nbf":1700000000,'
        '"sub":"me","telemeter.openshift.io":{"labels":{"_id":"ä","z":"1"}}}'
    )


def test_what_is_signed_is_accepted(tokens: ClusterTokens) -> None:
    token = tokens.sign("me", {"_id": "a", "x": "ü"}, 60)
    assert tokens.verify(token) == ClusterIdentity("me", {"_id": "a", "x": "ü"})
    assert tokens.verify(f"  {token} ").account == "me"
    assert tokens.verify(signed(claims(aud=["x", "telemeter-client"]))).labels == {"_id": "a"}


@pytest.mark.anyio
async def test_it_ends_a_minute_after_its_time_also_when_it_was_accepted_before(
    tokens: ClusterTokens, clock: ManualClock
) -> None:
    token = tokens.sign("me", {"_id": "a"}, 100)
    tokens.verify(token)
    await clock.advance(160)
    tokens.verify(token)
    await clock.advance(1)
    assert refused(tokens, token) == "Not authorized: token has expired"
    clock.jump(-300_000)
    assert refused(tokens, token) == "Not authorized: token could not be validated"


def test_keys_are_rotated(clock: ManualClock) -> None:
    old = ClusterTokens([KEY], clock).sign("me", {"_id": "a"}, 60)
    both = ClusterTokens([OTHER, KEY], clock)
    assert both.verify(old).account == "me"
    new = both.sign("me", {"_id": "a"}, 60)
    assert "cryptographic primitive" in refused(ClusterTokens([KEY], clock), new)
    assert ClusterTokens([OTHER], clock).verify(new).account == "me"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "somebody"}, 'invalid JWT issuer, expected "telemeter.selfsigned", got "somebody"'),
        ({"iss": None}, 'invalid JWT issuer, expected "telemeter.selfsigned", got ""'),
        ({"exp": START - 61}, "token has expired"),
        ({"exp": None}, "token could not be validated"),
        ({"exp": True}, "token could not be validated"),
        ({"exp": "soon"}, "token could not be validated"),
        ({"exp": 1e300}, "token could not be validated"),
        ({"nbf": START + 61}, "token could not be validated"),
        ({"iat": START + 61}, "token could not be validated"),
        ({"aud": None}, "token is invalid for this audience"),
        ({"aud": "federate"}, "token is invalid for this audience"),
        ({"aud": ["federate"]}, "token is invalid for this audience"),
        ({"aud": {"telemeter-client": 1}}, "token is invalid for this audience"),
        ({"sub": 5}, "token could not be validated"),
        ({"telemeter.openshift.io": None}, "token could not be validated"),
        ({"telemeter.openshift.io": {"labels": ["_id"]}}, "token could not be validated"),
        ({"telemeter.openshift.io": {"labels": {"_id": 5}}}, "token could not be validated"),
    ],
)
def test_signed_and_still_not_good(tokens: ClusterTokens, changes: dict[str, Any], reason: str) -> None:
    assert refused(tokens, signed(claims(**changes))) == f"Not authorized: {reason}"


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b'{"exp": NaN}', b"[" * 100_000, b"\xff"])
def test_signed_and_no_claims_at_all(tokens: ClusterTokens, payload: bytes) -> None:
    token = signed(payload)
    reason = "longer than" if len(token) > 16_384 else "could not be validated"
    assert reason in refused(tokens, token)


def forgeries() -> dict[str, str]:
    good = signed(claims())
    header, payload, signature = good.split(".")
    public = KEY.private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    other = encoded(json.dumps(claims(**{"telemeter.openshift.io": {"labels": {"_id": "victim"}}})).encode())

    def with_header(**fields: Any) -> str:
        return encoded(json.dumps(fields).encode())

    hs256 = with_header(alg="HS256")
    by_public_key = hmac.digest(pem, f"{hs256}.{other}".encode(), hashlib.sha256)
    mine = OTHER.private.public_key()
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(mine))  # type: ignore[arg-type]
    with_own_key = jwt.PyJWS().encode(json.dumps(claims()).encode(), OTHER.private, "ES256", {"jwk": jwk})
    return {
        "of another replica": signed(claims(), OTHER),
        "another payload": f"{header}.{other}.{signature}",
        "no signature": f"{header}.{payload}.",
        "signature of zeros": f"{header}.{payload}.{encoded(bytes(64))}",
        "none": f"{with_header(alg='none')}.{payload}.",
        "None": f"{with_header(alg='None')}.{payload}.{signature}",
        "no algorithm": f"{with_header(typ='JWT')}.{payload}.{signature}",
        "the public key as a secret": f"{hs256}.{other}.{encoded(by_public_key)}",
        "another algorithm of the kind": f"{with_header(alg='ES384')}.{payload}.{signature}",
        "a key that it brings along": with_own_key,
        "critical and unknown": jwt.PyJWS().encode(
            json.dumps(claims()).encode(), OTHER.private, "ES256", {"crit": ["x"], "x": 1}
        ),
        "no base64": f"{header}.{payload}.!!!!",
        "a surplus of bits": f"{header}.{payload}.{signature[:-1]}{chr(ord(signature[-1]) + 1)}",
        "no header": f".{payload}.{signature}",
        "a header of another kind": f"{encoded(b'[1]')}.{payload}.{signature}",
        "other letters": f"{header}.{payload}.{signature}é",
    }


@pytest.mark.parametrize("kind", list(forgeries()))
def test_forged_tokens_are_refused(tokens: ClusterTokens, kind: str) -> None:
    assert refused(tokens, forgeries()[kind]) == "Not authorized: error in cryptographic primitive"


@pytest.mark.parametrize("token", ["a", "a.b", "a.b.c.d", '{"payload":"","signature":""}', "...."])
def test_only_the_compact_form_is_a_token(tokens: ClusterTokens, token: str) -> None:
    assert refused(tokens, token) == "Not authorized: compact JWS format must have three parts"


def test_a_huge_token_is_not_looked_at(tokens: ClusterTokens) -> None:
    assert refused(tokens, "a." * (1 << 19)) == "Not authorized: the token is longer than 16384 characters"


def test_tokens_that_are_known_take_bounded_memory(tokens: ClusterTokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamgauge.auth.cluster_tokens.MAX_CACHED", 3)
    several = [tokens.sign(str(number), {"_id": "a"}, 60) for number in range(5)]
    assert [tokens.verify(token).account for token in several * 2] == list("01234") * 2
    assert len(tokens._known) == 3
    assert MAX_CACHED > 1000


def test_only_a_token_that_was_verified_and_whose_time_it_is_is_known(
    tokens: ClusterTokens, clock: ManualClock
) -> None:
    token = tokens.sign("me", {"_id": "a"}, 60)
    assert tokens.known(token) is None
    identity = tokens.verify(token)
    assert tokens.known(token) is identity
    assert tokens.known(token[:-1]) is None
    assert tokens.known("x" * 20_000) is None
    clock.jump(120_000)
    assert tokens.known(token) is identity
    clock.jump(1)
    assert tokens.known(token) is None
    clock.jump(-180_002)
    assert tokens.known(token) is None
