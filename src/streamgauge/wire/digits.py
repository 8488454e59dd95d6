"""Numbers that are nothing but digits, and perhaps one point, read in columns: eight digits at a time in one integer.

What has a sign or an exponent, or is no number, or is longer, is left to whoever reads numbers of any form. The method
for eight digits is that of Daniel Lemire, https://lemire.me/blog/2022/01/21/swar-explained-parsing-eight-digits/; that
a quotient of integers so small is the number which was written, that of W. Clinger, "How to read floating point numbers
accurately", 1990.
"""

from __future__ import annotations

import numpy as np

from streamgauge.model.arrays import Bools, Floats, Int64s, UInt8s, UInt64s

MAX_DIGITS = 15
"""As many as a float64 holds exactly, whatever they are."""
_WORD = 8
_POINT = 46
_ZEROS = np.uint64(0x3030303030303030)
_MASKS = np.array([((1 << 64) - 1) ^ ((1 << (64 - 8 * size)) - 1) for size in range(_WORD + 1)], np.uint64)
"""The last so many bytes of eight."""
_ABOVE_NINE, _HIGH_BITS = np.uint64(0x7676767676767676), np.uint64(0x8080808080808080)
_PAIRS = np.uint64(0x000000FF000000FF)
_FIRST, _SECOND = np.uint64(100 + (1_000_000 << 32)), np.uint64(1 + (10_000 << 32))
_TEN, _BYTE, _TWO_BYTES, _HALF = np.uint64(10), np.uint64(8), np.uint64(16), np.uint64(32)
_POWERS = 10.0 ** np.arange(MAX_DIGITS + 1)


def whole_numbers(raw: UInt8s, starts: Int64s, stops: Int64s) -> tuple[Int64s, Bools]:
    """The numbers that raw[start:stop] spell, and where that is one: with one digit at least and MAX_DIGITS at most.
    Where it is none, anything may stand in its place."""
    sizes = stops - starts
    good = (sizes > 0) & (sizes <= MAX_DIGITS) & (stops >= 2 * _WORD)
    if len(raw) < 2 * _WORD or not len(sizes):
        return np.zeros(len(sizes), np.int64), np.zeros(len(sizes), np.bool_)
    texts = np.ndarray((len(raw) - 2 * _WORD + 1,), np.dtype((np.void, 2 * _WORD)), raw.data, 0, (1,))
    words = texts[np.maximum(stops - 2 * _WORD, 0)].view("<u8")
    low, good_low = _eight_digits(words[1::2], np.minimum(sizes, _WORD))
    good &= good_low
    if int(sizes.max()) <= _WORD:
        return low, good
    high, good_high = _eight_digits(words[::2], np.minimum(sizes, 2 * _WORD) - _WORD)
    return low + high * 10**_WORD, good & good_high


def _eight_digits(words: UInt64s, sizes: Int64s) -> tuple[Int64s, Bools]:
    """What the last `sizes` bytes of each word spell, none where that is negative; and where these are digits."""
    digits = words ^ _ZEROS
    digits &= _MASKS[np.maximum(sizes, 0)]
    if (digits == digits[0]).all():  # as the times of one step are
        digits = digits[:1]
    wrong = digits + _ABOVE_NINE
    wrong |= digits
    wrong &= _HIGH_BITS
    pairs = digits * _TEN
    digits >>= _BYTE
    pairs += digits
    first = pairs & _PAIRS
    first *= _FIRST
    pairs >>= _TWO_BYTES
    pairs &= _PAIRS
    pairs *= _SECOND
    pairs += first
    pairs >>= _HALF
    numbers, good = pairs.view(np.int64), wrong == 0
    if len(digits) < len(words):
        return np.full(len(words), numbers[0]), np.full(len(words), good[0])
    return numbers, good


def decimals(raw: UInt8s, starts: Int64s, stops: Int64s) -> tuple[Floats, Bools]:
    """The same with as many decimals as the first one has. Where no number is, anything may stand in its place."""
    text = raw[starts[0] : stops[0]] if len(starts) else raw[:0]
    points = np.flatnonzero(text == _POINT)
    if not len(points):
        numbers, good = whole_numbers(raw, starts, stops)
        return numbers.astype(np.float64), good
    places = len(text) - 1 - int(points[0])
    points_at = np.maximum(stops - 1 - places, 0)
    whole, good = whole_numbers(raw, starts, points_at)
    fraction, good_fraction = whole_numbers(raw, points_at + 1, stops)
    good &= good_fraction & (raw[points_at] == _POINT) & (stops - starts <= MAX_DIGITS + 1)
    places = min(places, MAX_DIGITS)
    return (whole * 10**places + fraction) / _POWERS[places], good
