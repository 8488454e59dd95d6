"""A stream of bytes is divided into JSON values, wherever it is cut into pieces."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.errors import BadInput, TooLarge
from streamgauge.wire.json_values import MAX_DEPTH, JsonValues, Stop, read_json

LIMIT = 1 << 20


def divide(pieces: Iterable[bytes], limit: int = LIMIT, most: int = 1 << 30) -> tuple[list[bytes], Stop | None]:
    """most: values that are given at once."""
    values = JsonValues(limit)
    found: list[bytes] = []

    def take(given: pa.BinaryArray) -> None:
        assert len(given) <= most
        found.extend(given.to_pylist())
        if values.more:
            take(values.feed(b""))

    for piece in pieces:
        take(values.feed(piece))
    take(values.finish())
    take(values.finish())
    assert values.held == 0
    return found, values.stop


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    ends = [*sorted(places), len(body)]
    return [body[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def every_way(body: bytes, limit: int = LIMIT) -> tuple[list[bytes], Stop | None]:
    """What a body holds, which must not depend on how it is cut."""
    whole = divide([body], limit)
    ways = [divide(cut(body, range(step, len(body), step)), limit) for step in (1, 2, 3, 7)]
    ways += [divide([body[:at], body[at:]], limit) for at in range(min(len(body), 60))]
    for values, stop in ways:
        assert values == whole[0]
        assert (stop is None) == (whole[1] is None)
        if stop is not None and whole[1] is not None:
            assert (stop.event, stop.byte, stop.error.message) == (
                whole[1].event,
                whole[1].byte,
                whole[1].error.message,
            )
    return whole


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (b"", []),
        (b" \t\r\n", []),
        (b"{}{}", [b"{}", b"{}"]),
        (b"[1][2]\n", [b"[1]", b"[2]"]),
        (b'{"a": 1}\r\n\r\n{"a": 2}\r\n', [b'{"a": 1}', b'{"a": 2}']),
        (b'{\n  "a": [\n    1\n  ]\n}\n{\n  "b": {}\n}', [b'{\n  "a": [\n    1\n  ]\n}', b'{\n  "b": {}\n}']),
        (b"truefalse null", [b"true", b"false", b"null"]),
        (b"12", [b"12"]),
        (b"12 -3.5e+7\n0", [b"12", b"-3.5e+7", b"0"]),
        (b'1"a"2[]', [b"1", b'"a"', b"2", b"[]"]),
        (b"-01-1", [b"-0", b"1", b"-1"]),
        (b'"\\"}{\\\\" "]"', [b'"\\"}{\\\\"', b'"]"']),
        (b'{"a":"}\\u005d\\\\"}[["]"]]', [b'{"a":"}\\u005d\\\\"}', b'[["]"]]']),
        ('"é" "日本" "😀"'.encode(), ['"é"'.encode(), '"日本"'.encode(), '"😀"'.encode()]),
        (b'{"a":1,"a":2}', [b'{"a":1,"a":2}']),
        (b"1e999 " + b"9" * 5000, [b"1e999", b"9" * 5000]),
        (b'"\\u0000" "\x7f"', [b'"\\u0000"', b'"\x7f"']),
    ],
)
def test_values_are_found_wherever_the_stream_is_cut(body: bytes, values: list[bytes]) -> None:
    assert every_way(body) == (values, None)


def test_half_a_surrogate_pair_becomes_a_replacement_character() -> None:
    body = rb'"\ud83d\ude00" "\ud83d" "\ude00" "\uD83Dx\ud83d\ude00" "\\ud83d" {"\udfff":1} "\ud83d\ud83d\ude00"'
    values, stop = every_way(body)
    assert stop is None
    assert values == [
        rb'"\ud83d\ude00"',
        rb'"\ufffd"',
        rb'"\ufffd"',
        rb'"\ufffdx\ud83d\ude00"',
        rb'"\\ud83d"',
        rb'{"\ufffd":1}',
        rb'"\ufffd\ud83d\ude00"',
    ]
    for value in values:
        json.dumps(json.loads(value), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("body", "kept", "byte", "text"),
    [
        (b"{},{}", [b"{}"], 2, "invalid character"),
        (b"\xef\xbb\xbf{}", [], 0, "invalid character"),
        (b"[1]\nNaN", [b"[1]"], 4, "invalid character"),
        (b'{"a":NaN}', [], 5, "invalid character"),
        (b"-Infinity", [], 1, "invalid number"),
        (b'{"a":1}\n{"a" 2}\n{"a":3}\n', [b'{"a":1}'], 13, "expected ':'"),
        (b'{"a":1,}', [], 7, "trailing comma"),
        (b"[tx]{}", [], 2, "invalid character"),
        (b"{]", [], 1, "expected"),
        (b"]", [], 0, "invalid character"),
        (b"nullx", [b"null"], 4, "invalid character"),
        (b"12abc", [b"12"], 2, "invalid character"),
        (b"1. 2", [], 2, "invalid number"),
        (b"1e5e", [b"1e5"], 3, "invalid character"),
        (b'"a\nb"', [], 2, "invalid character"),
        (b'"\\x"', [], 2, "escape"),
        (b'{"a":"ok"}{"a":"\xff"}', [b'{"a":"ok"}'], 16, "not UTF-8"),
        (b'"\xc3"', [], 1, "not UTF-8"),
        (b'1 "\xed\xa0\x80"', [b"1"], 3, "not UTF-8"),
        (b'{"a":1}{"a":', [b'{"a":1}'], 12, "the body ends inside this event"),
        (b'"abc', [], 4, "the body ends inside this event"),
        (b"tru", [], 3, "the body ends inside this event"),
        (b"1 -", [b"1"], 3, "the body ends inside this event"),
        (b"1.", [], 2, "the body ends inside this event"),
        (b'"\xc3', [], 2, "the body ends inside this event"),
    ],
)
def test_a_stream_is_read_up_to_what_is_wrong(body: bytes, kept: list[bytes], byte: int, text: str) -> None:
    values, stop = every_way(body)
    assert stop is not None
    assert (values, stop.event, stop.byte) == (kept, len(kept) + 1, byte)
    assert isinstance(stop.error, BadInput)
    assert text in stop.error.message
    assert stop.error.message.startswith(f"event {stop.event}, byte {byte}: ")


@pytest.mark.parametrize("shift", range(14))
def test_surrogates_of_a_long_text_are_paired_wherever_they_stand(shift: int) -> None:
    unit = rb"\ud83d\ude00\ud83d\\\ude00\udbff\udbff\udfff"
    value = b'"' + b"x" * shift + unit * (300_000 // len(unit)) + b'"'
    values, stop = divide([value + b" 1"])
    assert stop is None
    assert values[1] == b"1"
    as_python_pairs_them = json.loads(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert len(values[0]) == len(value)
    assert json.loads(values[0]) == as_python_pairs_them
    assert divide(cut(value, range(shift + 1, len(value), 50_000)))[0] == values[:1]


def test_an_escape_of_no_character_stays_what_is_wrong() -> None:
    for escape in (rb"\ud8zz", rb"\ud83d\udczz", rb"\ud83"):
        values, stop = divide([b'1 "' + escape + b'"'])
        assert (values, stop is None) == ([b"1"], False)


@pytest.mark.parametrize(
    ("body", "count", "end"),
    [
        (b"1 " * 5000, 5000, None),
        (b"null" * 5000, 5000, None),
        (b"-1" * 5000, 5000, None),
        (b"[]" * 5000 + b"x", 5000, 10_000),
        (b"1 " * 5000 + b"x", 5000, 10_000),
        (b"1 " * 5000 + b"\xff", 5000, 10_000),
        (b"1" + b"-1" * 5000 + b"\xff", 5001, 10_001),
    ],
)
def test_what_is_divided_value_by_value_comes_a_few_at_a_time(body: bytes, count: int, end: int | None) -> None:
    for pieces in ([body], [body[:1], body[1:]]):
        values, stop = divide(pieces, most=5000 if b"[" in body else 1001)
        assert len(values) == count
        assert (None if stop is None else stop.byte) == end


def test_nothing_is_read_after_what_is_wrong() -> None:
    values = JsonValues(LIMIT)
    assert values.feed(b"1 , ").to_pylist() == [b"1"]
    stop = values.stop
    assert values.feed(b"2 ").to_pylist() == []
    assert values.finish().to_pylist() == []
    assert values.stop is stop


def test_a_missing_bracket_is_found_before_the_stream_ends() -> None:
    values = JsonValues(1 << 30)
    read = 0
    while values.stop is None:
        values.feed(b'{"a": 1\n' if not read else b'{"a": 1}\n')
        read += 1
    assert read < 100
    assert (values.stop.event, values.stop.byte) == (1, 8)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_nesting_is_refused_at_once_and_at_the_same_depth_everywhere(opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"
    deep = opening * MAX_DEPTH + b"1" + closing * MAX_DEPTH
    deeper = opening + deep + closing
    for step in (1, 1000, 1 << 20):
        for end in (b"", b"\n"):
            body = b"1 " + deep + b" 2 " + deeper + end
            values, stop = divide(cut(body, range(step, len(body), step)))
            assert values == [b"1", deep, b"2"]
            assert stop is not None
            assert f"deeper than {MAX_DEPTH}" in stop.error.message
            assert (stop.event, stop.byte) == (4, len(deep) + 5)
    endless = JsonValues(1 << 30)
    pieces = 0
    while endless.stop is None:
        endless.feed(opening * 1000)
        pieces += 1
    assert pieces < 3


@pytest.mark.parametrize("value", [b'"%b"', b"[%b]", b"%b", b'{"a":"%b"}'])
def test_an_event_over_the_limit_is_refused_and_those_before_it_are_kept(value: bytes) -> None:
    fits = value.replace(b"%b", b"1" * (1002 - len(value)))
    too_large = value.replace(b"%b", b"1" * (1003 - len(value)))
    for step in (1, 100, 1 << 20):
        body = fits + b"\n" + too_large + b"\n"
        values, stop = divide(cut(body, range(step, len(body), step)), limit=1000)
        assert values == [fits]
        assert stop is not None
        assert isinstance(stop.error, TooLarge)
        assert (stop.event, stop.byte) == (2, len(fits) + 1)
        assert stop.error.message == "event 2, byte 1001: it is larger than 1000 bytes, which is the limit"


def test_no_more_is_kept_of_an_endless_event_than_the_limit() -> None:
    values = JsonValues(10_000)
    largest = 0
    for _ in range(100):
        values.feed(b'"' + b"x" * 999 if not values.held else b"x" * 1000)
        largest = max(largest, values.held)
    assert largest == 10_000
    assert isinstance(values.stop and values.stop.error, TooLarge)


@pytest.mark.parametrize(("start", "end"), [(b'"', b'"'), (b'["', b'"]'), (b"[1,[", b"]]"), (b"", b"\n")])
def test_a_large_event_in_small_pieces_is_read_in_linear_time(start: bytes, end: bytes) -> None:
    """Read from its start with each piece, it would take hours."""
    values = JsonValues(1 << 30)
    middle = b"1" * 999 + (b"," if start.startswith(b"[1") else b"1")
    for piece in [start, *[middle] * 5_000, b"1"]:
        assert len(values.feed(piece)) == 0
    assert len(values.feed(end)) == 1
    assert values.stop is None


# ---- as Python reads it ---------------------------------------------------------------------------------------------

SPACE = re.compile(r"[ \t\r\n]*")


def by_python(body: bytes) -> tuple[list[bytes], bool]:
    """Values of a body by Python's own decoder, and whether it reads all of it."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    decoder = json.JSONDecoder(parse_constant=refuse)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        text = body[: error.start].decode()
        return by_python(text.encode())[0], False
    found: list[bytes] = []
    at = SPACE.match(text).end()  # type: ignore[union-attr]
    while at < len(text):
        try:
            _, end = decoder.raw_decode(text, at)
        except ValueError:
            return found, False
        number, follows = text[at:end].lower() if text[at] in "-0123456789" else "e", text[end : end + 1].lower()
        if "e" not in number and (follows == "e" or (follows == "." and "." not in number)):
            return found, False  # 1. and 1e are no numbers: nothing is kept of them
        found.append(text[at:end].encode())
        at = SPACE.match(text, end).end()  # type: ignore[union-attr]
    return found, True


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
TEXTS = st.builds(
    lambda value, ascii_only, indent: json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode(),
    JSON.filter(lambda value: "\\ud" not in json.dumps(value) or _is_text(value)),
    st.booleans(),
    st.sampled_from([None, 1]),
)


