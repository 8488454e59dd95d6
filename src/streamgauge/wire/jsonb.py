"""SQLite's JSONB, to and from JSON text, without SQLite: what Python brings is often older than 3.45, which has it.

An element is a byte with its type in the low half; the high half is the size of what follows, or from 12 on says in how
many bytes (1, 2, 4, 8, big-endian) the size comes next. Numbers are texts; arrays hold elements, objects labels and
elements in turn. Source: https://sqlite.org/jsonb.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from streamgauge.errors import BadInput

MAX_DEPTH = 1000
"""Of what is read: SQLite's own."""

_NULL, _TRUE, _FALSE, _INT, _INT5, _FLOAT, _FLOAT5, _TEXT, _TEXTJ, _TEXT5, _TEXTRAW, _ARRAY, _OBJECT = range(13)
_WORDS = {_NULL: "null", _TRUE: "true", _FALSE: "false"}
_TEXTS = frozenset({_TEXT, _TEXTJ, _TEXT5, _TEXTRAW})
_ENDS = {_ARRAY: "]", _OBJECT: "}"}
_NEEDS_ESCAPE = re.compile(r'["\\\x00-\x1f]')
_ESCAPE5 = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|\r\n|[\s\S])|([\x00-\x1f\"])")
_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LONE = re.compile(r"[\ud800-\udfff]")


# ---- reading --------------------------------------------------------------------------------------------------------


def json_of(data: bytes) -> str:
    """The JSON text of a blob. Raises BadInput where it is none."""
    out: list[str] = []
    open_: list[tuple[int, int, int]] = []  # of each array or object around: type, end, and elements so far
    at = 0
    while True:
        kind, start, end = _element(data, at, open_[-1][1] if open_ else len(data))
        if open_:
            _separate(out, open_, kind)
        if kind in _ENDS:
            if len(open_) == MAX_DEPTH:
                raise BadInput("JSONB is nested too deeply")
            out.append("[" if kind == _ARRAY else "{")
            open_.append((kind, end, 0))
            at = start
        else:
            out.append(_scalar(kind, data[start:end]))
            at = end
        while open_ and at == open_[-1][1]:
            container, _, count = open_.pop()
            if container == _OBJECT and count % 2:
                raise BadInput("an object in JSONB ends after a label")
            out.append(_ENDS[container])
        if not open_:
            break
    if at != len(data):
        raise BadInput("something follows the JSONB")
    return "".join(out)


def _element(data: bytes, at: int, limit: int) -> tuple[int, int, int]:
    """The type of the element at `at`, and where its content starts and ends."""
    if at >= limit:
        raise BadInput("JSONB is cut off")
    kind, size = data[at] & 15, data[at] >> 4
    start = at + 1
    if size > 11:
        width = 1 << (size - 12)
        size = int.from_bytes(data[start : start + width], "big")
        start += width
    if start + size > limit:
        raise BadInput("JSONB is cut off")
    if kind not in _ENDS and kind not in _READERS:
        raise BadInput(f"JSONB has no type {kind}")
    return kind, start, start + size


def _separate(out: list[str], open_: list[tuple[int, int, int]], kind: int) -> None:
    """Write what stands before the next element of the innermost array or object."""
    container, end, count = open_[-1]
    is_value = container == _OBJECT and count % 2 == 1
    if container == _OBJECT and not is_value and kind not in _TEXTS:
        raise BadInput("a label in JSONB is no text")
    if is_value:
        out.append(":")
    elif count:
        out.append(",")
    open_[-1] = (container, end, count + 1)


def _scalar(kind: int, content: bytes) -> str:
    try:
        return _READERS[kind](content.decode())
    except ValueError:
        raise BadInput("JSONB holds a text that is none") from None


def _number(text: str) -> str:
    if not _PLAIN_NUMBER.fullmatch(text):
        raise ValueError(text)
    return text


def _number5(text: str) -> str:
    """A number as JSON5 has it, as JSON."""
    sign = "-" if text.startswith("-") else ""
    digits = text.lstrip("+-")
    if digits[:2].lower() == "0x":
        return f"{sign}{int(digits, 16)}"
    if digits.lower().startswith("inf"):
        return f"{sign}9e999"
    if digits.lower() == "nan":
        return "null"
    whole, dot, rest = digits.partition(".")
    fraction = re.match(r"[0-9]*", rest)
    assert fraction is not None
    exponent = rest[fraction.end() :]
    return _number(sign + (whole or "0") + (dot + (fraction[0] or "0") if dot else "") + exponent)


def _escaped(text: str) -> str:
    """A text that may hold escapes of JSON, as JSON."""
    quoted = f'"{text}"'
    if not isinstance(json.loads(quoted), str):
        raise ValueError(text)
    return quoted


def _escaped5(text: str) -> str:
    """A text that may hold escapes of JSON5, as JSON."""
    return _escaped(_ESCAPE5.sub(_as_json, text))


def _as_json(found: re.Match[str]) -> str:
    escape, bare = found.groups()
    if bare is not None:
        return _quoted(bare)[1:-1]
    if escape[0] == "x" and len(escape) == 3:
        return f"\\u00{escape[1:]}"
    if (escape[0] == "u" and len(escape) == 5) or escape in '"\\/bfnrt':
        return f"\\{escape}"
    if escape in "\n\r\u2028\u2029" or escape == "\r\n":
        return ""
    return _quoted({"v": "\v", "0": "\0"}.get(escape, escape))[1:-1]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


_READERS: Mapping[int, Callable[[str], str]] = {
    **{kind: lambda _, word=word: word for kind, word in _WORDS.items()},  # type: ignore[misc]
    _INT: _number,
    _INT5: _number5,
    _FLOAT: _number,
    _FLOAT5: _number5,
    _TEXT: _escaped,
    _TEXTJ: _escaped,
    _TEXT5: _escaped5,
    _TEXTRAW: _quoted,
}


# ---- writing --------------------------------------------------------------------------------------------------------


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


class _Whole(_Number):
    __slots__ = ()


_DECODER = json.JSONDecoder(
    parse_int=_Whole, parse_float=_Number, object_pairs_hook=lambda pairs: _Pairs(pairs), strict=False
)


class _Pairs(list[tuple[str, Any]]):
    """The members of an object, in order, doubled ones too."""


def jsonb_of(text: str) -> bytes:
    """The blob of a JSON text. Raises BadInput for one that is none, or is nested some hundred levels deep."""
    try:
        return b"".join(_pieces(_DECODER.decode(text)))
    except ValueError as error:
        raise BadInput(f"not JSON: {error}") from None
    except RecursionError:
        raise BadInput("nested too deeply") from None


def _pieces(value: Any) -> Iterator[bytes]:
    match value:
        case None:
            yield bytes([_NULL])
        case bool():
            yield bytes([_TRUE if value else _FALSE])
        case _Whole():
            yield _piece(_INT, value.encode())
        case _Number():
            yield _piece(_FLOAT, value.encode())
        case str():
            yield _text_piece(value)
        case _Pairs():
            content = [piece for label, each in value for piece in (_text_piece(label), *_pieces(each))]
            yield _piece(_OBJECT, b"".join(content))
        case list():
            yield _piece(_ARRAY, b"".join(piece for each in value for piece in _pieces(each)))


def _text_piece(text: str) -> bytes:
    if _LONE.search(text):
        return _piece(_TEXTJ, json.dumps(text)[1:-1].encode())
    return _piece(_TEXTRAW if _NEEDS_ESCAPE.search(text) else _TEXT, text.encode())


def _piece(kind: int, content: bytes) -> bytes:
    size = len(content)
    if size < 12:
        return bytes([size << 4 | kind]) + content
    width = next(width for width in (1, 2, 4, 8) if size < 1 << 8 * width)
    return bytes([(12 + width.bit_length() - 1) << 4 | kind]) + size.to_bytes(width, "big") + content
