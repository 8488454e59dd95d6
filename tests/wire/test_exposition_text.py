"""The text format's grammar, line by line."""

from __future__ import annotations

import math

import pytest

from streamgauge.errors import BadInput
from streamgauge.wire.exposition_text import NAME, Note, normal_float, read_note, read_sample, read_value


@pytest.mark.parametrize(
    ("line", "labels", "value", "stamp"),
    [
        (b"a 1", {b"__name__": b"a"}, b"1", None),
        (b" a\t1 ", {b"__name__": b"a"}, b"1", None),
        (b"a:b_9 1 12", {b"__name__": b"a:b_9"}, b"1", b"12"),
        (b"a{} 1", {b"__name__": b"a"}, b"1", None),
        (b'a{b="c"}1', {b"__name__": b"a", b"b": b"c"}, b"1", None),
        (b'a { b = "c" , d="e", } 1', {b"__name__": b"a", b"b": b"c", b"d": b"e"}, b"1", None),
        (b'a{b="c"d="e"} 1', {b"__name__": b"a", b"b": b"c", b"d": b"e"}, b"1", None),
        (rb'a{b="x\"y\\z\n\q {} # 1"} 1', {b"__name__": b"a", b"b": b'x"y\\z\n\\q {} # 1'}, b"1", None),
        (b'{"a.b"} 1', {b"__name__": b"a.b"}, b"1", None),
        (b'{"a.b",c="d","e f"="g"} 1 2', {b"__name__": b"a.b", b"c": b"d", b"e f": b"g"}, b"1", b"2"),
        (b'{c="d","a.b"} 1', {b"__name__": b"a.b", b"c": b"d"}, b"1", None),
    ],
)
def test_a_sample(line: bytes, labels: dict[bytes, bytes], value: bytes, stamp: bytes | None) -> None:
    read = read_sample(line)
    assert (dict(read.pairs), read.value, read.timestamp) == (labels, value, stamp)
    assert read.pairs[0][0] == NAME
    assert line[read.value_at :].startswith(value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"9a 1", "a metric name was expected"),
        (b'{b="c"} 1', "a metric name was expected"),
        (b"a", "a value was expected"),
        (b"a{} {", "a value was expected"),
        (b"a 1 2 3", "a timestamp in ms, or nothing, was expected"),
        (b"a 1 1.5", "a timestamp in ms, or nothing, was expected"),
        (b"a 1 -5", "a timestamp in ms, or nothing, was expected"),
        (b"a{b=1} 1", '="value" was expected'),
        (b'a{b "c"} 1', '="value" was expected'),
        (b"a{1} 1", "a label name was expected"),
        (b'a{b="c" 1', "a label name was expected"),
        (b'a{b="c",,} 1', "a label name was expected"),
        (b'a{"b"} 1', "the metric name is given twice"),
        (b"<!DOCTYPE html>", "a metric name was expected"),
        (b"\xff 1", r"a metric name was expected: \"\xff 1\""),
    ],
)
def test_what_is_no_sample(line: bytes, words: str) -> None:
    with pytest.raises(BadInput) as refused:
        read_sample(line)
    assert words.replace("\\", "") in refused.value.message.replace("\\", "")


def test_values() -> None:
    assert [read_value(text) for text in (b"1", b"-0.5", b"+1e3", b".5", b"5.", b"007", b"1e400")] == [
        1.0,
        -0.5,
        1000.0,
        0.5,
        5.0,
        7.0,
        math.inf,
    ]
    assert read_value(b"+Inf") == read_value(b"infinity") == math.inf
    assert read_value(b"-inf") == -math.inf
    assert math.isnan(read_value(b"NaN"))
    for wrong in (
        b"",
        b"x",
        b"1_0",
        b"0x10",
        b"1e",
        b"+nan",
        b"-NaN",
        b"1 ",
        b"\t1",
        b"1,5",
        b"1f",
        "٣".encode(),
        b"nan(1)",
    ):
        with pytest.raises(BadInput):
            read_value(wrong)


def test_metadata() -> None:
    assert read_note(b"# HELP a some  text\\n with \\\\ and \\x") == Note(
        b"HELP", b"a", b"some  text\n with \\ and \\x"
    )
    assert read_note(b" #\tTYPE\ta counter") == Note(b"TYPE", b"a", b"counter")
    assert read_note(b'# TYPE "a.b" gauge') == Note(b"TYPE", b"a.b", b"gauge")
    assert read_note(b"# HELP a") == Note(b"HELP", b"a", b"")
    for comment in (b"#", b"# x", b"#HELP a b", b"#TYPE a x", b"# UNIT a b", b"# EOF"):
        assert read_note(comment) is None
    for wrong in (b"# TYPE a", b"# TYPE a meter", b"# TYPE a counter ", b"# HELP 9", b"# TYPE "):
        with pytest.raises(BadInput):
            read_note(wrong)


def test_a_bucket_has_one_spelling() -> None:
    spelled = {
        b"1": b"1.0",
        b"0": b"0.0",
        b"-0": b"0.0",
        b"1e-4": b"0.0001",
        b"0.00001": b"1e-05",
        b"1000000": b"1e+06",
    }
    spelled |= {b"123456.5": b"123456.5", b"2.5e21": b"2.5e+21", b"+Inf": b"+Inf", b"inf": b"+Inf", b"x": b"x"}
    assert {text: normal_float(text) for text in spelled} == spelled
