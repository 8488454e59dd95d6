"""Where values end and can be cut, by nothing but brackets, quotes and commas, in a text that comes in pieces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamgauge.model.arrays import Bools, Int8s, Int32s, Int64s, UInt8s

MAX_DEPTH = 512
"""Of arrays and objects in each other. What reads payloads recurses: Python's own parser ends before 1,000."""
STRIDE = 512 << 10
"""Bytes after which a long text is cut: to check so much takes msgspec a millisecond, or some."""

_QUOTE, _BACKSLASH, _COMMA = b'"\\,'
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")] = 1
_STEPS[list(b"]}")] = -1


@dataclass(frozen=True, slots=True)
class Cut:
    """A place behind a comma. openers: what makes a text of its own of what follows, where it is in as many arrays and
    objects. closers: what ends that which goes before the comma."""

    at: int
    openers: bytes
    closers: bytes

    @staticmethod
    def within(at: int, brackets: bytes) -> Cut:
        """brackets: the opening ones that are open there."""
        *outer, inner = (bytes([bracket]) for bracket in brackets)
        openers = b"".join(b'{"":' if bracket == b"{" else bracket for bracket in outer) + inner
        return Cut(at, openers, brackets[::-1].translate(_CLOSING))


_CLOSING = bytes.maketrans(b"[{", b"]}")


class Brackets:
    """Follows a text from piece to piece. cuts: places in it, some STRIDE apart, in as few brackets as there are."""

    def __init__(self) -> None:
        self.deepest = 0
        self._depth = 0
        self._quoted = False
        self._escapes = Escapes()
        self.cuts: list[Cut] = []
        self._at = 0  # of the text, where the next piece begins
        self._kinds = np.zeros(MAX_DEPTH + 1, np.uint8)  # by depth, the bracket that opened it

    def follow(self, piece: bytes) -> Int64s:
        """The places after the ends of strings, arrays and objects that are in no other."""
        if self._quoted and not self._escapes.open and b'"' not in piece and b"\\" not in piece:
            self._at += len(piece)
            return np.empty(0, np.int64)
        text = np.frombuffer(piece, np.uint8)
        quotes = text == _QUOTE
        if self._escapes.open or b"\\" in piece:
            quotes &= ~self._escapes.of(text)
        quoted = np.bitwise_xor.accumulate(quotes) ^ self._quoted
        steps = np.where(quoted, np.int8(0), _STEPS[text])
        depths = np.cumsum(steps, dtype=np.int32) + np.int32(self._depth)
        self.deepest = max(self.deepest, int(depths.max()))
        if self._at + len(text) - (self.cuts[-1].at if self.cuts else 0) >= STRIDE:
            self._cut(text, quoted, steps, depths)
        self._open(text, steps, depths)
        self._at += len(text)
        self._depth, self._quoted = int(depths[-1]), bool(quoted[-1])
        return np.flatnonzero((depths <= 0) & ((steps < 0) | (quotes & ~quoted))) + 1

    def _open(self, text: UInt8s, steps: Int8s, depths: Int32s) -> None:
        """Note the brackets that are open at the end of a piece."""
        opened = np.flatnonzero(steps > 0)
        if len(opened):
            lowest = np.minimum.accumulate(depths[::-1])[::-1]  # from there on
            opened = opened[(depths[opened] <= lowest[opened]) & (depths[opened] > 0) & (depths[opened] <= MAX_DEPTH)]
            self._kinds[depths[opened]] = text[opened]

    def _cut(self, text: UInt8s, quoted: Bools, steps: Int8s, depths: Int32s) -> None:
        commas = np.flatnonzero((text == _COMMA) & ~quoted & (depths > 0))
        if not len(commas):
            return
        place = int(commas[np.argmin(depths[commas])])
        depth = int(depths[place])
        if depth <= MAX_DEPTH:
            self._open(text[:place], steps[:place], depths[:place])
            self.cuts.append(Cut.within(self._at + place + 1, self._kinds[1 : depth + 1].tobytes()))


class Escapes:
    """Which bytes a backslash makes ordinary, in a text that comes in pieces."""

    def __init__(self) -> None:
        self.open = False  # the next byte is one

    def of(self, text: UInt8s) -> Bools:
        slashes = text == _BACKSLASH
        if self.open:
            slashes[0] = False
        places = np.arange(len(text), dtype=np.int32)
        run = places - np.maximum.accumulate(np.where(slashes, np.int32(-1), places))  # of backslashes, up to here
        odd = (run & 1).astype(bool)
        escaped = np.concatenate(([self.open], odd[:-1]))
        self.open = bool(odd[-1])
        return escaped
