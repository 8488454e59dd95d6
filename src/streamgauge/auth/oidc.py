"""Tokens of the server itself from an OpenID Connect issuer, whose document says where it gives them.

OpenID Connect Discovery 1.0, section 4.
"""

from __future__ import annotations

import asyncio
import json

from streamgauge.auth.cluster_settings import Oidc
from streamgauge.clock import Clock
from streamgauge.errors import FetchFailed
from streamgauge.http.client import HttpClient, Resolver
from streamgauge.http.oauth2 import TokenSource
from streamgauge.http.options import ClientCredentials, HttpOptions, Tls, TlsContexts
from streamgauge.http.urls import shown_url

DOCUMENT = "/.well-known/openid-configuration"
MAX_DOCUMENT_BYTES = 1 << 20


class OidcTokens:
    """Implements upstream.Tokens. Used on the event loop. `close` it."""

    def __init__(self, settings: Oidc, resolver: Resolver, clock: Clock) -> None:
        self._settings = settings
        self._resolver = resolver
        self._clock = clock
        self._client = HttpClient(HttpOptions(), TlsContexts(Tls()), resolver)
        self._discovering = asyncio.Lock()
        self._source: TokenSource | None = None

    async def authorization(self) -> str:
        """Raises FetchFailed, and ConfigError for a secret that cannot be read."""
        async with self._discovering:
            if self._source is None:
                self._source = TokenSource(await self._credentials(), self._resolver, self._clock)
        return await self._source.authorization()

    def refused(self, authorization: str) -> None:
        if self._source is not None:
            self._source.refused(authorization)

    def close(self) -> None:
        self._client.close()
        if self._source is not None:
            self._source.close()

    async def _credentials(self) -> ClientCredentials:
        settings = self._settings
        return ClientCredentials(
            settings.client_id,
            settings.client_secret,
            await self._token_endpoint(),
            params=(("audience", settings.audience),) if settings.audience else (),
        )

    async def _token_endpoint(self) -> str:
        url = self._settings.issuer.rstrip("/") + DOCUMENT
        answer = await self._client.get(url, {"accept": "application/json"}, MAX_DOCUMENT_BYTES)
        if answer.status != 200:
            raise FetchFailed(f"{shown_url(url)}: the answer is {answer.status} {answer.reason}")
        try:
            document = json.loads(answer.body)
            issuer, endpoint = document["issuer"], document["token_endpoint"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise FetchFailed(f"{shown_url(url)} names no token_endpoint") from None
        if issuer != self._settings.issuer:
            raise FetchFailed(f"{shown_url(url)} is the document of another issuer")
        if not isinstance(endpoint, str) or not endpoint.startswith(("http://", "https://")):
            raise FetchFailed(f"{shown_url(url)} names no token_endpoint")
        return endpoint
