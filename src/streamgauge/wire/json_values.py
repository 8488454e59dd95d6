"""JSON values one after another in a stream of bytes that comes in pieces of any size.

Between them may be white space or nothing. A value's bytes are kept as they are, without the white space around it, but
for one thing: an escape that is half of a surrogate pair is no character in any encoding, and readers fail at it, so it
becomes `\\ufffd`, as browsers do. Names that an object has twice stay. What a value may be is RFC 8259; `NaN`, commas
between values and a byte order mark are errors, as is nesting beyond `MAX_DEPTH`.

Every byte is looked at a bounded number of times, however small the pieces are. A piece is divided by msgspec, which
makes no object of a value's parts, in one call for hundreds of events: up to its last line break, and if that is within
a value, up to the last value that is complete by its brackets. What that call does not take is divided value by value,
so that it is known what is wrong where. What is incomplete waits for the next piece; once it is long, only its brackets
and quotes are followed from piece to piece, and whenever it has doubled its beginning is checked, so that a missing
bracket is found soon after. It is checked part by part: msgspec holds the interpreter's lock while it looks at a text.

The only module that knows msgspec.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import numpy as np
import pyarrow as pa

from streamgauge.errors import BadInput, TooLarge
from streamgauge.model.arrays import Int64s, UInt8s
from streamgauge.wire.json_brackets import MAX_DEPTH, Brackets, Cut, Escapes

_MAX_DIGITS = 4000
"""Of an integer that is read as one. Python refuses more than 4,300, of which the time grows with the square."""
_SHORT = 4096
"""Bytes up to which an incomplete value is simply read again with the next piece, in some microseconds."""
_AT_ONCE = 1000
"""Values that are divided one by one before `more` is said: some milliseconds."""
_PART = 64 << 10
"""Bytes of a long text that are looked at together: arrays over all of it would be ten times as large."""
_LONG = 1 << 20
"""Bytes of a value from which a copy of it takes some milliseconds."""
_HELD = 8 << 20
"""Bytes of a value that is here as a whole, from which it is checked part by part: that takes several times as long in
all, but no call holds the interpreter's lock for more than some milliseconds."""
_FIRST_LOOK = 512
"""Bytes of a piece in which the end of an unfinished value is looked for first."""
_ROOM = b" " * 8
"""What msgspec is given after a value that is cut off, as it calls each literal truncated that lacks room."""

_DECODER = msgspec.json.Decoder(msgspec.Raw)
_ANYTHING: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_SPACES = b" \t\r\n"
_SPACE = re.compile(rb"[ \t\r\n]*")
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")
_EXPONENT_SO_FAR = rb"(?:[eE][+-]?[0-9]*+)"
_NUMBER_SO_FAR = re.compile(
    rb"-?(?:(?:0|[1-9][0-9]*+)(?:\.(?:[0-9]++" + _EXPONENT_SO_FAR + rb"?)?|" + _EXPONENT_SO_FAR + rb")?)?"
)
_NUMBER_STARTS = b"-0123456789"
_NUMBER_BYTES = re.compile(rb"[-+.0-9eE]*")
_LITERAL_SO_FAR = re.compile(rb"(?:tr?|tru|fa?|fals?|nu?|nul)\Z")
_BACKSLASH = ord("\\")
_REPLACEMENT = b"\\ufffd"
_PAIR = 12  # bytes of two escapes
_HIGH, _LOW = 1, 2
_HALF = np.zeros(256, np.uint8)  # by an escape's second hexadecimal digit, where the first is d
_HALF[list(b"89abAB")] = _HIGH
_HALF[list(b"cdefCDEF")] = _LOW
_HEX = np.zeros(256, np.bool_)
_HEX[list(b"0123456789abcdefABCDEF")] = True
_TRAILING = "trailing characters"
_TOO_DEEP = f"it is nested deeper than {MAX_DEPTH} levels"


@dataclass(frozen=True, slots=True)
class Stop:
    """Why and where reading a stream ended."""

    error: BadInput | TooLarge
    event: int  # its number in the stream, from 1
    byte: int  # of the stream, from 0


