"""Payloads of events that need not be JSON: messages, and lines of text.

A text that is one JSON value is that value. Any other is a JSON string, and what is not UTF-8 is an object with the
bytes in base64: `{"base64": "/w=="}`. So nothing that somebody sends is refused for its form.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import pyarrow as pa

from streamgauge.errors import TooLarge
from streamgauge.wire.json_values import Stop, array_of, one, several

_CONTROLS = bytes(range(32))
_AT_ONCE = 1000
"""Lines that are given at once: each that is not JSON takes some microseconds, however short it is."""
_LONG = 1 << 20
"""Bytes above which a text with many control characters, each of which takes six bytes in JSON, is taken for bytes."""


def payloads_of(texts: Sequence[bytes]) -> pa.BinaryArray:
    """The payload of each text."""
    if len(texts) == 1:
        return array_of([payload_of(texts[0])])
    joined = b"\n".join(texts)
    if b"\\u" not in joined and _is_utf8(joined) and several(joined, len(joined)) == list(texts):
        return pa.array(texts, pa.binary())  # each is one value, and has nothing around it
    return pa.array([payload_of(text) for text in texts], pa.binary())


def payload_of(text: bytes) -> bytes:
    """The payload that a text is."""
    if not _is_utf8(text):
        return _base64(text)
    value = one(text)
    if value is None and len(text) > _LONG and len(text) - len(text.translate(None, _CONTROLS)) > len(text) // 5:
        return _base64(text)
    return json.dumps(text.decode(), ensure_ascii=False).encode() if value is None else value


def _base64(text: bytes) -> bytes:
    return b'{"base64":"%b"}' % base64.b64encode(text)


class Lines:
    """Divides a stream into lines, each an event, as `JsonValues` divides one into values. limit: bytes of a line.

    A line ends at \\n or \\r\\n, or at the end of the stream. An empty line is an event, too.
    """

    def __init__(self, limit: int) -> None:
        self.stop: Stop | None = None
        self._limit = limit
        self._count = 0
        self._offset = 0  # of the stream, where the line begins that is not complete
        self._begun = bytearray()
        self._lines: list[bytes] = []  # whole ones that have not been given, the next one last
        self._rest = b""  # what comes behind them

    @property
    def more(self) -> bool:
        """Whether the last piece has more than was given at once: it comes with `feed(b"")`, before all else."""
        return bool(self._lines)

    @property
    def held(self) -> int:
        """Bytes kept of a line that is not complete."""
        return len(self._begun)

    def feed(self, piece: bytes) -> pa.BinaryArray:
        """The lines that this piece completes."""
        if self.stop is None and piece:
            *lines, self._rest = piece.split(b"\n")
            self._lines = lines[::-1]
        lines = [self._lines.pop() for _ in range(min(len(self._lines), _AT_ONCE))]
        if lines:
            lines[0] = bytes(self._begun) + lines[0]
            self._begun.clear()
        taken = self._within_limit(lines)
        if self.stop is None and not self._lines:
            self._begun += self._rest
            self._rest = b""
            if len(self._begun) > self._limit:
                self._end()
        return payloads_of(taken)

    def finish(self) -> pa.BinaryArray:
        """The line that the end of the stream completes."""
        lines = [bytes(self._begun)] if self._begun and self.stop is None else []
        self._begun.clear()
        return payloads_of(self._within_limit(lines))

    def _within_limit(self, lines: list[bytes]) -> list[bytes]:
        taken: list[bytes] = []
        for line in lines:
            if len(line) > self._limit:
                self._end()
                break
            taken.append(line.removesuffix(b"\r"))
            self._count += 1
            self._offset += len(line) + 1
        return taken

    def _end(self) -> None:
        event = self._count + 1
        text = f"event {event}, byte {self._offset}: it is larger than {self._limit} bytes, which is the limit"
        self.stop = Stop(TooLarge(text), event, self._offset)
        self._begun.clear()
        self._lines.clear()


def _is_utf8(text: bytes) -> bool:
    try:
        return text.isascii() or text.decode() is not None
    except UnicodeDecodeError:
        return False
