"""A scrape in the text format: whichever of its three ways reads a line, what comes of it is the same."""

from __future__ import annotations

import math
import random
from collections.abc import Generator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.errors import BadInput
from streamgauge.model.arrays import STALE_BITS
from streamgauge.wire.exposition_text import Pairs, read_note, read_sample, read_value
from streamgauge.wire.scraped import DROPPED, NO_STAMP, REFUSED, ScrapeCache, Scraped, merged_notes
from streamgauge.wire.text_layout import CHUNK_LINES
from streamgauge.wire.text_scrape import decode


class Target:
    """Reads scrapes as one target's decoder does, and names the series of each row."""

    def __init__(self, drop: bytes = b"", refuse: bytes = b"") -> None:
        self.cache = ScrapeCache()
        self.names: list[tuple[tuple[bytes, bytes], ...]] = []
        self.asked = 0
        self._ids: dict[tuple[tuple[bytes, bytes], ...], int] = {}
        self._drop, self.refuse = drop, refuse

    def series_of(self, pairs: Pairs) -> int:
        self.asked += 1
        name = dict(pairs)[b"__name__"]
        if name == self._drop:
            return DROPPED
        if name == self.refuse:
            return REFUSED
        key = tuple(sorted(pairs))
        if key not in self._ids:
            self._ids[key] = len(self.names)
            self.names.append(key)
        return self._ids[key]

    def scrape(self, body: bytes, limit: int = 0) -> Scraped:
        return finish(decode(body, self.cache, self.series_of, limit))

    def rows(self, body: bytes) -> list[tuple[dict[bytes, bytes], float, int]]:
        return rows(self, self.scrape(body))


def finish(reading: Generator[None, None, Scraped]) -> Scraped:
    while True:
        try:
            next(reading)
        except StopIteration as end:
            scraped: Scraped = end.value
            return scraped


def rows(target: Target, scraped: Scraped) -> list[tuple[dict[bytes, bytes], float, int]]:
    stamps = [NO_STAMP] * len(scraped.series) if scraped.stamps is None else scraped.stamps.tolist()
    columns = (scraped.series.tolist(), scraped.values.tolist(), stamps)
    return [(dict(target.names[series]), value, stamp) for series, value, stamp in zip(*columns, strict=True)]


def plain(body: bytes) -> list[tuple[dict[bytes, bytes], str, int]]:
    """What a reader without any memory makes of a body; values as text, so that NaN is equal to itself."""
    found = []
    for line in body.split(b"\n"):
        if line.strip(b" \t") and not line.lstrip(b" \t").startswith(b"#"):
            read = read_sample(line)
            found.append((dict(read.pairs), repr(read_value(read.value)), int(read.timestamp or NO_STAMP)))
        elif line.strip(b" \t"):
            read_note(line)
    return found


def test_the_columns_of_a_scrape() -> None:
    target = Target()
    body = b'# TYPE a counter\na{b="c d"} 1\n\na{b="e"} NaN 1700000000000\n# comment\nx -Inf'
    first = target.scrape(body)
    assert first.lines == first.kept == first.added == 3
    assert not first.same
    again = target.scrape(body)
    assert again.same
    assert again.added == 0
    assert target.asked == 3
    for scraped in (first, again):
        (a, e, x) = rows(target, scraped)
        assert a == ({b"__name__": b"a", b"b": b"c d"}, 1.0, NO_STAMP)
        assert e[0] == {b"__name__": b"a", b"b": b"e"}
        assert math.isnan(e[1])
        assert e[2] == 1_700_000_000_000
        assert x == ({b"__name__": b"x"}, -math.inf, NO_STAMP)


def test_nothing_is_a_scrape_too() -> None:
    assert Target().scrape(b"").lines == 0
    assert Target().scrape(b"\n\n# EOF\n").lines == 0


def test_no_value_is_a_stale_marker() -> None:
    target = Target()
    for _ in range(2):
        values = target.scrape(b"a NaN\nb nan\n").values
        assert np.isnan(values).all()
        assert not (values.view(np.int64) == STALE_BITS).any()