class JsonValues:
    """Divides one stream. limit: bytes of one value.

    `stop` is set when the stream cannot be read on; what is fed after that is ignored.
    """

    def __init__(self, limit: int) -> None:
        self.stop: Stop | None = None
        self._limit = limit
        self._count = 0  # values given
        self._values: list[bytes] = []  # found in this piece
        self._offset = 0  # of the stream, where this piece begins
        self._text = codecs.getincrementaldecoder("utf-8")()
        self._open: _Open | None = None
        self._invalid: int | None = None  # where in the stream something is no UTF-8
        self._rest: tuple[bytes, bytes, int, int] | None = None  # how `_divide_some` goes on

    @property
    def more(self) -> bool:
        """Whether the last piece has more than was given at once: it comes with `feed(b"")`, before all else."""
        return self._rest is not None

    @property
    def held(self) -> int:
        """Bytes kept of a value that is not complete."""
        return 0 if self._open is None else len(self._open.data)

    def feed(self, piece: bytes) -> pa.BinaryArray:
        """The values that this piece completes."""
        if self.stop is None and self._rest is not None:
            self._divide_some(*self._rest)
        elif self.stop is None and piece:
            whole, self._invalid = self._valid(piece)
            self._read(whole)
            self._offset += len(piece)
        if self._invalid is not None and not self.more:
            self._close()
            if self.stop is None and not self.more:
                self._end(self._invalid, BadInput("this is not UTF-8"))
        return self._taken()

    def finish(self) -> pa.BinaryArray:
        """The values that the end of the stream completes, which are numbers. Sets `stop` when it ends in a value. If
        there is `more` then, it is to be called again after that."""
        if not self._close() and self.stop is None:
            self._end(self._offset, BadInput("the body ends inside this event"))
        return self._taken()

    def _close(self) -> bool:
        """Take an unfinished number, as nothing continues it. False when another value is unfinished."""
        last = self._open
        if last is None or self.more:
            return True
        if last.number and _NUMBER_SO_FAR.fullmatch(last.data) is None:
            self._again(last, b"")  # several, as in 1-1
            return self._close()
        if last.number and _NUMBER.fullmatch(last.data) is not None:
            self._open = None
            return self._take(bytes(last.data), last.start)
        room = b"" if _LITERAL_SO_FAR.search(last.data) else _ROOM
        wrong = _wrong(_paired(bytes(last.data)) + room)
        if wrong is not None and wrong.at < len(last.data):
            self._end(last.start + wrong.at, BadInput(wrong.text))
        return False

    def _taken(self) -> pa.BinaryArray:
        values, self._values = self._values, []
        self._count += len(values)
        return array_of(values)

    def _end(self, byte: int, error: BadInput | TooLarge) -> None:
        event = self._count + len(self._values) + 1
        self.stop = Stop(type(error)(f"event {event}, byte {byte}: {error.message}"), event, byte)
        self._open = self._rest = None

    def _valid(self, piece: bytes) -> tuple[bytes, int | None]:
        """The part of a piece that is UTF-8, and where in the stream it is not."""
        if piece.isascii() and not self._text.getstate()[0]:
            return piece, None
        before = len(self._text.getstate()[0])
        try:
            self._text.decode(piece)
        except UnicodeDecodeError as error:
            return piece[: max(0, error.start - before)], self._offset + error.start - before
        return piece, None

    def _read(self, piece: bytes) -> None:
        if self._open is None:
            self._divide(piece, self._offset)
        elif self._open.number:
            self._resume_number(self._open, piece)
        elif len(self._open.data) < _SHORT:
            self._again(self._open, piece)
        else:
            self._resume(self._open, piece)

    def _again(self, begun: _Open, piece: bytes) -> None:
        """Read what is short from its start."""
        self._open = None
        self._divide(bytes(begun.data) + piece, begun.start)

    def _resume_number(self, begun: _Open, piece: bytes) -> None:
        """A number goes on until something else comes."""
        if _NUMBER_BYTES.fullmatch(piece) is None:
            self._again(begun, piece)
        else:
            begun.data += piece
            self._check_size(begun)

    def _resume(self, begun: _Open, piece: bytes) -> None:
        end = begun.follow(piece)
        begun.data += piece if end < 0 else piece[:end]
        begun.pairs.mend(begun.data, len(begun.data) - (_PAIR if end < 0 else 0))
        if end < 0:
            self._check_size(begun)
            self._check_beginning(begun)
            return
        self._open = None
        if self._check_and_take(begun.data, begun.start, begun.brackets.deepest, begun):
            self._divide(piece[end:], self._offset + end)

    def _check_size(self, begun: _Open) -> None:
        if len(begun.data) > self._limit:
            self._end(begun.start, _too_large(self._limit))

    def _check_beginning(self, begun: _Open) -> None:
        """Find what is wrong with an unfinished value, if it has doubled since the last time."""
        if self.stop is not None or len(begun.data) < begun.next_check:
            return
        begun.next_check = 2 * len(begun.data)
        mended = bytes(begun.data[: begun.pairs.done])
        wrong = None if begun.parts.begin_well(mended, begun.brackets.cuts) else _wrong(mended)
        if begun.brackets.deepest > MAX_DEPTH:
            wrong = _Wrong(0, _TOO_DEEP)
        if wrong is not None and wrong.at < len(mended):
            self._end(begun.start + wrong.at, BadInput(wrong.text))

    def _divide(self, piece: bytes, start: int) -> None:
        """Take every value of a piece that begins between values; `start` is where it stands in the stream."""
        text = _paired(piece)
        self._divide_some(text, piece, self._divide_at_once(text), start)

    def _divide_some(self, text: bytes, piece: bytes, at: int, start: int) -> None:
        """Take values one by one from `at` on. text: the piece with its surrogates paired."""
        self._rest = None
        view = memoryview(text)
        enough = len(self._values) + _AT_ONCE
        while self.stop is None:
            at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
            if at == len(text):
                return
            if len(self._values) >= enough:
                self._rest = text, piece, at, start
                return
            end = _number_end(text, at) if text[at] in _NUMBER_STARTS else _value_end(view[at:])
            if isinstance(end, _Wrong):
                self._end(start + at + end.at, BadInput(end.text))
            elif end is None:
                self._begin(piece[at:], start + at)
                return
            elif self._take(text[at : at + end], start + at):
                at += end

    def _divide_at_once(self, text: bytes) -> int:
        """Take all values up to somewhere in a text; where that is."""
        for last in (_last_line, _last_end):
            end = last(text)
            if end and (found := several(text[:end], self._limit)) is not None:
                self._values += found
                return end
        return 0

    def _begin(self, data: bytes, start: int) -> None:
        """Keep the beginning of a value that the piece ends in."""
        begun = self._open = _Open(data, start)
        self._check_size(begun)
        if not begun.number and len(data) >= _SHORT and begun.follow(data) >= 0:
            self._open = None
            # By its brackets it is complete: something in it is wrong.
            self._check_and_take(bytearray(_paired(data)), start, MAX_DEPTH + 1)

    def _check_and_take(self, value: bytearray, start: int, deepest: int, begun: _Open | None = None) -> bool:
        """Take what is complete by its brackets and quotes, and at most so deep, if it is a value. False stops.

        It may be long, and to copy it takes longer than to check it."""
        wrong = None
        well = begun is not None and begun.parts.are_well(value, begun.brackets.cuts)
        value += _ROOM
        if not well:
            wrong = _wrong(value)
        if wrong is not None:
            self._end(start + wrong.at, BadInput(wrong.text))
            return False
        del value[-len(_ROOM) :]
        return self._take(bytes(value), start, deepest)

    def _take(self, value: bytes, start: int, deepest: int = MAX_DEPTH + 1) -> bool:
        """Take a value, with or without white space after it, within the limits. False stops."""
        value = value.rstrip(b" \t\r\n")
        if len(value) > self._limit:
            self._end(start, _too_large(self._limit))
        elif deepest > MAX_DEPTH and too_deep(value):
            self._end(start, BadInput(_TOO_DEEP))
        else:
            self._values.append(value)
        return self.stop is None


