"""One request until a destination has taken it, or will not: back-off, tokens, and what an answer means."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode

from streamgauge.backoff import Backoff
from streamgauge.clock import Clock
from streamgauge.errors import ConfigError, FetchFailed
from streamgauge.forward.remote_write.numbers import Numbers
from streamgauge.forward.remote_write.target import InfluxDatabase, Protocol, RemoteWriteTarget
from streamgauge.http.client import Answer, HttpClient, Resolver
from streamgauge.http.oauth2 import TokenSource
from streamgauge.http.options import USER_AGENT, TlsContexts

LOG = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 1 << 20
LOG_SECONDS = 10.0
"""Between two log lines of a kind."""
MAX_PAUSE_SECONDS = 3600.0
"""Of what a Retry-After may ask for."""
_SHOWN = 300  # characters of an answer in the log
_WRITTEN = "x-prometheus-remote-write-samples-written"
_COUNT = re.compile("[0-9]{1,9}")
_UNREADABLE = "unable to parse '"
_AGAIN = frozenset((401, 403, 408, 415))
"""Of the answers 4xx those that say nothing about the samples: no credentials that are valid, or that are not permitted
to write, out of time, a message that is not spoken there. 429 is for the configuration to say."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """words: "" where all is well by now. again: it is worth while to send it again, pause:
    after so many seconds at the earliest."""

    words: str
    again: bool
    pause: float = 0.0
    samples: int | None = None  # how many are refused; None for all of the request


class Sender:
    """Of one destination, for all its shards. Used on the event loop. `close` it."""

    def __init__(
        self,
        target: RemoteWriteTarget,
        resolver: Resolver,
        clock: Clock,
        numbers: Numbers,
        headers: Mapping[str, str],
    ) -> None:
        self._target = target
        self._resolver = resolver
        self._clock = clock
        self._numbers = numbers
        self._contexts = TlsContexts(target.http.tls)
        self._clients: dict[int, HttpClient] = {}
        self._tokens = None if target.oauth2 is None else TokenSource(target.oauth2, resolver, clock)
        self._headers = {**headers, "user-agent": USER_AGENT}
        self._fails = ""  # how the failure begins that was logged; "" after a success
        self._failure_logged_at = -float("inf")
        self._refusal_logged_at = -float("inf")
        self._unlogged = 0  # refused samples since then
        self._made = False  # the database of an InfluxDB, and nothing was taken since
        self._silent = False  # that it does not say what it has written was logged

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        if self._tokens is not None:
            self._tokens.close()

    async def deliver(self, shard: int, body: Callable[[], Awaitable[tuple[bytes, int]]]) -> int:
        """Send what `body` makes, anew for each attempt, with how many samples there are in it, until it is taken or
        refused. How many samples were taken. Shards may do so at the same time, each one after the other."""
        policy, name = self._target.queue, self._target.name
        backoff = Backoff(policy.min_backoff / 1000, policy.max_backoff / 1000, random.uniform)
        while True:
            content, samples = await body()
            if not samples:
                return 0
            refusal = await self.post(shard, content)
            if refusal is None:
                self._numbers.samples.labels(name).inc(samples)
                return samples
            if not refusal.again:
                refused = samples if refusal.samples is None else min(refusal.samples, samples)
                self._numbers.failed.labels(name).inc(refused)
                self._numbers.samples.labels(name).inc(samples - refused)
                self._log_refused(refused, refusal.words)
                return samples - refused
            self._numbers.retried.labels(name).inc(samples)
            if refusal.words:
                self._log_failure(refusal.words)
            await self._clock.sleep(max(backoff.pause(), refusal.pause))

    async def post(self, shard: int, content: bytes) -> _Refusal | None:
        """One attempt; None when it was taken."""
        begun, made = self._clock.monotonic(), self._made
        authorization = ""
        try:
            async with asyncio.timeout(self._target.timeout / 1000):
                authorization = await self._tokens.authorization() if self._tokens else ""
                answer = await self._client(shard).post(
                    self._target.url, self._headers, content, MAX_ANSWER_BYTES, authorization
                )
        except TimeoutError:
            return _Refusal(f"no answer within {self._target.timeout / 1000:g} s (remote_timeout)", again=True)
        except (FetchFailed, ConfigError) as error:
            return _Refusal(error.message, again=True)
        self._numbers.seconds.labels(self._target.name).observe(self._clock.monotonic() - begun)
        self._numbers.bytes.labels(self._target.name).inc(len(content))
        if answer.status == 401 and self._tokens:
            self._tokens.refused(authorization)
        if 200 <= answer.status < 300:
            self._taken(answer)
            return None
        refusal = self._refused(answer)
        if answer.status == 404 and self._target.influx is not None:
            return await self._create(shard, self._target.influx, refusal.words, made)
        return refusal

    async def _create(self, shard: int, database: InfluxDatabase, words: str, made: bool) -> _Refusal:
        """Make the database that is missing, and send what was refused once more. made: whether that was done before,
        and has helped nothing."""
        headers = {"content-type": "application/x-www-form-urlencoded", "user-agent": USER_AGENT}
        body = urlencode({"q": database.statement}).encode()
        try:
            async with asyncio.timeout(self._target.timeout / 1000):
                answer = await self._client(shard).post(database.url, headers, body, MAX_ANSWER_BYTES)
        except TimeoutError:
            return _Refusal(f"{words}; it was to be made, and there is no answer to that", again=True)
        except (FetchFailed, ConfigError) as error:
            return _Refusal(f"{words}; it was to be made: {error.message}", again=True)
        if not 200 <= answer.status < 300:
            return _Refusal(f"{words}; it was to be made: {answer.status} {_shown(answer.body)}", again=True)
<<<<<<< HEAD
        if reason := _failed_statement(answer.body):
            return _Refusal(f"{words}; it was to be made: {reason}", again=True)
=======
        if failure := _failed_statement(answer.body):
            return _Refusal(f"{words}; it was to be made: {failure}", again=True)
>>>>>>> fix2
        if made:
            return _Refusal(f"{words}; it was made, which has helped nothing", again=True)
        if not self._made:
            self._made = True
            LOG.info("%s: the database was made", self._target.name)
        return _Refusal("", again=True)

    def _client(self, shard: int) -> HttpClient:
        if shard not in self._clients:
            self._clients[shard] = HttpClient(self._target.http, self._contexts, self._resolver)
        return self._clients[shard]

    def _taken(self, answer: Answer) -> None:
        self._made = False
        if self._fails:
            LOG.info("samples are sent to %s again", self._target.name)
            self._fails = ""
        if self._target.protocol is Protocol.V2 and _WRITTEN not in answer.headers and not self._silent:
            self._silent = True
            LOG.warning(
                "%s answers without %s, so it may not know remote write 2.0, and have stored nothing; if so, set "
                "protobuf_message: %s",
                self._target.name,
                _WRITTEN,
                Protocol.V1,
            )

    def _refused(self, answer: Answer) -> _Refusal:
        status = answer.status
        words = f"{status} {answer.reason}: {_shown(answer.body)}".rstrip(": ")
        if status == 415 and self._target.protocol is Protocol.V2:
            words += f" (it does not take remote write 2.0; set protobuf_message: {Protocol.V1})"
        if status == 429:
            return _Refusal(words, self._target.queue.retry_on_429, self._pause(answer.headers))
        again = status < 400 or status >= 500 or status in _AGAIN
        refused = _dropped(answer.body) if self._target.influx is not None else None
        return _Refusal(words, again, self._pause(answer.headers) if again else 0.0, refused)

    def _pause(self, headers: Mapping[str, str]) -> float:
        """Seconds that Retry-After asks for."""
        text = headers.get("retry-after", "").strip()
        if text.isdecimal():
            return min(float(text), MAX_PAUSE_SECONDS)
        try:
            when = parsedate_to_datetime(text)
        except (ValueError, TypeError, OverflowError):
            return 0.0
        now = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)) - now
        return min(max(seconds.total_seconds(), 0.0), MAX_PAUSE_SECONDS)

    def _log_failure(self, words: str) -> None:
        """Once until it works again or fails in another way, and once in ten seconds where that comes and goes."""
        now = self._clock.monotonic()
        kind = words.partition(":")[0]
        if kind != self._fails and now - self._failure_logged_at >= LOG_SECONDS:
            LOG.error("samples are not sent to %s, which is tried again: %s", self._target.name, words)
            self._fails, self._failure_logged_at = kind, now

    def _log_refused(self, samples: int, words: str) -> None:
        """Not for each request: a destination may refuse all."""
        self._unlogged += samples
        if self._clock.monotonic() - self._refusal_logged_at >= LOG_SECONDS:
            self._refusal_logged_at = self._clock.monotonic()
            LOG.error("%s refuses %d samples, which are not sent again: %s", self._target.name, self._unlogged, words)
            self._unlogged = 0


def _said(body: bytes) -> dict[str, Any]:
    """The object that an answer of InfluxDB is; an empty one where it is none."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _failed_statement(body: bytes) -> str:
    """Why InfluxDB has not done what it was told, which it answers with 200, too; "" where it has."""
    said = _said(body)
    results = said.get("results")
    for each in (said, *(results if isinstance(results, list) else ())):
        if isinstance(each, dict) and (error := each.get("error")):
            return _shown(str(error).encode(errors="replace"))
    return ""


def _dropped(body: bytes) -> int | None:
    """How many samples InfluxDB has not written; None where it does not say that it has written the others. It does not
    count lines that it cannot read, but names them."""
    said = _said(body)
    words = str(said.get("error") or said.get("message") or "")
    count = words.rpartition(" dropped=")[2]
    if "partial write: " not in words or not _COUNT.fullmatch(count):
        return None
    return int(count) + words.count(_UNREADABLE)


def _shown(body: bytes) -> str:
    """The first line of an answer, as it may stand in a log line."""
    line = body[:_SHOWN].decode(errors="replace").strip().partition("\n")[0]
    return "".join(letter if letter.isprintable() else "�" for letter in line)
