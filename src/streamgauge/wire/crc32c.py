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
