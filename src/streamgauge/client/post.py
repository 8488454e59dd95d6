"""Events in POST requests: one after the other, each with what has gathered, on one connection.

A reference server answers with the number of events that it stored; one that numbers them, with the index that it
expects next as well.
"""

from __future__ import annotations

import http.client
from collections.abc import Sequence

from streamgauge.client.address import Address
from streamgauge.client.link import INDEX_HEADER, STREAM_HEADER, Conflict, LinkFailed, Refused, expected_index, number
from streamgauge.client.waker import Waker, is_readable

_ANSWER_BYTES = 1 << 16


class PostLink:
    def __init__(self, address: Address, stream: str, first: int, seconds: float, waker: Waker) -> None:
        self._address = address
        self._stream = stream
        self._first = first
        self._seconds = seconds
        self._waker = waker
        self._acknowledged = 0
        self._batch: Sequence[bytes] = ()
        self._failure: LinkFailed | None = None  # that came with an acknowledgement
        self._connection = self._open()

    def send(self, events: Sequence[bytes]) -> None:
        index = self._first + self._acknowledged
        headers = {
            **self._address.headers,
            "Content-Type": "application/x-ndjson",
            STREAM_HEADER: self._stream,
            INDEX_HEADER: str(index),
        }
        if self._connection.sock is not None and is_readable(self._connection.sock):
            self._connection.close()  # the server has hung up while there was nothing to send
        self._batch = events
        try:
            self._connection.request("POST", self._address.target, b"\n".join(events) + b"\n", headers)
        except (BrokenPipeError, ConnectionResetError):
            if self._connection.sock is None or not is_readable(self._connection.sock):
                raise  # else it answered before it had read all
        except http.client.HTTPException as error:
            raise LinkFailed(f"the request failed: {error!r}") from error

    def wait(self, seconds: float | None) -> int:
        before = self._acknowledged
        if self._batch:
            self._receive()
        elif self._failure is None:
            self._waker.wait(seconds)
        if self._failure is not None and self._acknowledged == before:
            raise self._failure
        return self._acknowledged

    def finish(self) -> None:
        self._connection.close()

    def close(self) -> None:
        self._connection.close()

    def _open(self) -> http.client.HTTPConnection:
        host, port, tls = self._address.host, self._address.port, self._address.tls
        if tls is None:
            return http.client.HTTPConnection(host, port, timeout=self._seconds)
        return http.client.HTTPSConnection(host, port, timeout=self._seconds, context=tls)

    def _receive(self) -> None:
        """Read the answer to the last request."""
        try:
            answer = self._connection.getresponse()
            body = answer.read(_ANSWER_BYTES)
            if answer.read(1):
                raise LinkFailed("the server's answer is no count of events: it is no event server")
        except http.client.HTTPException as error:
            raise LinkFailed(f"the server gave no answer: {error!r}") from error
        batch, self._batch = len(self._batch), ()
        index = self._first + self._acknowledged
        expected = expected_index(answer.headers.get)
        count = _count(body)
        self._acknowledged += _stored(answer.status, batch, index, expected, count)
        if not 200 <= answer.status < 300:
            self._failure = self._failure_of(answer, body, index, expected)
        elif expected is None and count is None:
            self._failure = LinkFailed("the server's answer is no count of events: it is no event server")

    @staticmethod
    def _failure_of(answer: http.client.HTTPResponse, body: bytes, index: int, expected: int | None) -> LinkFailed:
        if answer.status == 409 and expected is not None and expected < index:
            return Conflict(f"the server expects event {expected:,} of the stream, not {index:,}")
        message = f"the server answered {answer.status}: {body[:200].decode(errors='replace').strip()}".rstrip(": ")
        speaks = expected is not None or _count(body) is not None
        if answer.status == 413 or (speaks and answer.status in (400, 422)):
            return Refused(message)
        return LinkFailed(message, float(number(answer.headers.get("Retry-After")) or 0))


def _stored(status: int, batch: int, index: int, expected: int | None, count: int | None) -> int:
    """How many events of a batch that begins at `index` are stored for certain."""
    if status == 409:
        return 0
    if expected is not None:
        return min(max(expected - index, 0), batch)
    if count is None or not (200 <= status < 300 or status in (400, 500)):
        return 0
    return min(count if status != 500 else max(count - 1, 0), batch)  # a 500 counts the event that failed


def _count(body: bytes) -> int | None:
    """The number of events that an answer states."""
    return number(body.decode(errors="replace"))
