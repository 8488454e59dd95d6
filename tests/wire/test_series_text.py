"""A series as text: what is written is read back, and nothing else passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.errors import BadInput
from streamgauge.wire.series_text import go_unescape, parse_series, series_text

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).map(str.encode)


@given(st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=5))
def test_what_is_written_is_read_back(labels: dict[bytes, bytes]) -> None:
    pairs = sorted(labels.items())
    assert sorted(parse_series(series_text(pairs))) == pairs


def test_a_series_may_be_spelled_as_people_do() -> None:
    expected = [(b"__name__", b"up"), (b"job", b"a b")]
    for text in (b'up{job="a b"}', b'{__name__="up", job="a b"}', b'{"up",job="a b",}', b' up { job = "a b" } '):
        assert parse_series(text) == expected
    assert parse_series(b"up") == [(b"__name__", b"up")]


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"up 1", b'up{job="x"', b'up{job="x"}{a="b"}', b"{job=x}", b'up{"a"="b"}x']
)
def test_what_is_no_series(text: bytes) -> None:
    with pytest.raises(BadInput):
        parse_series(text)


def test_a_go_string() -> None:
    assert go_unescape(rb"a\\b\"c\n\t\x07\u00e9\U0001F600") == 'a\\b"c\n\t\x07é😀'.encode()
    assert go_unescape(b"\xc3\xa9") == "é".encode()
    with pytest.raises(BadInput):
        go_unescape(rb"\UFFFFFFFF")
