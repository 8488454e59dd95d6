"""WebSocket's framing as a server sees it (RFC 6455), from bytes to messages and back, without a connection.

Whatever is too large or wrong ends the stream of messages; what came before it has been given.
"""

from __future__ import annotations

import base64
import enum
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_FIN, _RESERVED, _OPCODE, _MASKED = 0x80, 0x70, 0x0F, 0x80
_WHOLE = frozenset({0x81, 0x82})  # the first byte of a text or binary message in one frame
_CONTROL_BYTES = 125
_AT_ONCE = 4096
"""Frames that are read before `more` is said: some milliseconds, however short they are."""
_LARGE = 64 << 10
"""Bytes of a frame of which the mask is taken off as it comes, and not of all of it at the end."""
_SENDABLE_CODES = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})

Unmask = Callable[[bytes, bytes], bytes]
"""Data and the four bytes of its mask give the data without it."""


class Opcode(enum.IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Code(enum.IntEnum):
    """Why a connection is closed (RFC 6455, 7.4.1)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    NOT_TEXT = 1007
    POLICY = 1008
    TOO_LARGE = 1009
    INTERNAL = 1011
    TRY_AGAIN = 1013


@dataclass(frozen=True, slots=True)
class End:
    """Why no more messages come. closed: the client sent its Close frame. code, reason: for ours."""

    code: int
    reason: str = ""
    closed: bool = False


@dataclass(slots=True)
class Incoming:
    """What some bytes brought."""

    messages: list[bytes] = field(default_factory=list)
    ping: bytes | None = None  # the payload of the last ping: only that needs an answer
    end: End | None = None


class FrameReader:
    """Reads what a client sends. limit: bytes of one message. An empty binary message is the end of the stream."""

    def __init__(self, limit: int, unmask: Unmask) -> None:
        self._limit = limit
        self._unmask = unmask
        self._rest = bytearray()  # the beginning of a frame
        self._needed = 0  # bytes of that frame, as far as it is known
        self._opcode: int | None = None  # of the message whose fragments come
        self._fragments = bytearray()
        self._large: _Large | None = None
        self._ended = False
        self.more = False
        """Whether there is more than was given at once: it comes with `feed(b"")`, before anything else is fed."""

    @property
    def held(self) -> int:
        """Bytes kept of what is not complete, or was not read yet."""
        return len(self._rest) + len(self._fragments)

    def feed(self, data: bytes) -> Incoming:
        """What the next bytes complete. After an end, nothing."""
        incoming = Incoming()
        self.more = False
        if self._ended:
            return incoming
        if self._large is not None:
            data = self._go_on(self._large, data, incoming)
        elif self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return incoming
            data = bytes(self._rest)
            self._rest.clear()
        at = self._read(data, incoming)
        if incoming.end is not None:
            self._ended = True
            self._fragments.clear()
        elif self._large is None:
            self._rest += data[at:]
        return incoming

    def _go_on(self, large: _Large, data: bytes, incoming: Incoming) -> bytes:
        """Take what comes of a large frame. What is behind it."""
        part = data[: large.left]
        self._fragments += self._unmask(part, large.mask)
        large.advance(len(part))
        if large.left:
            return b""
        self._large = None
        if large.last:
            self._whole(incoming)
        return data[len(part) :]

    def _read(self, data: bytes, incoming: Incoming) -> int:
        """Take every whole frame; where the next one begins."""
        at, size, unmask = 0, len(data), self._unmask
        for _ in range(_AT_ONCE):
            if size - at < 2:
                break
            first, length = data[at], data[at + 1] & 0x7F
            mask_at = at + 2
            if length == 126:
                mask_at += 2
                length = int.from_bytes(data[at + 2 : mask_at]) if size >= mask_at else 0
            elif length == 127:
                mask_at += 8
                length = int.from_bytes(data[at + 2 : mask_at]) if size >= mask_at else 0
            start = mask_at + 4
            plain = first in _WHOLE and data[at + 1] & _MASKED and self._opcode is None and length <= self._limit
            if not plain and (refusal := self._refusal(first, data[at + 1], length)) is not None:
                incoming.end = refusal
                return at
            if size < start + length:
                self._needed = start + length - at
                if size >= start and length >= _LARGE:
                    self._opcode = first & _OPCODE or self._opcode
                    self._large = _Large(length, data[mask_at:start], bool(first & _FIN))
                    self._go_on(self._large, data[start:], incoming)
                return at
            payload = unmask(data[start : start + length], data[mask_at:start])
            at = start + length
            if plain and payload:
                incoming.messages.append(payload)
                continue
            if plain:
                self._message(first & _OPCODE, payload, incoming)
            else:
                self._other(first, payload, incoming)
            if incoming.end is not None:
                return at
        else:
            self.more = at < size
        self._needed = 0
        return at

    def _refusal(self, first: int, second: int, length: int) -> End | None:
        """Why a frame cannot be taken, by its header."""
        opcode = first & _OPCODE
        if first & _RESERVED or not second & _MASKED:
            return End(Code.PROTOCOL_ERROR, "a frame with reserved bits, or without a mask")
        if opcode >= Opcode.CLOSE:
            if opcode > Opcode.PONG or not first & _FIN or length > _CONTROL_BYTES:
                return End(Code.PROTOCOL_ERROR, "a control frame that is unknown, fragmented or too long")
        elif opcode > Opcode.BINARY or (opcode == Opcode.CONTINUATION) is (self._opcode is None):
            return End(Code.PROTOCOL_ERROR, "a frame that is unknown or does not follow on the one before it")
        if len(self._fragments) + length > self._limit and opcode < Opcode.CLOSE:
            return End(Code.TOO_LARGE, f"a message is larger than {self._limit} bytes, which is the limit")
        return None

    def _message(self, opcode: int, payload: bytes, incoming: Incoming) -> None:
        if not payload and opcode == Opcode.BINARY:
            incoming.end = End(Code.NORMAL)
        else:
            incoming.messages.append(payload)

    def _other(self, first: int, payload: bytes, incoming: Incoming) -> None:
        """A fragment or a control frame."""
        opcode = first & _OPCODE
        if opcode == Opcode.PING:
            incoming.ping = payload
        elif opcode == Opcode.CLOSE:
            incoming.end = _closing(payload)
        elif opcode < Opcode.CLOSE:
            self._opcode = opcode or self._opcode
            self._fragments += payload
            if first & _FIN:
                self._whole(incoming)

    def _whole(self, incoming: Incoming) -> None:
        """The message whose last fragment has come."""
        assert self._opcode is not None
        whole, kind = bytes(self._fragments), self._opcode
        self._opcode = None
        self._fragments = bytearray()
        self._message(kind, whole, incoming)


@dataclass(slots=True)
class _Large:
    """A frame that has not come to its end."""

    left: int  # bytes to come
    mask: bytes  # as it is for the next byte
    last: bool  # its message ends with it

    def advance(self, size: int) -> None:
        self.left -= size
        turn = size % len(self.mask)
        self.mask = self.mask[turn:] + self.mask[:turn]


def _closing(payload: bytes) -> End:
    """What a client's Close frame asks for."""
    if not payload:
        return End(Code.NORMAL, closed=True)
    code = int.from_bytes(payload[:2])
    if len(payload) == 1 or code not in _SENDABLE_CODES:
        return End(Code.PROTOCOL_ERROR, "a Close frame without a valid code", closed=True)
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return End(Code.NOT_TEXT, "the reason of a Close frame is not UTF-8", closed=True)
    return End(code, closed=True)


def frame(opcode: Opcode, payload: bytes) -> bytes:
    """A whole message, or a control frame, as a server sends it."""
    size = len(payload)
    if size < 126:
        return bytes((_FIN | opcode, size)) + payload
    if size < 65_536:
        return bytes((_FIN | opcode, 126)) + size.to_bytes(2) + payload
    return bytes((_FIN | opcode, 127)) + size.to_bytes(8) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A Close frame; a reason that is too long is cut off."""
    text = reason.encode()[: _CONTROL_BYTES - 2].decode(errors="ignore").encode()
    return frame(Opcode.CLOSE, code.to_bytes(2) + text)


def accept_key(key: bytes) -> bytes:
    """The answer to a client's Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
