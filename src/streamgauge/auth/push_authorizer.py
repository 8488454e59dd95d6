"""Who says whether a client may push for a cluster: tokens in the configuration, somebody who is asked, or nobody."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Protocol

from streamgauge.auth.bearer import CHALLENGES
from streamgauge.auth.cluster_settings import PushToken
from streamgauge.auth.receive_credentials import ReceiveCredentials
from streamgauge.errors import Forbidden, Unauthorized

_FNV_OFFSET, _FNV_PRIME, _64_BITS = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1
_DIGITS = "0123456789abcdefghijklmnopqrstuv"


class PushAuthorizer(Protocol):
    """Both tell whose the cluster is. They raise Unauthorized, Forbidden, RateLimited, NotFound and UpstreamRefused for
    a client that may not, and Overloaded while nobody can tell."""

    async def account(self, token: str, cluster: str) -> str:
        """For a client that asks for a cluster token."""

    async def confirm(self, credentials: ReceiveCredentials) -> str:
        """For a client that shows its credentials with each push."""

    def confirmed(self, credentials: ReceiveCredentials) -> str | None:
        """The same, where it can be told without asking anybody; None else, and for a client that may not."""


class Nobody:
    """Refuses everybody: it is not configured who may push."""

    async def account(self, token: str, cluster: str) -> str:
        raise Forbidden(
            "nobody may push by a token to this server: its configuration has neither push-tokens nor authorize in the "
            "section federation:"
        )

    async def confirm(self, credentials: ReceiveCredentials) -> str:
        return await self.account(credentials.token, credentials.cluster)

    def confirmed(self, credentials: ReceiveCredentials) -> str | None:
        return None


class Anybody:
    """Takes every token, as the reference does that has nobody to ask. For servers that are insecure on purpose."""

    async def account(self, token: str, cluster: str) -> str:
        return short_hash(token)

    async def confirm(self, credentials: ReceiveCredentials) -> str:
        return short_hash(credentials.token)

    def confirmed(self, credentials: ReceiveCredentials) -> str | None:
        return short_hash(credentials.token)


class LocalTokens:
    """Tokens of the configuration; others go to `others`, if there is somebody."""

    def __init__(self, tokens: Sequence[PushToken], others: PushAuthorizer | None = None) -> None:
        self._tokens = tokens
        self._others = others

    async def account(self, token: str, cluster: str) -> str:
        known = self._known(token)
        if known is not None:
            return _allowed(known, cluster)
        if self._others is None:
            raise Unauthorized("unauthorized", CHALLENGES)
        return await self._others.account(token, cluster)

    async def confirm(self, credentials: ReceiveCredentials) -> str:
        known = self._known(credentials.token)
        if known is not None:
            return _allowed(known, credentials.cluster)
        if self._others is None:
            raise Unauthorized("unauthorized", CHALLENGES)
        return await self._others.confirm(credentials)

    def confirmed(self, credentials: ReceiveCredentials) -> str | None:
        known = self._known(credentials.token)
        if known is None:
            return None if self._others is None else self._others.confirmed(credentials)
        return known.name if not known.clusters or credentials.cluster in known.clusters else None

    def _known(self, token: str) -> PushToken | None:
        """Compared with every one of them, and by digest, so that the time it takes says nothing."""
        digest = hashlib.sha256(token.encode()).hexdigest()
        found = [known for known in self._tokens if hmac.compare_digest(known.sha256, digest)]
        return found[0] if found else None


def _allowed(token: PushToken, cluster: str) -> str:
    if token.clusters and cluster not in token.clusters:
        raise Forbidden(f'the token "{token.name}" may not push for this cluster')
    return token.name


def short_hash(text: str) -> str:
    """64-bit FNV-1a as a number in base 32."""
    number = _FNV_OFFSET
    for byte in text.encode():
        number = ((number ^ byte) * _FNV_PRIME) & _64_BITS
    digits = ""
    while number:
        number, digit = divmod(number, 32)
        digits = _DIGITS[digit] + digits
    return digits or "0"