class _Open:
    """A value that is not complete yet. start: where it begins in the stream."""

    def __init__(self, data: bytes, start: int) -> None:
        self.data = bytearray(data)
        self.start = start
        self.number = data[0] in _NUMBER_STARTS
        self.next_check = 2 * len(data)
        self.brackets = Brackets()
        self.parts = _Parts()
        self.pairs = _Pairs()

    def follow(self, piece: bytes) -> int:
        """Where in the next piece the value ends; -1 when it does not."""
        at, size = 0, _FIRST_LOOK  # most end soon
        while at < len(piece):
            ends = self.brackets.follow(piece[at : at + size])
            if len(ends):
                return at + int(ends[0])
            at, size = at + size, 8 * size
        return -1


@dataclass(frozen=True, slots=True)
class _Wrong:
    at: int
    text: str


class _Parts:
    """Checks a long value part by part, as they come, so that no call holds the interpreter's lock for long.

    What is not well by this may be so all the same, and is to be checked as a whole, which also tells what is wrong.
    """

    def __init__(self) -> None:
        self._last = Cut(0, b"", b"")

    def begin_well(self, text: bytes, cuts: Sequence[Cut]) -> bool:
        """Whether text may be the beginning of a value. It has what was checked before, and maybe more."""
        if not cuts or not self._whole_parts(text, cuts):
            return False
        rest = self._last.openers + text[self._last.at :]
        wrong = _wrong(rest)
        return self._goes_on(text) and wrong is not None and wrong.at >= len(rest)

    def are_well(self, text: bytearray | bytes, cuts: Sequence[Cut]) -> bool:
        """Whether text is a value, in the same way."""
        if not cuts or not self._whole_parts(text, cuts):
            return False
        return self._goes_on(text) and _wrong(self._last.openers + bytes(text[self._last.at :]) + _ROOM) is None

    def _whole_parts(self, text: bytearray | bytes, cuts: Sequence[Cut]) -> bool:
        for cut in cuts:
            if not self._last.at < cut.at <= len(text):
                continue
            part = bytes(text[self._last.at : cut.at - 1])
            if not self._goes_on(part, 0) or part.rstrip(_SPACES)[-1:] in (b"", b"[", b"{"):
                return False
            if _wrong(self._last.openers + part + cut.closers) is not None:
                return False
            self._last = cut
        return True

    def _goes_on(self, text: bytearray | bytes, at: int | None = None) -> bool:
        """Whether an element follows on the last comma, and no bracket ends what it is in."""
        if not self._last.at:
            return True
        found = _SPACE.match(text, self._last.at if at is None else at)
        assert found is not None
        return text[found.end() : found.end() + 1] not in (b"]", b"}")


