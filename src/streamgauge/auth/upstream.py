"""Asking another service whether a client may push for a cluster."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import io
import json
import logging
from dataclasses import dataclass
from typing import Any, Protocol, cast

from streamgauge.auth.answer_cache import AnswerCache
from streamgauge.auth.authority_stats import AuthorityStats
from streamgauge.auth.bearer import CHALLENGES
from streamgauge.auth.receive_credentials import ReceiveCredentials
from streamgauge.clock import Clock
from streamgauge.errors import (
    ConfigError,
    FetchFailed,
    Forbidden,
    NotFound,
    Overloaded,
    RateLimited,
    StreamgaugeError,
    Unauthorized,
    UpstreamRefused,
)
from streamgauge.http.client import Answer, HttpClient, Resolver
from streamgauge.http.options import HttpOptions, Tls, TlsContexts
from streamgauge.http.urls import shown_url

LOG = logging.getLogger(__name__)

TIMEOUT_SECONDS = 20.0
"""Of one question, waiting for a free connection and for a token of the server's own included."""
CONNECT_SECONDS = 10.0
MAX_ANSWER_BYTES = 32_768
MAX_CONNECTIONS = 32
"""Questions at once: what one authority can be expected to take from one server. The others wait."""
MAX_WAITING = 500
"""Questions that are under way or wait. One holds up to 150 KB, also after its client has gone, and whoever asks has
shown nothing yet: without a limit a silent authority would cost memory without bound."""
BUSY_SECONDS = 5
"""After which whoever finds that many waiting may come again."""
RETRY_SECONDS = 30
"""After which whoever comes while the authority is away may come again."""
RATE_LIMIT_SECONDS = 300
RENEWAL_SECONDS = 60.0
"""Between two renewals of our own token because of a 401: clients with bad tokens of theirs cause these, too."""
ASSENTS = (200, 201)
AWAY = "the authority that says who may push cannot be asked at present; try again later"
BUSY = "too many wait to be told whether they may push; try again later"
IN_USE = "the provided cluster identifier is already in use under a different account or is not sufficiently random"

_JSON = "application/json"
_HEADERS = {"content-type": _JSON, "accept": _JSON}


@dataclass(frozen=True, slots=True)
class Assent:
    """Both "" where the authority does not say."""

    account: str
    cluster: str


class Tokens(Protocol):
    """Of the server itself, to show upstream."""

    async def authorization(self) -> str:
        """The value of an Authorization header. Raises FetchFailed and ConfigError."""

    def refused(self, authorization: str) -> None: ...

    def close(self) -> None: ...