def _is_text(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@given(st.data())
def test_fuzz_any_values_cut_anywhere_are_as_python_reads_them(data: st.DataObject) -> None:
    texts: Sequence[bytes] = data.draw(st.lists(TEXTS, max_size=8))
    spaces = [data.draw(st.sampled_from([b"\n", b" ", b"\r\n", b"\n\n", b"\t"])) for _ in texts]
    body = b"".join(text + space for text, space in zip(texts, spaces, strict=True))
    places = data.draw(st.lists(st.integers(0, len(body)), max_size=10))
    assert divide(cut(body, places)) == (list(texts), None)
    assert by_python(body) == (list(texts), True)


PIECES = (
    b'{ } [ ] " "a" : , 1 - 0 . e E+ true nul l f \\ \\u00 \\" {"a":1} {"a":[1,"]"]} \xc3 \xa9 \xff \x00 NaN'
).split()


@given(st.lists(st.sampled_from([*PIECES, b" ", b"\n", b'{"b":2}\n']), max_size=40), st.data())
def test_fuzz_any_bytes_cut_anywhere_are_as_python_reads_them(parts: list[bytes], data: st.DataObject) -> None:
    body = b"".join(parts)
    places = data.draw(st.lists(st.integers(0, len(body)), max_size=10))
    values, stop = divide(cut(body, places))
    expected, whole = by_python(body)
    assert (values, stop is None) == (expected, whole)
    once = divide([body])
    assert values == once[0]
    assert (stop is None) == (once[1] is None)
    if stop is not None and once[1] is not None:
        assert (stop.event, stop.byte) == (once[1].event, once[1].byte)


@pytest.mark.parametrize(
    ("text", "value"), [("9" * 5000, math.inf), ("-" + "9" * 5000, -math.inf), ("1e999", math.inf)]
)
def test_numbers_that_no_float_can_hold_are_infinite(text: str, value: float) -> None:
    assert read_json(f'{{"a":[{text},"b"]}}') == {"a": [value, "b"]}
    assert read_json("9" * 30) == 10**30 - 1
