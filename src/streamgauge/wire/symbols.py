"""The symbols of a remote-write 2.0 request, each in one spelling: its size as a varint, then its text.

So it stands on the wire behind its tag, and so it can be cut out many at a time.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from streamgauge.wire.protobuf import varint

TAG = b"\x22"
_LONG = 0x80
_USUAL_BYTES = 64
"""Of a symbol. Of longer ones fewer are found."""
_MOST_COMPARED = 64 << 10
_FIRST_COMPARED = 64
"""Bytes; then eight times as many, as long as they are the same."""


def spelled(text: bytes) -> bytes:
    """The spelling of a symbol."""
    size, out = len(text), bytearray()
    while size >= _LONG:
        out.append(size & 0x7F | _LONG)
        size >>= 7
    out.append(size)
    return bytes(out) + text


def text_of(spelling: bytes) -> bytes:
    """The symbol that is spelled so."""
    return spelling[1:] if spelling[0] < _LONG else spelling[varint(spelling, 0, len(spelling))[1] :]


def short_symbols(data: bytes, at: int, most: int) -> tuple[list[bytes], int]:
    """Spellings of at most `most` symbols from `at` on, where the tag of one stands, and where the next field begins.

    These are pieces between bytes that look like the tag. One is a symbol when it is as long as it says; the first that
    is not ends it: it is long, or has such a byte in it, or is followed by something else. They may be none at all.
    """
    window = data[at : at + _USUAL_BYTES * most]
    parts = window.split(TAG, most)[1:]
    sizes = np.fromiter(map(len, parts), np.int64, len(parts))
    begins = np.cumsum(sizes + 1) - sizes
    said = np.frombuffer(data, np.uint8)[np.minimum(at + begins, len(data) - 1)]  # of an empty piece anything
    wrong = np.flatnonzero((said != sizes - 1) | (said >= _LONG))
    if not len(wrong):
        return parts, at + len(window)
    first = int(wrong[0])
    part, size = parts[first], int(said[first])
    del parts[first:]
    after = int(begins[first])
    if part and size < min(len(part) - 1, _LONG):  # a whole symbol, and behind it what is none
        parts.append(part[: size + 1])
        return parts, at + after + size + 1
    return parts, at + after - 1


class SymbolOrder:
    """Symbols in the order in which they were first seen, each at its place, and with a code for each.

    The symbols of a sender's requests come in the order of its series, so a long stretch of a table is as it was in an
    earlier one, and is then compared as a whole.
    """

    def __init__(self) -> None:
        self.places: dict[bytes, int] = {}  # by spelling
        self.codes: list[int] = []  # by place
        self._raw = bytearray()  # all of them as they stand on the wire
        self._ends: list[int] = []  # in that, by place

    def add(self, spelling: bytes, code: int) -> int:
        """Note a new symbol; its place."""
        place = self.places[spelling] = len(self.codes)
        self.codes.append(code)
        self._raw += TAG
        self._raw += spelling
        self._ends.append(len(self._raw))
        return place

    def spelling(self, place: int) -> bytes:
        """The symbol at a place."""
        begin = self._ends[place - 1] if place else 0
        return bytes(self._raw[begin + len(TAG) : self._ends[place]])

    def stretch(self, data: bytes, at: int, place: int) -> tuple[int, int]:
        """How many symbols of `data` from `at` on are those from `place` on, and where the next field begins."""
        begin = self._ends[place - 1] if place else 0
        same = _common(data, at, self._raw, begin)
        stop = bisect_right(self._ends, begin + same, place)
        return stop - place, at + (self._ends[stop - 1] - begin if stop > place else 0)


def _common(data: bytes, at: int, known: bytearray, begin: int) -> int:
    """How many bytes from there on are the same in both."""
    same, size = 0, _FIRST_COMPARED
    while True:
        one, other = data[at + same : at + same + size], known[begin + same : begin + same + size]
        if one != other:
            most = min(len(one), len(other))
            differ = np.frombuffer(one, np.uint8, most) != np.frombuffer(other, np.uint8, most)
            return same + (int(differ.argmax()) if differ.any() else most)
        same += len(one)
        if len(one) < size:
            return same
        size = min(8 * size, _MOST_COMPARED)


class SymbolCache:
    """Symbols and their codes, in two generations, as `series_cache.SpellingCache`.

    size: bytes held by the young one.
    """

    _OVERHEAD = 190  # bytes object, dictionary entry, three numbers and a tag beside twice the spelling (measured)

    def __init__(self) -> None:
        self.young = SymbolOrder()
        self.size = 0
        self._old = SymbolOrder()

    def code(self, spelling: bytes, new: int) -> int:
        """The code of a symbol; `new` becomes that of one that is not known."""
        place = self.young.places.get(spelling)
        if place is None:
            old = self._old.places.get(spelling)
            place = self.young.add(spelling, new if old is None else self._old.codes[old])
            self.size += 2 * len(spelling) + self._OVERHEAD
        return self.young.codes[place]

    def rotate(self) -> None:
        self._old, self.young, self.size = self.young, SymbolOrder(), 0