class Upstream:
    """Implements PushAuthorizer. Used on the event loop. `close` it."""

    def __init__(
        self,
        url: str,
        resolver: Resolver,
        cache: AnswerCache[Assent],
        clock: Clock,
        stats: AuthorityStats,
        tokens: Tokens | None = None,
    ) -> None:
        self._url = url
        self._resolver = resolver
        self._cache = cache
        self._stats = stats
        self._tokens = tokens
        self._options = HttpOptions(follow_redirects=False, connect_seconds=CONNECT_SECONDS)
        self._contexts = TlsContexts(Tls())
        self._free: list[HttpClient] = []
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._waiting = 0
        self._clock = clock
        self._away = False
        self._closed = False
        self._renewed = -RENEWAL_SECONDS  # by the monotonic clock

    async def account(self, token: str, cluster: str) -> str:
        question = {"cluster_id": cluster, "authorization_token": token, "account_id": ""}
        answer = await self._ask(json.dumps(question, separators=(",", ":"), ensure_ascii=False).encode())
        kind = answer.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != _JSON:  # before the status, as the reference does
            raise self._unusable(f"the answer has the content type {kind[:80]!r}")
        self._check(answer)
        account = _members(answer.body).get("account_id")
        if not isinstance(account, str) or not account:
            raise self._unusable("the answer has no account_id")
        self._answers_again()
        return account

    async def confirm(self, credentials: ReceiveCredentials) -> str:
        assent = await self._cache.answer(_key(credentials), lambda: self._confirmation(credentials.raw))
        if assent.cluster and assent.cluster != credentials.cluster:
            raise Forbidden("forbidden")  # it has read other credentials than we have
        return assent.account

    def confirmed(self, credentials: ReceiveCredentials) -> str | None:
        assent = self._cache.known(_key(credentials))
        return assent.account if assent is not None and assent.cluster in ("", credentials.cluster) else None

    def close(self) -> None:
        self._closed = True
        self._cache.close()
        while self._free:
            self._free.pop().close()
        if self._tokens is not None:
            self._tokens.close()

    async def _confirmation(self, question: bytes) -> bytes:
        """The answer as a whole, if it is an assent."""
        answer = await self._ask(question)
        self._check(answer)
        self._answers_again()
        return _dumped(answer)

    def _check(self, answer: Answer) -> None:
        """Raises what the client is to get for an answer that is no assent."""
        if answer.status not in ASSENTS and not 400 <= answer.status < 500:
            raise self._unusable(f"the answer's status is {answer.status}")
        if (refusal := _refusal(answer.status)) is not None:
            self._answers_again()
            raise refusal

    async def _ask(self, question: bytes) -> Answer:
        """Raises Overloaded when there is no answer."""
        if self._waiting >= MAX_WAITING:
            self._stats.asked.labels("0").inc()
            raise Overloaded(BUSY, BUSY_SECONDS)
        self._waiting += 1
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS), self._slots:
                answer = await self._post(question)
        except TimeoutError:
            raise self._failed(f"no answer within {TIMEOUT_SECONDS:g} s") from None
        except (FetchFailed, ConfigError) as error:
            raise self._failed(error.message) from None
        finally:
            self._waiting -= 1
        self._stats.asked.labels(str(answer.status)).inc()
        return answer

    async def _post(self, question: bytes) -> Answer:
        if self._tokens is None:
            return await self._send(question, "")
        authorization = await self._tokens.authorization()
        answer = await self._send(question, authorization)
        if answer.status != 401 or self._clock.monotonic() < self._renewed + RENEWAL_SECONDS:
            return answer
        self._renewed = self._clock.monotonic()  # it may be our token that is refused, and not the client's
        self._tokens.refused(authorization)
        return await self._send(question, await self._tokens.authorization())

    async def _send(self, question: bytes, authorization: str) -> Answer:
        client = self._free.pop() if self._free else HttpClient(self._options, self._contexts, self._resolver)
        try:
            answer = await client.post(self._url, _HEADERS, question, MAX_ANSWER_BYTES, authorization)
        except BaseException:
            client.close()
            raise
        if self._closed:
            client.close()
        else:
            self._free.append(client)
        return answer

    def _answers_again(self) -> None:
        if self._away:
            self._away = False
            LOG.info("the authority %s answers again", shown_url(self._url))

    def _failed(self, why: str) -> Overloaded:
        self._stats.asked.labels("0").inc()
        return self._unusable(why)

    def _unusable(self, why: str) -> Overloaded:
        """What the client is told says nothing of the upstream; the log does, once for each time it goes away."""
        if not self._away:
            self._away = True
            LOG.error("the authority %s cannot be asked who may push: %s", shown_url(self._url), why)
        return Overloaded(AWAY, RETRY_SECONDS)


def _refusal(status: int) -> StreamgaugeError | None:
    """What a client is to get for an answer that is a refusal."""
    if status in ASSENTS:
        return None
    known: dict[int, StreamgaugeError] = {
        401: Unauthorized("unauthorized", CHALLENGES),
        403: Forbidden("forbidden"),
        404: NotFound("not found"),
        409: UpstreamRefused(IN_USE, 409),
        429: RateLimited("rate limited, please try again later", RATE_LIMIT_SECONDS),
    }
    return known.get(status) or UpstreamRefused(f"upstream rejected request with code {status}", status)


def _members(body: bytes) -> dict[str, Any]:
    """Of a JSON object; none of anything else."""
    try:
        members = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return members if isinstance(members, dict) else {}


def _key(credentials: ReceiveCredentials) -> str:
    return hashlib.sha256(credentials.raw).hexdigest()


def _dumped(answer: Answer) -> bytes:
    """A whole HTTP response, which is how the reference keeps answers in memcached."""
    reason = http.client.responses.get(answer.status, "")
    lines = [f"HTTP/1.1 {answer.status} {reason}", f"Content-Length: {len(answer.body)}"]
    lines += [f"Content-Type: {kind}" for kind in (answer.headers.get("content-type"),) if kind]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body


class _Bytes:
    """As much of a socket as a response is read from."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._content)


def _response(dumped: bytes) -> tuple[int, bytes]:
    """Status and body of a kept response; 0 for what is none."""
    response = http.client.HTTPResponse(cast("Any", _Bytes(dumped)))
    try:
        response.begin()
        return response.status, response.read()
    except (http.client.HTTPException, ValueError, OSError):
        return 0, b""


def read_assent(dumped: bytes) -> Assent | None:
    """What a kept response says; None when it lets nobody push."""
    status, body = _response(dumped)
    if status not in ASSENTS:
        return None
    members = _members(body)
    account, cluster = (members.get(name) for name in ("account_id", "cluster_id"))
    return Assent(account if isinstance(account, str) else "", cluster if isinstance(cluster, str) else "")
