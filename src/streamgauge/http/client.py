"""An HTTP/1.1 client for GET and POST: bounded in every way, one connection kept open, no work beyond what is asked.

Written for scrapes, of which there are thousands a minute: docs/dependencies.md has what the well-known clients cost.
Used by scraping, by HTTP service discovery, and by what is pushed.
"""

from __future__ import annotations

import asyncio
import io
import os
import socket
import ssl
import threading
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urljoin

import httptools

from streamgauge.errors import FetchFailed
from streamgauge.http.gunzip import body_too_large, gunzip
from streamgauge.http.options import HttpOptions, TlsContexts, basic
from streamgauge.http.proxy import Proxy, proxy_for, tunnel
from streamgauge.http.urls import host_of, shown_url, split_url, user_of

MAX_REDIRECTS = 10
MAX_HEAD_BYTES = 65_536
"""Status line and headers of an answer."""
_OFF_LOOP_BYTES = 1 << 20  # compressed bodies from this size on are inflated on a thread
_REASON_CHARACTERS = 80  # of the words behind a status
_NEXT_ADDRESS_SECONDS = 0.3  # after which the next address of a name is tried beside the one before
_LOOKUPS_AT_ONCE = 16
_MANY_DIGITS = 19  # of a length
_REDIRECTS = {"GET": frozenset((301, 302, 303, 307, 308)), "POST": frozenset((307, 308))}
"""By method. The others of a POST ask for a GET, which would lose the body: such an answer is the answer."""
_SCRATCH_BYTES = 65_536
_ROOM_BYTES = 1 << 20
"""That a body of a known length has from the start."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_TLS_REASONS = dict.fromkeys(
    ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"), "it does not speak TLS; is its scheme http?"
)
"""In other words than OpenSSL's, by its name for the reason."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Header names in lower case. `size`: bytes of the body as it came."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes
    size: int


@dataclass(frozen=True, slots=True)
class _Request:
    """place: scheme and host of `parts`. head: all that goes out before the body."""

    parts: SplitResult
    place: tuple[str, str]
    proxy: Proxy | None
    head: bytes


