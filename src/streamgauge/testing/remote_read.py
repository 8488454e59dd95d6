"""Remote read from the client's side: requests, and answers decoded one bit and one field after the other.

It is slow, written from the formats' descriptions alone, and shares nothing with the encoders, so that an error in one
of them cannot hide in the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from streamgauge.testing.requests import nested, varint

_UINT64 = (1 << 64) - 1


class _Bits:
    """A big-endian stream of bits."""

    def __init__(self, data: bytes) -> None:
        self._bits = "".join(f"{byte:08b}" for byte in data)
        self._at = 0

    def take(self, count: int) -> int:
        taken = self._bits[self._at : self._at + count]
        if len(taken) < count:
            raise ValueError("the chunk is cut off")
        self._at += count
        return int(taken or "0", 2)

    def ones(self, most: int) -> int:
        """How many ones come before the next zero, or `most`."""
        for count in range(most):
            if not self.take(1):
                return count
        return most

    def varint(self) -> int:
        value = shift = 0
        while (byte := self.take(8)) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
        return value | byte << shift

    def rest(self) -> str:
        return self._bits[self._at :]


def decode_chunk(chunk: bytes) -> list[tuple[int, int]]:
    """(time, bits of the value) of each sample of a Prometheus XOR chunk. Raises ValueError if it is not whole, or
    something follows: of zeros there may be less than a byte, and one more, which Prometheus sometimes has begun."""
    stream = _Bits(chunk)
    count = stream.take(16)
    samples: list[tuple[int, int]] = []
    time = delta = value = 0
    leading = width = 0
    for index in range(count):
        if index == 0:
            zigzag = stream.varint()
            time = zigzag >> 1 ^ -(zigzag & 1)
            value = stream.take(64)
        else:
            delta = stream.varint() if index == 1 else delta + _change(stream)
            time += delta
            if stream.take(1):
                if stream.take(1):
                    leading, width = stream.take(5), stream.take(6) or 64
                value ^= stream.take(width) << (64 - leading - width)
        time = (time + (1 << 63) & _UINT64) - (1 << 63)
        samples.append((time, value))
    if len(stream.rest()) >= 16 or "1" in stream.rest():
        raise ValueError("something follows the last sample")
    return samples


def _change(stream: _Bits) -> int:
    """The delta of two deltas of times."""
    bits = (0, 14, 17, 20, 64)[stream.ones(4)]
    number = stream.take(bits)
    return number - (1 << bits) if bits and number > 1 << (bits - 1) else number


def crc32c(message: bytes) -> int:
    """CRC-32C by its definition, a division of polynomials, a byte at a time."""
    table = _remainders()
    register = 0xFFFFFFFF
    for byte in message:
        register = register >> 8 ^ table[(register ^ byte) & 0xFF]
    return register ^ 0xFFFFFFFF


@cache
def _remainders() -> list[int]:
    remainders = []
    for register in range(256):
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
        remainders.append(register)
    return remainders


# ---- answers --------------------------------------------------------------------------------------------------------

MAX_FRAME_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ReadSeries:
    """A series of an answer."""

    labels: tuple[tuple[str, str], ...]  # in the order in which they came
    samples: list[tuple[int, int]]  # time, bits of the value


def samples_answer(message: bytes) -> list[list[ReadSeries]]:
    """The series of each query's result, from a ReadResponse."""
    return [[_time_series(content) for _, content in _fields(result)] for _, result in _fields(message)]


def chunks_answer(stream: bytes, queries: int) -> list[list[ReadSeries]]:
    """The series of each query, from a stream of frames; frames of one series are put together. Raises ValueError for
    a wrong checksum, a frame that is too long or cut off, and chunks that are not what they say."""
    found: list[list[ReadSeries]] = [[] for _ in range(queries)]
    for message in frames(stream):
        fields = dict(_fields(message))
        labels, samples = _chunked_series(fields[1])
        series = found[fields.get(2, 0)]
        if series and series[-1].labels == labels:
            series[-1].samples.extend(samples)
        else:
            series.append(ReadSeries(labels, samples))
    return found


def frames(stream: bytes) -> list[bytes]:
    """The messages of a stream of frames."""
    messages = []
    at = 0
    while at < len(stream):
        length, at = _varint(stream, at)
        checksum, message = stream[at : at + 4], stream[at + 4 : at + 4 + length]
        at += 4 + length
        if len(message) != length or length > MAX_FRAME_BYTES:
            raise ValueError(f"a frame of {length} bytes, of which there are {len(message)}")
        if crc32c(message) != int.from_bytes(checksum, "big"):
            raise ValueError("the checksum of a frame is wrong")
        messages.append(message)
    return messages


def _time_series(message: bytes) -> ReadSeries:
    labels, samples = [], []
    for number, content in _fields(message):
        if number == 1:
            labels.append(_label(content))
        else:
            sample = dict(_fields(content))
            samples.append((_signed(sample.get(2, 0)), sample.get(1, 0)))
    return ReadSeries(tuple(labels), samples)


def _chunked_series(message: bytes) -> tuple[tuple[tuple[str, str], ...], list[tuple[int, int]]]:
    labels, samples = [], []
    for number, content in _fields(message):
        if number == 1:
            labels.append(_label(content))
            continue
        chunk = dict(_fields(content))
        decoded = decode_chunk(chunk[4])
        bounds = (decoded[0][0], decoded[-1][0])
        if chunk[3] != 1 or (_signed(chunk.get(1, 0)), _signed(chunk.get(2, 0))) != bounds:
            raise ValueError(f"a chunk says that it has other times than {bounds}")
        samples += decoded
    return tuple(labels), samples


def _label(message: bytes) -> tuple[str, str]:
    pair = dict(_fields(message))
    return pair[1].decode(), pair[2].decode()


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(number, content) of each field of a protobuf message."""
    content: Any
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            content, at = _varint(message, at)
        elif kind == 1:
            content, at = int.from_bytes(message[at : at + 8], "little"), at + 8
        elif kind == 2:
            length, at = _varint(message, at)
            content, at = message[at : at + length], at + length
        else:
            raise ValueError(f"a field of wire type {kind}")
        if at > len(message):
            raise ValueError("a field is cut off")
        yield tag >> 3, content


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return value | data[at] << shift, at + 1


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


# ---- requests -------------------------------------------------------------------------------------------------------

SAMPLES, STREAMED_XOR_CHUNKS = 0, 1
HEADERS = {
    "content-type": "application/x-protobuf",
    "content-encoding": "snappy",
    "x-prometheus-remote-read-version": "0.1.0",
}
"""What Prometheus sends with a request."""

_OPS = ("=", "!=", "=~", "!~")


def query(start: int, end: int, *matchers: tuple[str, str, str], hints: tuple[int, int] | None = None) -> bytes:
    """A Query message. A matcher is (label, operator, value); hints are a start and an end."""
    body = b"\x08" + varint(start) + b"\x10" + varint(end)
    for name, op, value in matchers:
        body += nested(3, b"\x08" + varint(_OPS.index(op)) + nested(2, name.encode()) + nested(3, value.encode()))
    if hints is not None:
        times = b"\x18" + varint(hints[0]) + b"\x20" + varint(hints[1])
        body += nested(4, b"\x08" + varint(15_000) + nested(2, b"rate") + times + nested(5, b"job") + b"\x30\x01")
    return body


def request(*queries: bytes, accept: Sequence[int] = ()) -> bytes:
    """A ReadRequest message. `accept` are response types, in their order."""
    packed = nested(2, b"".join(varint(kind) for kind in accept)) if accept else b""
    return b"".join(nested(1, each) for each in queries) + packed
