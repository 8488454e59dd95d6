"""Answers to remote read, decoded one bit and one field after the other: slow, and written from the formats'
descriptions alone. It shares nothing with the encoders, so that an error in one of them cannot hide in the other.
"""

from __future__ import annotations

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
    something follows."""
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
    if len(stream.rest()) >= 8 or "1" in stream.rest():
        raise ValueError("something follows the last sample")
    return samples


def _change(stream: _Bits) -> int:
    """The delta of two deltas of times."""
    bits = (0, 14, 17, 20, 64)[stream.ones(4)]
    number = stream.take(bits)
    return number - (1 << bits) if bits and number > 1 << (bits - 1) else number


def crc32c(message: bytes) -> int:
    """CRC-32C by its definition: a division of polynomials, bit by bit."""
    register = 0xFFFFFFFF
    for byte in message:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF
