"""The server that is pushed to: how leave is got, and how it answers a push."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from streamgauge.clock import Clock
from streamgauge.errors import FetchFailed
from streamgauge.federate.answers import told
from streamgauge.federate.config import FederateConfig
from streamgauge.federate.metrics import Requests
from streamgauge.http.client import Answer, HttpClient, Resolver
from streamgauge.http.options import TlsContexts
from streamgauge.http.urls import shown_url
from streamgauge.wire import push_part
from streamgauge.wire.metric_family_protobuf import CONTENT_TYPE
from streamgauge.wire.push_part import Part

AUTHORIZE_SECONDS = 30
MAX_GRANT_BYTES = 16_384
_MAX_ANSWER_BYTES = 65_536
EARLY_SECONDS = 15
"""An access token is used until so long before it expires: a push takes its time. Of short ones, for a quarter less."""
MAX_RETRY_AFTER = 3600
"""Seconds. A server that asks for more is asked again after an hour."""


class Verdict(Enum):
    """What a server says of a push. LATER: it may be sent again after a while. REFUSED: never as it is."""

    TAKEN = "taken"
    LATER = "later"
    TOO_LARGE = "too large"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """message: what to say of it. retry_after: seconds that the server asks to wait; None where it does not."""

    verdict: Verdict
    message: str = ""
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """An access token, and the labels that metrics must have with it. until: monotonic time; None without end."""

    token: str
    labels: Mapping[str, str]
    until: float | None


class NoGrant(FetchFailed):
    """The server gives no access token. retry_after: seconds that it asks to wait."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Target:
    """Used by one task."""

    def __init__(self, config: FederateConfig, clock: Clock, resolver: Resolver, requests: Requests) -> None:
        self._config = config
        self._clock = clock
        self._requests = requests
        self._client = HttpClient(config.target_http, TlsContexts(config.target_http.tls), resolver)
        self._grant: Grant | None = None

    async def grant(self) -> Grant:
        """The access token that is there, or a new one. Raises FetchFailed, and ConfigError for a token file that
        cannot be read."""
        grant = self._grant
        if grant is None or (grant.until is not None and self._clock.monotonic() >= grant.until):
            grant = self._grant = await self._authorize()
        return grant

    def forget(self) -> None:
        """The access token was not accepted."""
        self._grant = None

    async def push(self, body: bytes, token: str, part: Part = Part.WHOLE) -> tuple[Outcome, bool]:
        """Send a body, compressed; and whether the token was not accepted."""
        headers = {"content-type": CONTENT_TYPE, "content-encoding": "snappy", "connection": "close"}
        if part is not Part.WHOLE:
            headers[push_part.HEADER] = part.value
        url = self._config.upload
        try:
            answer = await self._post(url, headers, body, f"Bearer {token}", self._config.interval_seconds)
        except FetchFailed as error:
            return Outcome(Verdict.FAILED, error.message), False
        self._requests["federate_to", str(answer.status)] += 1
        return outcome_of(answer, url), answer.status == 401

    def close(self) -> None:
        self._client.close()

    async def _authorize(self) -> Grant:
        url = self._config.authorize
        bearer = f"Bearer {self._config.token.read()}"
        asked = self._clock.monotonic()
        answer = await self._post(url, {"connection": "close"}, b"", bearer, AUTHORIZE_SECONDS)
        if answer.status not in (200, 201):
            outcome = outcome_of(answer, url)
            raise NoGrant(f"no access token: {outcome.message}", outcome.retry_after)
        return read_grant(answer.body, asked)

    async def _post(
        self, url: str, headers: Mapping[str, str], body: bytes, authorization: str, seconds: float
    ) -> Answer:
        try:
            async with asyncio.timeout(seconds):
                return await self._client.post(url, headers, body, _MAX_ANSWER_BYTES, authorization)
        except TimeoutError:
            raise FetchFailed(f"{shown_url(url)} gave no whole answer within {seconds:g} s") from None
        finally:
            self._client.close()


def read_grant(body: bytes, asked: float) -> Grant:
    """From the answer to a request that was made at the monotonic time `asked`. Raises FetchFailed."""
    try:
        if len(body) > MAX_GRANT_BYTES:
            raise ValueError(f"it has more than {MAX_GRANT_BYTES} bytes")
        reply: Any = json.loads(body)
        token, labels, seconds = reply["token"], reply.get("labels") or {}, reply.get("expiresInSeconds")
        texts: Iterable[Any] = (token, *labels.keys(), *labels.values())
        if not token or not all(isinstance(text, str) for text in texts):
            raise ValueError("its token and labels are no texts")
        if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float)):
            raise ValueError("expiresInSeconds is no number")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FetchFailed(f"what the server gives as access token cannot be read: {error}") from None
    until = None if seconds is None else asked + seconds - min(EARLY_SECONDS, seconds / 4)
    return Grant(token, labels, until)


def outcome_of(answer: Answer, url: str) -> Outcome:
    status = answer.status
    if status == 200:
        return Outcome(Verdict.TAKEN)
    message = told(answer, url)
    if status == 413:
        return Outcome(Verdict.TOO_LARGE, message)
    if status in (400, 415, 422):
        return Outcome(Verdict.REFUSED, message)
    retry_after = _seconds(answer.headers.get("retry-after", ""))
    if status == 429 or retry_after is not None:
        return Outcome(Verdict.LATER, message, retry_after)
    return Outcome(Verdict.FAILED, message)


def _seconds(text: str) -> float | None:
    """Of a Retry-After header. A date, which no server of these sends, is no number of seconds."""
    return min(float(text), MAX_RETRY_AFTER) if text.strip().isdecimal() and text.isascii() else None