def test_a_changed_line_is_noticed_wherever_it_is() -> None:
    """Each line in turn gets another label, an end, a neighbour; every row is still of the right series."""
    lines = [b'm{i="%d"} %d' % (number, number) for number in range(40)]
    for at in range(40):
        for change in (b'm{i="x y"} 7', b"m 1 5", b"", b"# TYPE m gauge", b"other{} 1", b'm{i="%d"}  9' % at):
            target = Target()
            target.scrape(b"\n".join(lines) + b"\n")
            changed = b"\n".join([*lines[:at], change, *lines[at + 1 :]]) + b"\n"
            assert [(labels, repr(value), stamp) for labels, value, stamp in target.rows(changed)] == plain(changed)
            assert [(labels, repr(value), stamp) for labels, value, stamp in target.rows(changed)] == plain(changed)


def test_a_large_scrape_is_read_in_parts() -> None:
    body = b"".join(b'm{i="%d"} %d\n' % (number, number) for number in range(20_000))
    target = Target()
    target.scrape(body)
    reading = decode(body, target.cache, target.series_of)
    parts = 0
    while True:
        try:
            next(reading)
            parts += 1
        except StopIteration as end:
            assert end.value.values.tolist() == list(range(20_000))
            break
    assert parts >= 2


def test_a_series_that_comes_twice_is_stored_once() -> None:
    target = Target()
    body = b'a{b="1",c="2"} 1\nb 5\na{c="2",b="1"} 2\n'
    for _ in range(3):
        scraped = target.scrape(body)
        assert [(labels[b"__name__"], value) for labels, value, _ in rows(target, scraped)] == [
            (b"a", 1.0),
            (b"b", 5.0),
        ]
        assert (scraped.lines, scraped.kept, scraped.duplicates) == (3, 3, 1)
        assert not scraped.same
    assert target.scrape(b"a 1 5\na 2 6\na 3 6\n").values.tolist() == [1.0, 2.0]


def test_a_dropped_series_is_asked_for_once_and_a_refused_one_each_time() -> None:
    target = Target(drop=b"d", refuse=b"r")
    for number in range(3):
        scraped = target.scrape(b"a 1\nd 2\nr 3\n")
        assert scraped.values.tolist() == [1.0]
        assert (scraped.lines, scraped.kept, scraped.refused) == (3, 2, 1)
        assert target.asked == 3 + number
    target.refuse = b""
    assert target.scrape(b"a 1\nd 2\nr 3\n").values.tolist() == [1.0, 3.0]


def test_the_limit_counts_what_is_kept() -> None:
    target = Target(drop=b"d")
    assert target.scrape(b"a 1\nb 1\nd 1\n", limit=2).kept == 2
    with pytest.raises(BadInput, match="sample_limit exceeded: there are more than 2 samples"):
        target.scrape(b"a 1\nb 1\nd 1\nc 1\n", limit=2)
    assert target.scrape(b"a 1\nb 1\nd 1\n", limit=2).same


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"a 1\nb 2\n<html>\n", "line 3: a metric name was expected"),
        (b"a 1\nb 2x\n", 'line 2: "2x" is no value'),
        (b"a 1\nb\n", "line 2: a value was expected"),
        (b"a 1\n# TYPE b thing\n", 'line 2: there is no metric type "thing"'),
        (b"a 1 99999999999999999999\n", "line 1: 99999999999999999999 is no timestamp"),
        (b"a" * (1 << 21), "a line is longer than"),
        (b"\n" * 9000 + b"a{", "line 9001: a label name was expected"),
    ],
)
def test_a_bad_line_is_named_and_changes_nothing(body: bytes, words: str) -> None:
    target = Target()
    target.scrape(b"a 1\nb 2\n")
    with pytest.raises(BadInput, match=words.replace("(", r"\(")):
        target.scrape(body)
    assert target.scrape(b"a 1\nb 2\n").same


