"""CRC-32C (Castagnoli) of many messages at once.

The standard library knows another polynomial only. A CRC without its initial and final inversion is linear: each byte
adds, by exclusive or, a number that depends on the byte and on how far from the end it stands. So nothing is done one
byte after the other: the numbers of the bytes of a block come from one table, and those of blocks are moved to where
they stand by tables again.

Definition: RFC 3720, appendix B.4; the tables follow Sarwate's method.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from streamgauge.model.arrays import Int64s, UInt8s, UInt32s

_POLYNOMIAL = 0x82F63B78  # bits reversed
_BLOCK = 128
"""Bytes whose table, 128 KiB, stays in the processor's second cache."""
_INVERTED = 4  # bytes of the initial register


def crc32c(data: UInt8s, offsets: Int64s) -> UInt32s:
    """The checksum of each of the messages data[offsets[i]:offsets[i + 1]]; the first begins at 0."""
    lengths = np.diff(offsets)
    data = data[: offsets[-1]].copy()
    for at in range(_INVERTED):
        data[offsets[:-1][lengths > at] + at] ^= 0xFF  # the initial register of ones
    blocks = -(-lengths // _BLOCK)
    sums = np.zeros(len(lengths), np.uint32)
    filled = np.flatnonzero(blocks)
    if len(filled):
        counts = blocks[filled]
        first = np.cumsum(counts) - counts
        behind = np.repeat(first + counts - 1, counts) - np.arange(counts.sum())  # blocks behind each one
        ends = np.repeat(offsets[filled + 1], counts) - behind * _BLOCK
        begins = np.maximum(ends - _BLOCK, np.repeat(offsets[filled], counts))
        moved = _moved(_block_sums(data, begins, ends), behind)
        sums[filled] = np.bitwise_xor.reduceat(moved, first)
    rest = 0xFFFFFFFF >> (8 * np.minimum(lengths, _INVERTED))  # of the initial register, where a message is shorter
    result: UInt32s = sums ^ rest.astype(np.uint32) ^ np.uint32(0xFFFFFFFF)
    return result


def _block_sums(data: UInt8s, begins: Int64s, ends: Int64s) -> UInt32s:
    """What the bytes of each block add. The blocks follow each other without gaps and have _BLOCK bytes at most."""
    place = np.repeat(ends - 1, ends - begins)
    place -= np.arange(begins[0], ends[-1])
    place <<= 8
    place |= data[begins[0] : ends[-1]]
    sums: UInt32s = np.bitwise_xor.reduceat(_byte_table()[place], begins - begins[0])
    return sums


def _moved(sums: UInt32s, blocks: Int64s) -> UInt32s:
    """The same sums with so many blocks of zeros behind each."""
    sums = sums.copy()
    power = 0
    while (remaining := blocks >> power).any():
        rows = np.flatnonzero(remaining & 1)
        sums[rows] = _applied(_move_table(power), sums[rows])
        power += 1
    return sums


def _applied(table: UInt32s, sums: UInt32s) -> UInt32s:
    result: UInt32s = table[0, sums & 0xFF]
    for byte in range(1, 4):
        result = result ^ table[byte, (sums >> np.uint32(8 * byte)) & 0xFF]
    return result


def _zero_byte(sums: UInt32s) -> UInt32s:
    """The same sums with a byte of zeros behind each."""
    result: UInt32s = (sums >> np.uint32(8)) ^ _single_byte()[sums & 0xFF]
    return result


@cache
def _single_byte() -> UInt32s:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> np.uint32(1)) ^ np.where(table & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return table


@cache
def _byte_table() -> UInt32s:
    """At (bytes behind it << 8) + byte: what the byte adds. uint32[256 * _BLOCK]."""
    rows = [_single_byte()]
    while len(rows) < _BLOCK:
        rows.append(_zero_byte(rows[-1]))
    return np.concatenate(rows)


@cache
def _move_table(power: int) -> UInt32s:
    """How 2**power blocks of zeros change the byte at each of the four places of a sum. uint32[4, 256]."""
    if power:
        half = _move_table(power - 1)
        return _applied(half, half.reshape(-1)).reshape(4, 256)
    table = np.arange(256, dtype=np.uint32) << (8 * np.arange(4, dtype=np.uint32))[:, None]
    for _ in range(_BLOCK):
        table = _zero_byte(table)
    return table


# ---- one long message -----------------------------------------------------------------------------------------

_SPARSE = (5685, 1362, 426, 0)
"""x^5685 + x^1362 + x^426 + 1 is a multiple of the polynomial, found by search. So are its powers of two, which have
the same exponents times 8, 16, 32 or 64: a unit of so many bits that stands 5685 units from the end may be added at
those three places instead. That is an exclusive or of slices, and leaves 5685 bytes of any message."""
_UNITS = (np.uint64, np.uint32, np.uint16, np.uint8)


def crc32c_of(message: bytes) -> int:
    """The checksum of one message, as `crc32c`: five times as fast for one of 64 KiB."""
    if len(message) <= _INVERTED:
        return int(crc32c(np.frombuffer(message, np.uint8), np.array([0, len(message)], np.int64))[0])
    front = -len(message) % 8  # zeros before a message do not change its sum
    padded = np.zeros(front + len(message), np.uint8)
    padded[front:] = np.frombuffer(message, np.uint8)
    padded[front : front + _INVERTED] ^= 0xFF  # the initial register of ones
    rest = _folded(padded)
    blocks = np.zeros((-(-len(rest) // _BLOCK), _BLOCK), np.intp)
    blocks.reshape(-1)[blocks.size - len(rest) :] = rest
    blocks += _block_places()
    sums: UInt32s = np.bitwise_xor.reduce(_byte_table().take(blocks), axis=1)
    one, two, three, four = _move_lists()
    crc = 0
    for block in sums.tolist():
        crc = one[crc & 0xFF] ^ two[crc >> 8 & 0xFF] ^ three[crc >> 16 & 0xFF] ^ four[crc >> 24] ^ block
    return crc ^ 0xFFFFFFFF


def _folded(message: UInt8s) -> UInt8s:
    """A message of 5685 bytes or fewer that has the same sum, made within `message`."""
    top, *places = _SPARSE
    for unit in _UNITS:
        units = message.view(unit)
        while (size := len(units)) > top:
            moved = units[: min(size - top, top - places[0])]
            for place in places:
                begin = top - place
                target = units[begin : begin + len(moved)]
                np.bitwise_xor(target, moved, out=target)
            units = units[len(moved) :]
        message = units.view(np.uint8)
    return message


@cache
def _block_places() -> Int64s:
    """Where in the byte table the row of each byte of a block begins. int64[_BLOCK]."""
    return np.arange(_BLOCK - 1, -1, -1) << 8


@cache
def _move_lists() -> tuple[list[int], ...]:
    """The table of one block, as lists."""
    return tuple(row.tolist() for row in _move_table(0))