class Resolver:
    """Looks host names up, on threads of its own: lookups that hang delay nothing but themselves and each other."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUPS_AT_ONCE, "lookup")

    async def addresses(self, host: str, port: int) -> list[tuple[str, int]]:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [(str(info[4][0]), int(info[4][1])) for info in found]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class HttpClient:
    """Fetches from one place, again and again. Keeps one connection. Used on the event loop, one call at a time."""

    def __init__(self, options: HttpOptions, contexts: TlsContexts, resolver: Resolver) -> None:
        self._options = options
        self._contexts = contexts
        self._resolver = resolver
        self._kept: tuple[tuple[str, str], _Connection] | None = None
        self._made: tuple[str, dict[str, str], _Request] | None = None  # for which URL and headers, where it is fixed

    async def get(self, url: str, headers: Mapping[str, str], limit: int) -> Answer:
        """The answer, after redirects, of any status, with its body inflated. Cancel it to give up.

        limit: of the body in bytes, inflated. Raises FetchFailed, and ConfigError for secrets that cannot be read.
        """
        return await self._ask("GET", url, headers, limit, None, "")

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, limit: int, authorization: str = ""
    ) -> Answer:
        """`get` for a POST. Sent again when a connection that was kept open turns out to be closed: what is sent must
        be harmless when it comes twice.

        limit: of the answer. authorization: sent to where the URL says and nowhere else, in place of what the options
        say.
        """
        return await self._ask("POST", url, headers, limit, body, authorization)

    async def _ask(
        self, method: str, url: str, headers: Mapping[str, str], limit: int, body: bytes | None, authorization: str
    ) -> Answer:
        request = self._first(method, url, headers, body, authorization)
        origin = request.parts
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._ask_once(request, body or b"", limit)
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS[method] or not self._options.follow_redirects or not location:
                return await _inflated(answer, limit)
            url = split_url(urljoin(request.parts.geturl(), split_url(location).geturl())).geturl()
            if split_url(url).scheme not in _DEFAULT_PORTS:
                raise FetchFailed(f"redirected to {shown_url(url)}; only http and https are followed")
            request = self._request(method, url, origin, headers, body, authorization)
        raise FetchFailed(f"redirected more than {MAX_REDIRECTS} times, last to {shown_url(url)}")

    def _first(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, authorization: str
    ) -> _Request:
        """The request before any redirect; made once for a URL that is asked for again and again."""
        made = self._made
        if made is not None and method == "GET" and made[0] == url and made[1] == headers:
            return made[2]
        request = self._request(method, url, split_url(url), headers, body, authorization)
        if method == "GET" and self._options.fixed:
            self._made = (url, dict(headers), request)
        return request

    def _request(
        self,
        method: str,
        url: str,
        origin: SplitResult,
        headers: Mapping[str, str],
        body: bytes | None,
        authorization: str,
    ) -> _Request:
        """Raises FetchFailed, and ConfigError."""
        parts = split_url(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise FetchFailed(f"{shown_url(url)} is no http or https URL")
        place = (parts.scheme, host_of(parts))
        proxy = proxy_for(parts, os.environ) if self._options.proxies else None
        direct = proxy is None or parts.scheme == "https"
        target = _target(parts) if direct else f"http://{place[1]}{_target(parts)}"
        lines = [f"{method} {target} HTTP/1.1", f"host: {place[1]}"]
        lines += proxy.headers if proxy is not None and not direct else []
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += self._secrets(origin, authorization) if place == (origin.scheme, host_of(origin)) else []
        return _Request(parts, place, proxy, _head(lines, body))

    def close(self) -> None:
        if self._kept is not None:
            self._kept[1].close()
            self._kept = None

    def _secrets(self, origin: SplitResult, authorization: str) -> list[str]:
        """Headers for where they were meant to go; a redirect elsewhere gets none. Raises ConfigError."""
        user = user_of(origin)
        authorization = authorization or self._options.authorization() or (basic(*user) if user else "")
        lines = [f"authorization: {authorization}"] if authorization else []
        return lines + [f"{name}: {value.read()}" for name, value in self._options.headers]

    async def _ask_once(self, request: _Request, body: bytes, limit: int) -> Answer:
        place, head = request.place, request.head
        kept, self._kept = self._kept, None
        connection = None
        if kept is not None:
            if kept[0] == place and not kept[1].closed:
                connection = kept[1]
            else:
                kept[1].close()
        answer = None
        try:
            if connection is not None:
                answer = await connection.ask(head, body, limit)
            if connection is None or answer is None:  # a kept one was closed from the other side, as it may be
                connection = await self._connect(request.parts, request.proxy)
                answer = await connection.ask(head, body, limit)
            if answer is None:
                raise FetchFailed("the connection was closed before there was an answer")
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        if not connection.closed:
            self._kept = (place, connection)
        return answer

    async def _connect(self, parts: SplitResult, proxy: Proxy | None) -> _Connection:
        seconds = self._options.connect_seconds
        try:
            async with asyncio.timeout(seconds or None):
                return await self._connect_to(parts, proxy)
        except TimeoutError:
            raise FetchFailed(f"no connection to {host_of(parts)} within {seconds:g} s") from None

    async def _connect_to(self, parts: SplitResult, proxy: Proxy | None) -> _Connection:
        try:
            port = parts.port or _DEFAULT_PORTS[parts.scheme]
        except ValueError:
            raise FetchFailed(f"{host_of(parts)} has no valid port") from None
        host = parts.hostname or ""
        context = self._contexts.get() if parts.scheme == "https" else None
        name = (self._options.tls.server_name or host) if context else None
        if proxy is None:
            return await self._reach(host, port, context, name)
        connection = await self._reach(proxy.host, proxy.port, None, None)
        return connection if context is None else await _through(connection, proxy, _place(host, port), context, name)

    async def _reach(self, host: str, port: int, context: ssl.SSLContext | None, name: str | None) -> _Connection:
        try:
            places = await self._resolver.addresses(host, port) if not _is_address(host) else [(host, port)]
        except (OSError, UnicodeError) as error:
            raise FetchFailed(f"looking up {host}: {_reason(error)}") from None
        if not places:
            raise FetchFailed(f"{host} has no address")
        if len(places) == 1:
            return await _open(*places[0], context, name)
        return await _first([_open(*place, context, name) for place in places])


def _target(parts: SplitResult) -> str:
    path = parts.path or "/"
    return f"{path}?{parts.query}" if parts.query else path


def _head(lines: list[str], body: bytes | None) -> bytes:
    if any("\r" in line or "\n" in line or "\0" in line for line in lines):
        raise FetchFailed("a header or the URL has a line break in it")
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _through(
    connection: _Connection, proxy: Proxy, place: str, context: ssl.SSLContext, name: str | None
) -> _Connection:
    """A connection to a TLS server, through one to a proxy."""
    behind = _Connection()
    try:
        await tunnel(connection.transport, proxy, place, behind, context, name or "")
    except (OSError, ValueError) as error:
        connection.close()
        raise FetchFailed(f"connecting to {place} through a proxy: {_reason(error)}") from None
    except BaseException:
        connection.close()
        raise
    return behind


async def _open(address: str, port: int, context: ssl.SSLContext | None, name: str | None) -> _Connection:
    try:
        _, connection = await asyncio.get_running_loop().create_connection(
            _Connection, address, port, ssl=context, server_hostname=name
        )
    except (OSError, ValueError) as error:
        raise FetchFailed(f"connecting to {_place(address, port)}: {_reason(error)}") from None
    return connection


async def _first(attempts: Sequence[Coroutine[Any, Any, _Connection]]) -> _Connection:
    """The first that succeeds; each begins when the one before has failed, or has taken a while. Raises FetchFailed."""
    waiting = list(reversed(attempts))
    tried: set[asyncio.Task[_Connection]] = set()
    running: set[asyncio.Task[_Connection]] = set()
    winner: asyncio.Task[_Connection] | None = None
    failure: BaseException = FetchFailed("there is no address")
    try:
        while winner is None and (waiting or running):
            if waiting:
                task = asyncio.create_task(waiting.pop())
                tried.add(task)
                running.add(task)
            wait = _NEXT_ADDRESS_SECONDS if waiting else None
            done, running = await asyncio.wait(running, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is None:
                    winner = task
                else:
                    failure = error
        if winner is None:
            raise failure
        return winner.result()
    finally:
        for attempt in waiting:
            attempt.close()
        for task in tried:
            if task is not winner:
                task.cancel()
                task.add_done_callback(_discard)


def _discard(task: asyncio.Task[_Connection]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


class _Scratch(threading.local):
    """Where what comes is put that is no body of a known length, until the protocol has looked at it."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_SCRATCH_BYTES))


_SCRATCH = _Scratch()


class _Connection(asyncio.BufferedProtocol):
    """One connection, one request at a time. The callbacks of httptools' parser are methods of it.

    The body of an answer that says how long it is goes from the socket to where it stays; all else through the parser.
    """

    def __init__(self) -> None:
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Answer | None] | None = None
        self._limit = 0
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._reason = b""
        self._headers: dict[str, str] = {}
        self._body = io.BytesIO()  # one object, however many chunks the sender makes of it
        self._size = 0
        self._room = 0  # bytes that the body has room for without growing
        self._lent: memoryview | None = None  # to the transport, to be filled in
        self._beside = 0  # bytes since the beginning, or since the last of the body: of the head, or of trailers
        self._heard = False
        self._in_body = False
        self._complete = False
        self._keep_alive = False
        self._left = 0  # bytes of the body that the parser need not see

    async def ask(self, head: bytes, body: bytes, limit: int) -> Answer | None:
        """None when the connection was closed before a byte of the answer came. Raises FetchFailed."""
        assert self._transport is not None
        self._limit = limit
        self._begin()
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.writelines((head, body) if body else (head,))
        return await self._waiter

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    # ---- asyncio.BufferedProtocol -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._left <= 0:  # below it where more came than was announced, and Windows' loop still has some of that
            return _SCRATCH.view
        if self._size == self._room:  # no more at once than has come already: who announces much has to send it
            self._room += min(self._left + 1, max(self._size, _ROOM_BYTES))  # one, to hear of more than was announced
            self._body.seek(self._room - 1)
            self._body.write(b"\0")
        self._lent = self._body.getbuffer()[self._size : self._room]
        return self._lent

    def buffer_updated(self, nbytes: int) -> None:
        if self._lent is None:
            self._heed(bytes(_SCRATCH.view[:nbytes]))
            return
        self._lent.release()
        self._lent = None
        self._size += nbytes
        self._left -= nbytes
        if self._left < 0:
            self._fail("the answer has more bytes than it announced")
        elif not self._left:
            self._body.truncate(self._size)
            self._keep_alive = self._parser.should_keep_alive()
            self._end()

    def _heed(self, data: bytes) -> None:
        if self._waiter is None or self._waiter.done():
            self.close()  # nobody has asked
            return
        self._heard = True
        self._beside += len(data)
        if self._beside > MAX_HEAD_BYTES + len(data):
            what = "what stands between or behind the chunks of" if self._in_body else "the head of"
            self._fail(f"{what} the answer is larger than {MAX_HEAD_BYTES} bytes")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if self._complete:
                self._fail("the answer has more bytes than it announced")
            else:
                self._fail(f"this is no HTTP answer: {error or type(error).__name__}")
            return
        if self._complete:
            self._end()
        elif self._in_body:
            self._left = max(0, self._announced() - self._size)
            self._room = self._size

    def _announced(self) -> int:
        """Bytes of the body, as the head says; 0 when it does not, or when they are beyond the limit."""
        size = self._headers.get("content-length", "")
        if "transfer-encoding" in self._headers or not (size.isascii() and size.isdigit() and len(size) < _MANY_DIGITS):
            return 0
        return int(size) if int(size) <= self._limit else 0

    def _end(self) -> None:
        self._done()
        if not self._keep_alive:
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self._waiter is None or self._waiter.done():
            return
        if not self._heard:
            self._waiter.set_result(None)
        elif error is None and self._in_body and self._until_close():
            self._done()
        else:
            self._fail("the connection was closed in the middle of the answer" + (f": {error}" if error else ""))

    def eof_received(self) -> None:
        return None

    # ---- httptools --------------------------------------------------------------------------------------------------

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:  # a trailer, which has no say in how the body is understood
            return
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        self._beside = 0
        if self._size > self._limit:
            self._fail(body_too_large(self._limit))
            return
        self._body.write(body)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() in (100, 102, 103):  # the answer is still to come
            self._begin_again()
            return
        self._complete = True
        self._keep_alive = self._parser.should_keep_alive()

    def _begin_again(self) -> None:
        self._headers, self._reason, self._in_body = {}, b"", False

    def _until_close(self) -> bool:
        return "content-length" not in self._headers and "transfer-encoding" not in self._headers

    def _done(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            body, self._body = self._body.getvalue(), io.BytesIO()
            status = self._parser.get_status_code()
            self._waiter.set_result(Answer(status, _printable(self._reason), self._headers, body, self._size))

    def _fail(self, failure: str | FetchFailed) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(FetchFailed(failure) if isinstance(failure, str) else failure)
        self.close()


async def _inflated(answer: Answer, limit: int) -> Answer:
    encoding = answer.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return answer
    if encoding not in ("gzip", "x-gzip"):
        raise FetchFailed(f'content encoding "{encoding}" is not spoken here; gzip is')
    if len(answer.body) > _OFF_LOOP_BYTES:
        body = await asyncio.to_thread(gunzip, answer.body, limit)
    else:
        body = gunzip(answer.body, limit)
    return Answer(answer.status, answer.reason, answer.headers, body, answer.size)


def _printable(reason: bytes) -> str:
    """As it may stand in a log line."""
    text = reason[:_REASON_CHARACTERS].decode("latin-1")
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
            return True
        except (OSError, ValueError):
            continue
    return False


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return _TLS_REASONS.get(error.reason, f"TLS failed: {error.reason.replace('_', ' ').lower()}")
    if isinstance(error, socket.gaierror):
        return str(error.strerror).lower()
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__
