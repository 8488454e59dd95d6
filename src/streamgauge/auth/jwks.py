"""The public keys of an issuer of tokens (RFC 7517): fetched when they are needed, kept, and fetched anew with care.

Whoever sends tokens cannot make us fetch more often than every INTERVAL_SECONDS, whatever keys they name. While the
issuer is away the keys that there are stay good, for KEEP_SECONDS.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import jwt

from streamgauge.clock import Clock
from streamgauge.errors import NotReady, StreamgaugeError

LOG = logging.getLogger(__name__)

INTERVAL_SECONDS = 30.0
"""Between two attempts. A key that is new is known after so long."""
REFRESH_SECONDS = 600.0
"""After which keys are fetched anew although all that is asked for is there: one may have been withdrawn."""
KEEP_SECONDS = 86_400.0
"""For which keys stay good that can not be fetched anew: an issuer's outage should not be ours on the same day."""
MAX_KEYS = 100
MAX_BYTES = 1 << 20
MIN_RSA_BITS = 2_048

Fetch = Callable[[], Awaitable[bytes]]
"""Gives the document with the keys, of MAX_BYTES at most. Raises StreamgaugeError."""

_CURVES = {"ES256": "P-256", "ES256K": "secp256k1", "ES384": "P-384", "ES512": "P-521"}
_KINDS = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_SIGNING_CURVES = ("Ed25519", "Ed448")

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""All of them asymmetric: nobody who knows what is public can sign."""


class KeySet:
    """The keys of one issuer. changed: told when other keys are in force. Used on the event loop."""

    def __init__(self, issuer: str, fetch: Fetch, clock: Clock, changed: Callable[[], None] = lambda: None) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._changed = changed
        self._keys: tuple[Mapping[str, Any], ...] = ()
        self._fetched: float | None = None  # when there last was an answer, monotonic
        self._attempted: float | None = None
        self._work: asyncio.Task[None] | None = None

    async def key(self, kid: str | None, algorithm: str) -> Any | None:
        """The public key of that name that is for the algorithm, or the only one there is where no name is given.

        Raises NotReady when no keys could be had.
        """
        if self._age() >= KEEP_SECONDS:
            await self._refresh()
            if self._age() >= KEEP_SECONDS:
                raise NotReady(f"the keys of {self._issuer} can not be had at the moment", int(INTERVAL_SECONDS))
        elif self._age() >= REFRESH_SECONDS:
            self._start()
        if (found := self._find(kid)) is None:
            await self._refresh()
            found = self._find(kid)
        return None if found is None else _public_key(found, algorithm)

    def _age(self) -> float:
        """Of the keys, in seconds."""
        return float("inf") if self._fetched is None else self._clock.monotonic() - self._fetched

    def _find(self, kid: str | None) -> Mapping[str, Any] | None:
        found = [key for key in self._keys if kid is None or key.get("kid") == kid]
        return found[0] if len(found) == 1 else None

    async def _refresh(self) -> None:
        """Return when there was an attempt, unless the last one is too short a time ago."""
        if (work := self._start()) is not None:
            await asyncio.shield(work)

    def _start(self) -> asyncio.Task[None] | None:
        if self._work is not None:
            return self._work
        now = self._clock.monotonic()
        if self._attempted is not None and now - self._attempted < INTERVAL_SECONDS:
            return None
        self._attempted = now
        self._work = asyncio.get_running_loop().create_task(self._load(), name="jwks")
        return self._work

    async def _load(self) -> None:
        try:
            keys = parse_keys(await self._fetch())
        except StreamgaugeError as error:
            LOG.warning("the keys of %s could not be fetched, those there are stay: %s", self._issuer, error.message)
        except ValueError as error:
            LOG.warning("the keys of %s make no sense, those there were stay: %s", self._issuer, error)
        else:
            self._fetched = self._clock.monotonic()
            if keys != self._keys:
                self._keys = keys
                self._changed()
        finally:
            self._work = None

    def close(self) -> None:
        if self._work is not None:
            self._work.cancel()


def parse_keys(document: bytes) -> tuple[Mapping[str, Any], ...]:
    """The keys of a document that are public and for signatures. Raises ValueError."""
    try:
        keys = json.loads(document)["keys"]
    except (KeyError, TypeError, RecursionError):
        raise ValueError("it is no JSON Web Key Set") from None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise ValueError("it is no JSON Web Key Set")
    if len(keys) > MAX_KEYS:
        raise ValueError(f"it has more than {MAX_KEYS} keys")
    return tuple(
        {name: value for name, value in key.items() if isinstance(value, str)}
        for key in keys
        if key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig"
    )


def _public_key(key: Mapping[str, Any], algorithm: str) -> Any | None:
    """None where it is not one for the algorithm."""
    if key["kty"] != _KINDS[algorithm[:2]] or key.get("alg", algorithm) != algorithm:
        return None
    if algorithm in _CURVES and key.get("crv") != _CURVES[algorithm]:
        return None
    if algorithm == "EdDSA" and key.get("crv") not in _SIGNING_CURVES:
        return None
    try:
        # Without members of private keys: a set that leaks some must not make a signer of us.
        public = {name: value for name, value in key.items() if name in ("kty", "crv", "n", "e", "x", "y")}
        made = jwt.PyJWK(public, algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    return None if getattr(made, "key_size", MIN_RSA_BITS) < MIN_RSA_BITS and key["kty"] == "RSA" else made
