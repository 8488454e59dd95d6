"""A series as one line of text: {__name__="up",job="node"}.

Labels between braces, by the rules of the text format, in which a backslash stands before a backslash, a double quote
and, as n, a line feed. A name that is no plain word is quoted like a value. What is read may also be spelled as
selectors and scrapes spell it, with the metric name before the braces.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from streamgauge.errors import BadInput
from streamgauge.model.labels import MAX_SERIES_BYTES
from streamgauge.wire.exposition_text import Pairs, Unescape, read_series, shown

_WORD = re.compile(rb"[a-zA-Z_][a-zA-Z0-9_]*")
_MAX_NAMES = 1024  # of labels whose spelling is remembered: there are few, and each has a kilobyte at most
_ESCAPED = {b"\\": b"\\\\", b'"': b'\\"', b"\n": b"\\n"}
_SPECIAL = re.compile(rb'[\\"\n]')
_GO_ESCAPE = re.compile(rb'\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([abfnrtv\\"\']))')
_GO_LETTERS = {
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"v": b"\v",
}


MAX_TEXT_BYTES = 4 * MAX_SERIES_BYTES
"""Of a series: twice what its labels may take when every byte is escaped, and to spare. More would only take time."""


def series_text(pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The text of a series, in the order of its pairs."""
    if _SPECIAL.search(b"".join([value for _, value in pairs])) is not None:
        return b"{" + b",".join([_name(name) + b"=" + _quoted(value) for name, value in pairs]) + b"}"
    return b"{" + b",".join([b'%b="%b"' % (_name(name), value) for name, value in pairs]) + b"}"


def parse_series(text: bytes, text_of: Unescape | None = None) -> Pairs:
    """The labels that a text spells, and nothing else in it. Raises BadInput."""
    if len(text) > MAX_TEXT_BYTES:
        raise BadInput(f"the text of a series has {len(text)} bytes; the limit is {MAX_TEXT_BYTES}: {shown(text)}")
    pairs, end = read_series(text, text_of)
    if not pairs or text[end:].strip(b" \t"):
        raise BadInput(f'a series was expected, such as up{{job="node"}}: {shown(text)}')
    return pairs


def go_unescape(text: bytes) -> bytes:
    """What stands between the quotes of a Go string, as promtool prints label values. Raises BadInput."""
    if b"\\" not in text:
        return text
    return _GO_ESCAPE.sub(_of_go, text)


def _of_go(match: re.Match[bytes]) -> bytes:
    octet, short, long, letter = match.groups()
    if letter is not None:
        return _GO_LETTERS.get(letter, letter)
    if octet is not None:
        return bytes([int(octet, 16)])
    try:
        return chr(int(short or long, 16)).encode()
    except (ValueError, OverflowError):
        raise BadInput(f"{shown(match[0])} is no character") from None


@functools.lru_cache(_MAX_NAMES)
def _name(name: bytes) -> bytes:
    return name if _WORD.fullmatch(name) else _quoted(name)


def _quoted(text: bytes) -> bytes:
    return b'"' + _SPECIAL.sub(lambda match: _ESCAPED[match[0]], text) + b'"'
