"""What is no JSON becomes JSON, and lines become events."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.errors import TooLarge
from streamgauge.wire.event_texts import Lines, payload_of, payloads_of
from streamgauge.wire.json_values import MAX_DEPTH, Stop


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        (b'{"a": 1}', b'{"a": 1}'),
        (b'  {"a": 1}\r\n', b'{"a": 1}'),
        (b"12", b"12"),
        (b"true", b"true"),
        (b"", b'""'),
        (b" ", b'" "'),
        (b"{}{}", b'"{}{}"'),
        (b"NaN", b'"NaN"'),
        (b"1.", b'"1."'),
        (b"\xef\xbb\xbf{}", '"\ufeff{}"'.encode()),
        (b'GET "/" \\ 200\n\x00', rb'"GET \"/\" \\ 200\n\u0000"'),
        ("grüße 😀".encode(), '"grüße 😀"'.encode()),
        (b"\xff\x00", b'{"base64":"/wA="}'),
        (b'{"a":"\xff"}', b'{"base64":"eyJhIjoi/yJ9"}'),
        (rb'"\ud800"', rb'"\ufffd"'),
        (
            b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
            b'"' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b'"',
        ),
    ],
)
def test_any_text_is_a_payload(text: bytes, payload: bytes) -> None:
    assert payload_of(text) == payload
    assert payloads_of([b"{}", text, b"x"]).to_pylist() == [b"{}", payload, b'"x"']


def test_a_text_is_one_payload_even_where_all_together_read_as_others() -> None:
    texts = [b"[1,", b"2]", b"1 2", b"", b'"a', b'b"']
    assert payloads_of(texts).to_pylist() == [b'"[1,"', b'"2]"', b'"1 2"', b'""', rb'"\"a"', rb'"b\""']


@given(st.lists(st.binary(max_size=20) | st.text(max_size=20).map(str.encode) | st.integers().map(lambda i: b"%d" % i)))
def test_fuzz_every_text_is_a_payload_that_gives_it_back(texts: list[bytes]) -> None:
    payloads = payloads_of(texts).to_pylist()
    assert payloads == [payload_of(text) for text in texts]
    for text, payload in zip(texts, payloads, strict=True):
        if payload == text.strip(b" \t\r\n"):
            continue
        value = json.loads(payload)
        if isinstance(value, str):
            assert value.encode() == text
        else:
            assert base64.b64decode(value["base64"]) == text


def test_a_long_text_of_control_characters_does_not_become_six_times_as_long() -> None:
    text = b"\x01abc" * (1 << 18) + b"\x01"
    assert json.loads(payload_of(text)) == {"base64": base64.b64encode(text).decode()}
    assert json.loads(payload_of(text[:100])) == text[:100].decode()
    quotes = b'"' * (2 << 20)
    assert len(payload_of(quotes)) == 2 * len(quotes) + 2


def divide(pieces: Iterable[bytes], limit: int = 1000) -> tuple[list[bytes], Stop | None]:
    lines = Lines(limit)
    found: list[bytes] = []
    for piece in pieces:
        found += lines.feed(piece).to_pylist()
        while lines.more:
            found += lines.feed(b"").to_pylist()
    found += lines.finish().to_pylist()
    assert lines.held == 0
    return found, lines.stop


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (b"", []),
        (b"\n", [b'""']),
        (b"a\nb", [b'"a"', b'"b"']),
        (b"a\n\nb\n", [b'"a"', b'""', b'"b"']),
        (b'a\r\n{"b":1}\r\n12\r', [b'"a"', b'{"b":1}', b"12"]),
        ("ü\n\xff".encode(), ['"ü"'.encode(), '"ÿ"'.encode()]),
    ],
)
def test_each_line_is_an_event_wherever_the_stream_is_cut(body: bytes, values: list[bytes]) -> None:
    for step in range(1, len(body) + 2):
        assert divide(body[at : at + step] for at in range(0, len(body), step)) == (values, None)


@pytest.mark.parametrize("step", [1, 100, 10_000])
@pytest.mark.parametrize("end", [b"", b"\n", b"\nb\n"])
def test_a_line_over_the_limit_is_refused_and_those_before_it_are_kept(step: int, end: bytes) -> None:
    body = b"a\n" + b"x" * 1000 + b"\n" + b"y" * 1001 + end
    values, stop = divide(body[at : at + step] for at in range(0, len(body), step))
    assert values == [b'"a"', b'"%b"' % (b"x" * 1000)]
    assert stop is not None
    assert isinstance(stop.error, TooLarge)
    assert (stop.event, stop.byte) == (3, 1003)
    assert stop.error.message == "event 3, byte 1003: it is larger than 1000 bytes, which is the limit"


def test_lines_come_a_few_at_a_time() -> None:
    lines = Lines(10)
    assert len(lines.feed(b"a\n" * 2500 + b"b")) == 1000
    assert (lines.more, len(lines.feed(b""))) == (True, 1000)
    assert (lines.more, len(lines.feed(b""))) == (True, 500)
    assert (lines.more, lines.held) == (False, 1)
    assert lines.finish().to_pylist() == [b'"b"']
    assert len(lines.feed(b"a\n" * 1500 + b"x" * 11 + b"\na\n")) == 1000
    assert len(lines.feed(b"")) == 500
    assert lines.stop is not None
    assert (lines.stop.event, lines.more) == (4002, False)
