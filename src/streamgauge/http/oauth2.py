"""OAuth 2 client credentials: a token from an authorisation server, kept until shortly before it expires.

RFC 6749, sections 2.3.1, 4.4 and 5. The client says who it is by basic authentication, and, where that is refused, in
the body, as Go's client does.
"""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote_plus, urlencode

from streamgauge.clock import Clock
from streamgauge.errors import FetchFailed
from streamgauge.http.client import Answer, HttpClient, Resolver
from streamgauge.http.options import ClientCredentials, HttpOptions, TlsContexts, basic
from streamgauge.http.urls import shown_url

MAX_ANSWER_BYTES = 1 << 20
EARLY_SECONDS = 10.0
"""Before a token expires it is no longer used, or a tenth of its life before, if that is less."""
_TIMEOUT_SECONDS = 30.0


class TokenSource:
    """Used on the event loop. `close` it."""

    def __init__(self, credentials: ClientCredentials, resolver: Resolver, clock: Clock) -> None:
        self._credentials = credentials
        self._clock = clock
        options = HttpOptions(tls=credentials.tls, follow_redirects=False)  # the secret goes nowhere else
        self._client = HttpClient(options, TlsContexts(credentials.tls), resolver)
        self._asking = asyncio.Lock()
        self._token = ""
        self._until = 0.0  # by the monotonic clock
        self._in_body = False  # basic authentication was refused, and this was not

    async def authorization(self) -> str:
        """The value of an Authorization header. Raises FetchFailed, and ConfigError for a secret that cannot be
        read."""
        async with self._asking:  # whoever comes meanwhile uses what the first one gets
            if not self._token or self._clock.monotonic() >= self._until:
                await self._fetch()
            return self._token

    def refused(self, authorization: str) -> None:
        """A server did not accept it: the next one is fetched anew."""
        if authorization == self._token:
            self._token = ""

    def close(self) -> None:
        self._client.close()

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                answer = await self._ask(self._in_body)
                if answer.status in (400, 401) and not self._in_body:
                    second = await self._ask(in_body=True)
                    if second.status == 200:
                        answer, self._in_body = second, True
        except TimeoutError:
            raise self._failed(f"no answer within {_TIMEOUT_SECONDS:g} s") from None
        if answer.status != 200:
            raise self._failed(f"the answer is {answer.status} {answer.reason}")
        try:
            document = json.loads(answer.body)
            kind, token = str(document.get("token_type") or "Bearer"), document["access_token"]
            life = float(document.get("expires_in") or 0)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._failed("the answer has no access_token") from None
        if not isinstance(token, str) or not token:
            raise self._failed("the answer has no access_token")
        self._token = f"{'Bearer' if kind.lower() == 'bearer' else kind} {token}"
        usable = life - min(EARLY_SECONDS, life / 10) if life > 0 else float("inf")
        self._until = self._clock.monotonic() + usable

    async def _ask(self, in_body: bool) -> Answer:
        known = self._credentials
        secret = known.client_secret.read()
        form = [("grant_type", "client_credentials"), *known.params]
        form += [("scope", " ".join(known.scopes))] if known.scopes else []
        form += [("client_id", known.client_id), ("client_secret", secret)] if in_body else []
        authorization = "" if in_body else basic(quote_plus(known.client_id), quote_plus(secret))
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        body = urlencode(form).encode()
        return await self._client.post(known.token_url, headers, body, MAX_ANSWER_BYTES, authorization)

    def _failed(self, why: str) -> FetchFailed:
        return FetchFailed(f"no token from {shown_url(self._credentials.token_url)}: {why}")