def _is_well(text: bytes) -> bool:
    """Whether a long text is surely a value."""
    brackets = Brackets()
    for at in range(0, len(text), _PART):
        brackets.follow(text[at : at + _PART])
    return _Parts().are_well(text, brackets.cuts)


def several(text: bytes, limit: int) -> list[bytes] | None:
    """The JSON values that a text consists of; None when there is anything else in it, or one is too large or deep.

    The text is UTF-8 and has no halves of surrogate pairs.
    """
    try:
        values = list(map(bytes, _DECODER.decode_lines(text)))
    except (msgspec.DecodeError, RecursionError):
        return None
    longest = max(map(len, values), default=0)
    if longest > limit or (longest > MAX_DEPTH and any(map(too_deep, values))):
        return None
    return values


def one(text: bytes) -> bytes | None:
    """The JSON value that a text is, without white space around it; None when it is none. The text is UTF-8."""
    text = _paired(text)
    if not (len(text) >= _HELD and _is_well(text)) and _wrong(text) is not None:
        return None
    value = text.strip(b" \t\r\n")
    return None if too_deep(value) else value


def read_json(text: str) -> Any:
    """What a checked value says. A number that no float can hold is infinite."""
    try:
        return _ANYTHING.decode(text)
    except msgspec.DecodeError:
        return json.loads(text, parse_int=_integer)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def too_deep(value: bytes) -> bool:
    """Whether a JSON value is nested deeper than `MAX_DEPTH`."""
    if len(value) <= MAX_DEPTH or value.count(b"[") + value.count(b"{") <= MAX_DEPTH:
        return False
    brackets = Brackets()
    for at in range(0, len(value), _PART):
        brackets.follow(value[at : at + _PART])
    return brackets.deepest > MAX_DEPTH


def _last_line(text: bytes) -> int:
    return text.rfind(b"\n") + 1


