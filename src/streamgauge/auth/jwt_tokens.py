"""Signed tokens of other issuers (RFC 7519, RFC 8725), each verified by the rules of the issuer that it names."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from streamgauge.auth.identity import Identity
from streamgauge.auth.jwks import KeySet
from streamgauge.auth.refused import Refused
from streamgauge.auth.rules import IssuerRule, Labels

LEEWAY_SECONDS = 60
"""By which our clock and an issuer's may differ."""
_MAX_NAME = 256


@dataclass(frozen=True, slots=True)
class Issuer:
    rule: IssuerRule
    keys: KeySet


class Issuers:
    """All of them that are trusted. Raises what says why a token is not good."""

    def __init__(self, issuers: Iterable[Issuer]) -> None:
        self._by_name = {issuer.rule.issuer: issuer for issuer in issuers}
        self._jws = jwt.PyJWS()

    async def identity(self, text: str, now: int) -> Identity:
        """Whose a token of MAX_TOKEN_BYTES at most is. now: ms.

        Raises Refused, and NotReady while the keys cannot be had.
        """
        header, claims = _unverified(text)
        name = claims.get("iss")
        issuer = self._by_name.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise Refused("jwt", "the token is of no issuer that is trusted here")
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in issuer.rule.algorithms:
            raise Refused("jwt", "the token is signed by an algorithm that is not allowed")
        if "crit" in header or "b64" in header or not isinstance(kid, str | None):
            raise Refused("jwt", "the token's header asks for what is not known here")
        key = await issuer.keys.key(kid, str(algorithm))
        if key is None:
            raise Refused("jwt", "the token is signed by a key that its issuer does not list")
        try:
            self._jws.decode_complete(text, key, [str(algorithm)])
        except (jwt.PyJWTError, ValueError, TypeError):
            raise Refused("jwt", "the token's signature is not good") from None
        expires = _check_times(claims, now / 1000)
        if not _audiences(claims) & set(issuer.rule.audiences):
            raise Refused("jwt", "the token is for another audience")
        identity = _identity(issuer.rule, claims, math.ceil((expires + LEEWAY_SECONDS) * 1000))
        self._check_whose(identity.name, issuer.rule.issuer)
        return identity

    def _check_whose(self, name: str, issuer: str) -> None:
        """A port or path that begins somebody's name must not make them somebody of a longer issuer, whose streams
        they would read."""
        if any(name.startswith(f"jwt:{other}:") and len(other) > len(issuer) for other in self._by_name):
            raise Refused("jwt", "the token's name reads like one of another issuer")

    def close(self) -> None:
        for issuer in self._by_name.values():
            issuer.keys.close()


def _unverified(text: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Header and claims, which anybody may have written."""
    try:
        parts = [json.loads(_decoded(part)) for part in text.split(".")[:2]]
    except (ValueError, RecursionError):
        raise Refused("jwt", "this is no token as RFC 7519 has it") from None
    if not all(isinstance(part, dict) for part in parts):
        raise Refused("jwt", "this is no token as RFC 7519 has it")
    return parts[0], parts[1]


def _decoded(part: str) -> bytes:
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _check_times(claims: Mapping[str, Any], now: float) -> float:
    """When the token expires, in seconds; it must say so."""
    expires = _time(claims, "exp")
    if expires is None:
        raise Refused("jwt", "the token does not say when it expires")
    if now >= expires + LEEWAY_SECONDS:
        raise Refused("expired", "the token has expired")
    for name in ("nbf", "iat"):
        begins = _time(claims, name)
        if begins is not None and begins > now + LEEWAY_SECONDS:
            raise Refused("jwt", "the token is not good yet")
    return expires


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1 << 53:
        raise Refused("jwt", f"the token's {name} is no time")
    return float(value)


def _audiences(claims: Mapping[str, Any]) -> set[str]:
    value = claims.get("aud")
    if isinstance(value, str):
        return {value}
    return {each for each in value if isinstance(each, str)} if isinstance(value, list) else set()


def _identity(rule: IssuerRule, claims: Mapping[str, Any], expires: int) -> Identity:
    name = claims.get(rule.name_claim)
    if not isinstance(name, str) or not name or len(name) > _MAX_NAME or not name.isprintable():
        raise Refused("jwt", f"the token has no name in {rule.name_claim}")
    words = claims.get(rule.scopes_claim)
    given = words.split() if isinstance(words, str) else words if isinstance(words, list) else []
    permissions = set(rule.grant.permissions)
    for word in given:
        if isinstance(word, str):
            permissions |= rule.scopes.get(word, frozenset())
    return Identity(f"jwt:{rule.issuer}:{name}", frozenset(permissions), _bound(rule, claims), expires)


def _bound(rule: IssuerRule, claims: Mapping[str, Any]) -> Labels:
    """A claim that is to bind somebody and is not there must not set them free."""
    bound = dict(rule.grant.bound)
    for label, claim in rule.labels.items():
        value = claims.get(claim)
        if not isinstance(value, str) or not value:
            raise Refused("jwt", f"the token has no {claim}, which says what its bearer may see")
        bound[label] = value
    return tuple(sorted(bound.items()))
