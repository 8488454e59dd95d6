"""XOR chunks: Prometheus' compressed form of up to 120 samples of one series, for many chunks at once.

A chunk is a big-endian stream of bits, filled up to whole bytes with zeros:

    number of samples      16 bits
    first sample           time as a zigzag varint; the value's 64 bits
    second sample          time since the first as a varint; value
    each further one       time; value

    time    change of the time between samples   bits
            0                                    0
            -8191 … 8192                         10 and 14 bits
            -65535 … 65536                       110 and 17 bits
            -524287 … 524288                     1110 and 20 bits
            any other                            1111 and 64 bits

    value   as before                            0
            differs from the one before          10 and the bits that differ, within the window in force
                                                 11, a new window, and the bits that differ, within it

The bits that differ are the exclusive or with the value before. A window is 5 bits with the number of zeros before it,
at most 31, and 6 bits with its width, 0 for 64; it stays in force while every bit that differs lies within it.

Only that last rule refers to what was written before: it is followed sample by sample, but for all chunks together.
Everything else is arithmetic on columns.

Source: the documentation of Prometheus' chunk format (tsdb/docs/format/chunks.md); the idea is that of Pelkonen et al.,
"Gorilla: A Fast, Scalable, In-Memory Time Series Database", 2015.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamgauge.model.arrays import Bools, Floats, Int64s, UInt8s, UInt64s
from streamgauge.wire.varints import varint_lengths, varint_matrix

CHUNK_SAMPLES = 120
"""As Prometheus has it: 30 minutes of samples at one each 15 seconds."""
MAX_CHUNK_BYTES = 2 + 10 + 8 + 10 + CHUNK_SAMPLES * (68 + 77) // 8
"""More than any chunk takes: the longest numbers, and no bit saved."""

_TIME_PAYLOADS = (14, 17, 20)
_TIME_BITS = np.array([1, 16, 20, 24, 4], np.int64)
_TIME_PREFIX = np.array([0, 0b10 << 14, 0b110 << 17, 0b1110 << 20, 0b1111], np.uint64)
_TIME_MASK = np.array([0, (1 << 14) - 1, (1 << 17) - 1, (1 << 20) - 1, 0], np.uint64)
_FAR = 4  # the row of these tables for which 64 more bits follow

_MAX_LEADING = 31
_NO_WINDOW = 65  # wider than any
_NO_BITS = 255  # zeros on both sides of no bits at all: within every window

_SPLIT = 6
"""Bytes of a long varint that go into the second of its two columns."""


@dataclass(frozen=True, slots=True)
class _Column:
    """A bit field of each sample: the `bits` lowest bits of `number`, all others of which are zero."""

    number: UInt64s
    bits: Int64s  # 0 to 64


def encode(times: Int64s, values: Floats, offsets: Int64s) -> tuple[UInt8s, Int64s]:
    """The chunks of the samples [offsets[i], offsets[i + 1]), of which each has 1 to 65,535.

    times: ms; values: their bits stay as they are. offsets[0] is 0, the last offset is the number of samples.
    Returns (bytes of all chunks, where each begins and the last one ends).
    """
    starts, lengths = offsets[:-1], np.diff(offsets)
    seconds = starts[lengths > 1] + 1
    columns = _merged([*_times(times, starts, seconds, lengths), *_values(values, starts, lengths)])
    return _packed(columns, starts, lengths)


# ---- times ----------------------------------------------------------------------------------------------------------


def _times(times: Int64s, starts: Int64s, seconds: Int64s, lengths: Int64s) -> tuple[_Column, _Column, _Column]:
    """Whatever stands before the value of a sample, in three columns."""
    delta = np.diff(times, prepend=times[:1])
    change = np.diff(delta, prepend=delta[:1])
    kind = (change != 0).astype(np.int8)
    for bits in _TIME_PAYLOADS:
        low = (1 << (bits - 1)) - 1
        kind += (change + low).view(np.uint64) > np.uint64(2 * low + 1)
    change[starts] = change[seconds] = 0
    kind[starts] = kind[seconds] = 0
    one = _Column(_TIME_PREFIX[kind] | (change.view(np.uint64) & _TIME_MASK[kind]), _TIME_BITS[kind])
    two, three = _empty(len(times)), _empty(len(times))
    far = kind == _FAR
    two.number[far], two.bits[far] = change[far].view(np.uint64), 64
    one.number[starts], one.bits[starts] = lengths.astype(np.uint64), 16
    _put_varints(two, three, starts, _zigzag(times[starts]))
    one.bits[seconds] = 0
    _put_varints(two, three, seconds, delta[seconds].view(np.uint64))
    return one, two, three


def _zigzag(numbers: Int64s) -> UInt64s:
    return ((numbers << 1) ^ (numbers >> 63)).view(np.uint64)


def _put_varints(first: _Column, second: _Column, rows: Int64s, numbers: UInt64s) -> None:
    """Put numbers of up to ten bytes into two columns, the last six bytes into the second."""
    lengths = varint_lengths(numbers)
    matrix = varint_matrix(numbers, lengths)
    split = np.maximum(lengths - _SPLIT, 0)
    for column, start, stop in ((first, np.zeros_like(split), split), (second, split, lengths)):
        number = np.zeros(len(rows), np.uint64)
        for at in range(matrix.shape[1]):
            inside = (start <= at) & (at < stop)
            number = np.where(inside, number << np.uint64(8) | matrix[:, at], number)
        column.number[rows], column.bits[rows] = number, 8 * (stop - start)


# ---- values ---------------------------------------------------------------------------------------------------------


def _values(values: Floats, starts: Int64s, lengths: Int64s) -> tuple[_Column, _Column]:
    """Two columns: what says which bits follow, and these bits."""
    raw = np.ascontiguousarray(values).view(np.uint64)
    differing = np.empty_like(raw)
    np.bitwise_xor(raw[1:], raw[:-1], out=differing[1:])
    differing[starts] = 0
    leading, trailing = _leading(differing), _trailing(differing)
    new = _new_windows(leading, trailing, starts, lengths)
    opened = np.maximum.accumulate(np.where(new, np.arange(len(raw)), 0))  # where the window in force was opened
    leading, trailing = leading[opened].astype(np.uint64), trailing[opened].astype(np.uint64)
    changed = differing != 0
    width = np.where(changed, 64 - (leading + trailing).view(np.int64), 0)
    payload = _Column(differing >> np.where(changed, trailing, np.uint64(0)), width)
    window = np.uint64(0b11 << 11) | (leading << np.uint64(6)) | (width.view(np.uint64) & np.uint64(63))
    control = _Column(
        np.where(new, window, changed.astype(np.uint64) << np.uint64(1)),
        np.where(new, 13, 1 + changed.astype(np.int64)),
    )
    control.bits[starts] = 0
    payload.number[starts], payload.bits[starts] = raw[starts], 64
    return control, payload


def _leading(numbers: UInt64s) -> UInt8s:
    """Zeros before the highest bit, 31 at most; _NO_BITS where there is no bit."""
    high = (numbers >> np.uint64(32)).astype(np.float64)  # exact, so that its exponent is the highest bit
    exponent = (high.view(np.int64) >> 52) - 1023
    leading = np.minimum(_MAX_LEADING - exponent, _MAX_LEADING)
    return np.where(numbers == 0, _NO_BITS, leading).astype(np.uint8)


def _trailing(numbers: UInt64s) -> UInt8s:
    """Zeros behind the lowest bit; _NO_BITS where there is no bit."""
    zeros = np.bitwise_count((numbers & -numbers) - np.uint64(1))
    return np.where(numbers == 0, np.uint8(_NO_BITS), zeros)


def _new_windows(leading: UInt8s, trailing: UInt8s, starts: Int64s, lengths: Int64s) -> Bools:
    """Which samples open a window: those with bits outside of the one in force."""
    new = np.zeros(len(leading), np.bool_)
    longest_first = np.argsort(-lengths, kind="stable")
    at = starts[longest_first]
    remaining = np.bincount(lengths)[::-1].cumsum()[::-1]  # of each length: the chunks that have it at least
    left = np.full(len(starts), _NO_WINDOW, np.uint8)
    right = left.copy()
    for index in range(1, len(remaining) - 1):
        count = int(remaining[index + 1])
        place = at[:count] + index
        before, behind = leading[place], trailing[place]
        outside = (before < left[:count]) | (behind < right[:count])
        np.copyto(left[:count], before, where=outside)
        np.copyto(right[:count], behind, where=outside)
        new[place] = outside
    return new


# ---- bits -----------------------------------------------------------------------------------------------------------


def _empty(rows: int) -> _Column:
    return _Column(np.zeros(rows, np.uint64), np.zeros(rows, np.int64))


def _merged(columns: list[_Column]) -> list[_Column]:
    """The same bits in fewer columns: neighbours are joined where that leaves no more than 64 bits in any row."""
    merged = columns[:1]
    for column in columns[1:]:
        last = merged[-1]
        bits = last.bits + column.bits
        if int(bits.max()) <= 64:
            merged[-1] = _Column((last.number << column.bits.view(np.uint64)) | column.number, bits)
        else:
            merged.append(column)
    return merged


def _packed(columns: list[_Column], starts: Int64s, lengths: Int64s) -> tuple[UInt8s, Int64s]:
    """The fields one behind the other, row by row; each chunk begins with a byte of its own."""
    numbers = np.column_stack([column.number for column in columns]).reshape(-1)
    bits = np.column_stack([column.bits for column in columns]).reshape(-1)
    ends = np.cumsum(bits)
    chunk_bits = np.diff(ends[(starts + lengths) * len(columns) - 1], prepend=0)
    sizes = -(-chunk_bits // 8)
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    padding = 8 * offsets[:-1] - (np.cumsum(chunk_bits) - chunk_bits)
    place = ends - bits + np.repeat(padding, lengths * len(columns))
    return _words(numbers, bits, place)[: offsets[-1]], offsets


def _words(numbers: UInt64s, bits: Int64s, place: Int64s) -> UInt8s:
    """The bytes of bit fields at the given places, ascending, of a big-endian stream."""
    word = place >> 6
    within = (place & 63).view(np.uint64)
    aligned = numbers << (64 - bits).view(np.uint64)
    words = np.zeros(int(word[-1]) + 2, np.uint64)
    first = np.flatnonzero(np.diff(word, prepend=-1))
    words[word[first]] = np.bitwise_or.reduceat(aligned >> within, first)
    crossing = np.flatnonzero((place & 63) + bits > 64)  # one at most goes on into each word
    words[word[crossing] + 1] |= aligned[crossing] << (np.uint64(64) - within[crossing])
    return words.byteswap().view(np.uint8)