def _last_end(text: bytes) -> int:
    """Where the last string, array or object of a long text ends that is in no other."""
    if len(text) < _SHORT:
        return 0
    ends = Brackets().follow(text)
    return int(ends[-1]) if len(ends) else 0


def _number_end(text: bytes, at: int) -> int | _Wrong | None:
    """The length of the number that begins at `at`; None when what follows may still be part of it."""
    end = _NUMBER_SO_FAR.match(text, at).end()  # type: ignore[union-attr]
    if end == len(text):
        return None
    return end - at if _NUMBER.fullmatch(text, at, end) is not None else _Wrong(end - at, "invalid number")


def _value_end(view: memoryview) -> int | _Wrong | None:
    """The length of the value that a text begins with, white space after it included; None when it is not complete."""
    wrong = _wrong(view)
    if wrong is None:
        return len(view)
    if wrong.text == _TRAILING:
        return wrong.at
    return None if wrong.at >= len(view) else wrong


def _wrong(text: bytes | bytearray | memoryview) -> _Wrong | None:
    """What keeps a text from being one JSON value, at the text's length where that is that it ends too early."""
    try:
        _DECODER.decode(text)
    except RecursionError:
        return _Wrong(0, _TOO_DEEP)
    except msgspec.DecodeError as error:
        reason, separator, place = str(error).removeprefix("JSON is malformed: ").rpartition(" (byte ")
        if not separator:
            return _Wrong(len(text), place)
        at = int(place[:-1]) - (reason == _TRAILING)  # of what trails, the place after the first byte is given
        return _Wrong(at, reason)
    return None


def _paired(text: bytes) -> bytes:
    """The text with each escape of half a surrogate pair replaced by one of as many bytes."""
    if b"\\" not in text or (b"\\ud" not in text and b"\\uD" not in text):  # the first is found ten times as fast
        return text
    mended = bytearray(text)
    _Pairs().mend(mended, len(mended))
    return bytes(mended)


class _Pairs:
    """Replaces escapes of half a surrogate pair, each by one of as many bytes, in a text that grows."""

    def __init__(self) -> None:
        self.done = 0  # bytes that are mended
        self._escapes = Escapes()
        self._second = -1  # where the second half of a pair may begin, of which the first is mended

    def mend(self, data: bytearray, end: int) -> None:
        """Up to `end`, behind which there are `_PAIR` bytes more, or there will be none."""
        text = np.frombuffer(data, np.uint8)
        while self.done < end:
            part = text[self.done : min(self.done + _PART, end)]
            at = np.flatnonzero((part == _BACKSLASH) & ~self._escapes.of(part)) + self.done
            self.done += len(part)
            kinds = _surrogates(text, at)
            high, low = at[kinds == _HIGH], at[kinds == _LOW]
            paired = _surrogates(text, high + 6) == _LOW
            seconds = np.append(high[paired] + 6, self._second)
            self._second = int(seconds.max())
            halves = np.concatenate((high[~paired], np.setdiff1d(low, seconds, assume_unique=True)))
            for place, byte in enumerate(_REPLACEMENT):
                text[halves + place] = byte


def _surrogates(text: UInt8s, at: Int64s) -> UInt8s:
    """Whether escapes that begin at these places are of the first or the second half of a pair, or of neither (0)."""
    kinds = np.zeros(len(at), np.uint8)
    inside = np.flatnonzero(at + 6 <= len(text))
    backslash, u, d, kind, *digits = (text[at[inside] + place] for place in range(6))
    is_one = (backslash == _BACKSLASH) & (u == ord("u")) & ((d | 0x20) == ord("d")) & _HEX[digits[0]] & _HEX[digits[1]]
    kinds[inside] = np.where(is_one, _HALF[kind], 0)
    return kinds


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"it is larger than {limit} bytes, which is the limit")


def array_of(values: Sequence[bytes]) -> pa.BinaryArray:
    """Those of one long value are not copied."""
    if len(values) != 1 or len(values[0]) < _LONG:
        return pa.array(values, pa.binary())
    ends = pa.py_buffer(np.array([0, len(values[0])], np.int32).tobytes())
    return cast("pa.BinaryArray", pa.Array.from_buffers(pa.binary(), 1, [None, ends, pa.py_buffer(values[0])]))