def test_buckets_are_spelled_alike_according_to_the_type_in_force() -> None:
    target = Target()
    body = b'# TYPE h histogram\nh_bucket{le="1"} 1\n# TYPE g gauge\ng{le="1"} 1\nh_bucket{le="1"} 2\n'
    labels = [labels[b"le"] for labels, _, _ in target.rows(body)]
    assert labels == [b"1.0", b"1", b"1"]
    changed = body.replace(b"histogram", b"gauge")
    assert [labels[b"le"] for labels, _, _ in target.rows(changed)] == [b"1", b"1"]  # and one that came twice
    assert [labels[b"le"] for labels, _, _ in target.rows(body)] == labels


def test_the_type_in_force_carries_over_from_part_to_part() -> None:
    target = Target()
    lines = b"".join(b'h_bucket{le="%d"} 1\n' % number for number in range(1, 9000))
    for kind, spelled in ((b"histogram", b"8999.0"), (b"gauge", b"8999"), (b"histogram", b"8999.0")):
        last = target.rows(b"# TYPE h %s\n" % kind + lines)[-1][0][b"le"]
        assert last == spelled


def test_metadata() -> None:
    target = Target()
    target.scrape(b"# HELP a text\\\\n\n# TYPE a counter\na 1\n# TYPE b untyped\nb 1\n# HELP c \xff\n")
    notes = merged_notes(target.cache.chunks)
    assert (notes["a"].type, notes["a"].help) == ("counter", "text\\n")
    assert (notes["b"].type, notes["c"].help) == ("unknown", "\N{REPLACEMENT CHARACTER}")


NAMES = st.sampled_from(["a", "b_total", "c:d", "_e"])
TEXTS = st.text(st.sampled_from('xyz 0123{}=,#"\\\n\té'), max_size=6)
NUMBERS = st.sampled_from(["0", "1", "-1.5", "1e+06", "NaN", "+Inf", "-Inf", "123456789", "+5", "1e-300"])


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


@st.composite
def line(draw: st.DrawFn) -> str:
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(["", "# HELP a x y", "# TYPE a counter", "#", " ", "# HELP b_total"]))
    labels = draw(st.dictionaries(st.sampled_from(["l", "m", "n"]), TEXTS, max_size=2))
    gap = draw(st.sampled_from([" ", " ", " ", "  ", "\t", ""]))
    inner = (
        "{" + ",".join(f'{name}="{escaped(text)}"' for name, text in labels.items()) + "}" if labels or not gap else ""
    )
    stamp = draw(st.sampled_from(["", "", " 5", " 1700000000000", "\t7", " "]))
    return f"{draw(NAMES)}{inner}{gap}{draw(NUMBERS)}{stamp}"


