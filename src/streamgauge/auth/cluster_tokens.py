"""Cluster tokens: JSON web tokens that say which cluster a push comes from, signed by the server that takes it.

RFC 7515 and 7519, compact, with nothing in the header but the algorithm.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from streamgauge.auth.bearer import CHALLENGES
from streamgauge.auth.cluster_authority import ClusterIdentity
from streamgauge.auth.signing_keys import SigningKey
from streamgauge.clock import Clock
from streamgauge.errors import Unauthorized

ISSUER = "telemeter.selfsigned"
AUDIENCE = "telemeter-client"
CLAIM = "telemeter.openshift.io"
LEEWAY_SECONDS = 60
"""By which the clock of another server that has the key may be off."""
MAX_TOKEN = 16_384
"""Characters. Ours have some hundreds, and grow with the labels."""
MAX_CACHED = 20_000
"""Tokens whose signature need not be verified again: half a kilobyte each."""

_INVALID = "token could not be validated"


@dataclass(frozen=True, slots=True)
class _Verified:
    """Times are seconds since the epoch."""

    identity: ClusterIdentity
    begin: float
    end: float


class ClusterTokens:
    """keys: at least one. The first signs, a token of any of them is accepted."""

    def __init__(self, keys: Sequence[SigningKey], clock: Clock) -> None:
        self._keys = tuple((key, key.private.public_key()) for key in keys)
        self._clock = clock
        self._known: OrderedDict[bytes, _Verified] = OrderedDict()

    def sign(self, account: str, labels: Mapping[str, str], seconds: int) -> str:
        """A token that is good for `seconds` from now."""
        now = self._clock.now_ms() // 1000
        claims = {
            "aud": AUDIENCE,
            "exp": now + seconds,
            "iat": now,
            "iss": ISSUER,
            "nbf": now,
            "sub": account,
            CLAIM: {"labels": dict(labels)},
        }
        payload = json.dumps(claims, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        key = self._keys[0][0]
        return jwt.PyJWS().encode(payload, key.private, key.algorithm, {"typ": None})

    def verify(self, token: str) -> ClusterIdentity:
        """Whose token it is. Raises Unauthorized."""
        if len(token) > MAX_TOKEN:
            raise _refusal(f"the token is longer than {MAX_TOKEN} characters")
        token = "".join(token.split())
        digest = _digest(token)
        verified = self._known.get(digest)
        if verified is None:
            verified = self._verified(token)
            self._known[digest] = verified
            if len(self._known) > MAX_CACHED:
                self._known.popitem(last=False)
        self._check_time(verified)
        return verified.identity

    def known(self, token: str) -> ClusterIdentity | None:
        """The same of a token that was verified before; None for any other, and for one whose time it is not."""
        verified = self._known.get(_digest(token)) if len(token) <= MAX_TOKEN else None
        if verified is None:
            return None
        now = self._clock.now_ms() / 1000
        in_time = verified.begin - LEEWAY_SECONDS <= now <= verified.end + LEEWAY_SECONDS
        return verified.identity if in_time else None

    def _verified(self, token: str) -> _Verified:
        """What a token says that one of our keys has signed, whenever that holds."""
        claims = self._claims(self._payload(token))
        if claims.get("iss") != ISSUER:
            given = json.dumps(str(claims.get("iss", ""))[:100])
            raise _refusal(f'invalid JWT issuer, expected "{ISSUER}", got {given}')
        times = [_time(claims, name) for name in ("nbf", "iat", "exp")]
        begin = max(time for time in (*times[:2], 0.0) if time is not None)
        end = times[2]
        if end is None:  # one that is good for ever could never be taken back
            raise _refusal(_INVALID)
        self._check_time(_Verified(ClusterIdentity("", {}), begin, end))
        audience = claims.get("aud")
        if AUDIENCE not in (audience if isinstance(audience, list) else [audience]):
            raise _refusal("token is invalid for this audience")
        return _Verified(_identity(claims), begin, end)

    def _payload(self, token: str) -> bytes:
        if token.count(".") != 2:
            raise _refusal("compact JWS format must have three parts")
        for key, public in self._keys:
            try:
                payload: bytes = jwt.PyJWS([key.algorithm]).decode(token, public, [key.algorithm])
            except jwt.InvalidTokenError:
                continue
            return payload
        raise _refusal("error in cryptographic primitive")

    def _claims(self, payload: bytes) -> Mapping[str, Any]:
        try:
            claims = json.loads(payload, parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise _refusal(_INVALID) from None
        if not isinstance(claims, dict):
            raise _refusal(_INVALID)
        return claims

    def _check_time(self, verified: _Verified) -> None:
        now = self._clock.now_ms() / 1000
        if now > verified.end + LEEWAY_SECONDS:
            raise _refusal("token has expired")
        if now < verified.begin - LEEWAY_SECONDS:
            raise _refusal(_INVALID)


def _digest(token: str) -> bytes:
    """Of some hundred bytes; OpenSSL's functions take several times as long to begin."""
    return hashlib.blake2b(token.encode(), digest_size=32).digest()


def _identity(claims: Mapping[str, Any]) -> ClusterIdentity:
    account, claim = claims.get("sub", ""), claims.get(CLAIM)
    labels = claim.get("labels") if isinstance(claim, dict) else None
    if not isinstance(account, str) or not isinstance(labels, dict):
        raise _refusal(_INVALID)
    if not all(isinstance(value, str) for value in labels.values()):
        raise _refusal(_INVALID)
    return ClusterIdentity(account, labels)


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    time = claims.get(name)
    if time is None:
        return None
    if isinstance(time, bool) or not isinstance(time, int | float) or abs(time) > 1e15:
        raise _refusal(_INVALID)
    return float(time)


def _no_number(word: str) -> float:
    raise ValueError(word)


def _refusal(why: str) -> Unauthorized:
    return Unauthorized(f"Not authorized: {why}", CHALLENGES)