@given(st.lists(st.lists(line(), max_size=8), min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_fuzz_any_scrape_after_any_other_reads_as_if_it_were_the_first(
    bodies: list[list[str]], chance: random.Random
) -> None:
    target = Target()
    body: list[str] = []
    for lines in bodies:
        body = [chance.choice(lines) if lines and chance.random() < 0.3 else old for old in body] or lines
        text = "\n".join(body).encode()
        expected: list[tuple[dict[bytes, bytes], str, int]] = []
        for row in plain(text):
            if (row[0], row[2]) not in [(labels, stamp) for labels, _, stamp in expected]:
                expected.append(row)
        assert [(labels, repr(value), stamp) for labels, value, stamp in target.rows(text)] == expected


@given(
    st.lists(st.binary(max_size=12) | st.sampled_from([b"a 1\n", b'a{b="c"} 1\n', b"# TYPE a counter\n"]), max_size=12)
)
def test_fuzz_any_bytes_are_read_or_refused(parts: list[bytes]) -> None:
    target = Target()
    for body in (b"".join(parts), b"".join(parts[1:]), b"".join(parts)):
        try:
            scraped = target.scrape(body)
        except BadInput:
            continue
        assert len(scraped.series) == len(scraped.values) <= scraped.lines


@pytest.mark.parametrize("stamp", [b"9" * 19, b"9" * 20, b"9" * 5000])
def test_a_timestamp_that_is_too_large_is_no_timestamp(stamp: bytes) -> None:
    target = Target()
    with pytest.raises(BadInput, match="is no timestamp in ms"):
        target.scrape(b"a 1 " + stamp + b"\n")
    target.scrape(b"a 1 1\n")
    with pytest.raises(BadInput, match="is no timestamp in ms"):
        target.scrape(b"a 1 " + stamp + b"\n")


def test_zeros_before_a_timestamp_change_nothing() -> None:
    ((_, value, stamp),) = Target().rows(b"a 1 " + b"0" * 5000 + b"7\n")
    assert (value, stamp) == (1.0, 7)


ODD_VALUES = [
    b"1",
    b"-0.5",
    b"1e3",
    b"+7",
    b"NaN",
    b"nan",
    b"-Inf",
    b"+inf",
    b"Infinity",
    b"0x1p3",
    b"1_0",
    b"1e999",
    b"9" * 400,
]
NO_VALUES = [b"", b" 1", b"1 ", b"\t1", b"1\r", b"1 2", b"1 x", b"-nan", b"1e", b"one", b'{a="b"} 1', b"1\n", b"\xff"]


def test_a_space_at_the_end_of_a_line_leaves_no_value_in_what_spells_its_series() -> None:
    target = Target()
    for text, value, stamp in ((b"a 1\n", 1.0, None), (b"a 1 \n", 1.0, None), (b"a 1 2\n", 1.0, 2)):
        ((_, read, at),) = target.rows(text)
        assert read == value
        assert stamp is None or at == stamp


@given(
    st.lists(st.tuples(st.sampled_from([b"a", b'b{l="x y"}', b'c{l="1"}']), st.booleans()), min_size=1, max_size=5),
    st.lists(st.lists(st.sampled_from(ODD_VALUES + NO_VALUES), min_size=5, max_size=5), min_size=1, max_size=4),
)
def test_fuzz_whatever_stands_where_a_value_stood_reads_as_if_it_were_the_first(
    lines: list[tuple[bytes, bool]], scrapes: list[list[bytes]]
) -> None:
    """The same lines again and again, each with another value: the quick way reads them, or leaves them to the slow."""
    target = Target()

    def body(values: list[bytes]) -> bytes:
        return b"".join(
            name + b" " + value + (b" 17" if stamped else b"") + b"\n"
            for (name, stamped), value in zip(lines, values, strict=False)
        )

    def outcome(reader: Target, text: bytes) -> list[tuple[dict[bytes, bytes], str, int]] | str:
        try:
            return [(labels, repr(value), stamp) for labels, value, stamp in reader.rows(text)]
        except BadInput as error:
            return error.message

    target.scrape(body([b"1"] * 5))
    for values in scrapes:
        text = body(values)
        assert outcome(target, text) == outcome(Target(), text)


@given(st.lists(st.lists(st.sampled_from(ODD_VALUES), min_size=3, max_size=3), min_size=2, max_size=6), st.data())
def test_fuzz_values_that_stay_are_what_they_were(scrapes: list[list[bytes]], data: st.DataObject) -> None:
    """Only values whose text has changed are read."""
    target = Target()
    values = scrapes[0]
    for fresh in scrapes:
        values = [data.draw(st.sampled_from([old, new])) for old, new in zip(values, fresh, strict=True)]
        text = b"".join(name + b" " + value + b"\n" for name, value in zip((b"a", b"b", b"c"), values, strict=True))
        try:
            expected = [repr(float(value)) for value in Target().scrape(text).values]
        except BadInput:
            with pytest.raises(BadInput):
                target.scrape(text)
            continue
        scraped = target.scrape(text)
        assert [repr(float(value)) for value in scraped.values] == expected
        assert not (scraped.values.view(np.int64) == STALE_BITS).any()


def test_parts_of_a_scrape_that_fails_are_not_kept_alive_by_the_others() -> None:
    """Each part holds its own text, not the body that it was last seen in."""
    target = Target()
    body = b"".join(f"m{number} 1\n".encode() for number in range(2 * CHUNK_LINES))
    for _ in range(2):
        target.scrape(body)
        held = [chunk.layout.pieces.buffers()[2] for chunk in target.cache.chunks if chunk.layout is not None]
        assert [text.size < len(body) * 2 / 3 for text in held if text is not None] == [True, True]
