"""Files that repeat the order of their series: whatever is compared instead of looked up, the samples are the same."""

from __future__ import annotations

import re
import struct
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamgauge.wire import imported as imported_module
from streamgauge.wire import series_order
from streamgauge.wire.findings import Reason
from streamgauge.wire.line_words import are_equal
from streamgauge.wire.sample_lines import Form, SampleLines
from streamgauge.wire.series_order import SeriesOrder

Sample = tuple[int, bytes, int, bytes]
"""Line, series, time, bits of the value."""

SERIES = [f'm{{job="j{number % 7}",instance="10.0.0.{number}:9100"}}' for number in range(600)]


def read(blocks: list[str], form: Form) -> tuple[list[Sample], Counter[Reason], list[str]]:
    """What one reader makes of the blocks of a file."""
    reader, first = SampleLines(form), 1
    samples: list[Sample] = []
    refused: Counter[Reason] = Counter()
    examples: list[str] = []
    for block in blocks:
        imported = reader.read(block.encode(errors="surrogateescape"), first)
        rows = imported.rows
        samples += [
            (place, rows.texts[code], time, struct.pack("<d", value))
            for place, code, time, value in zip(
                imported.places.tolist(), rows.codes.tolist(), rows.times.tolist(), rows.values.tolist(), strict=True
            )
        ]
        first += imported.count
        refused += imported.findings.refused
        examples += [re.sub(' +"', '"', text) for text in imported.findings.examples]
    return samples, refused, examples


def line_by_line(blocks: list[str], form: Form) -> tuple[list[Sample], Counter[Reason], list[str]]:
    """The same, read in the slow way: a space at its end sends a line there."""
    samples, refused, examples = read([block.replace("\n", " \n") for block in blocks], form)
    return samples, refused, examples


def in_blocks(lines: list[str], sizes: list[int]) -> list[str]:
    blocks, at = [], 0
    for size in [*sizes, len(lines)]:
        blocks.append("".join(f"{line}\n" for line in lines[at : at + size]))
        at += size
    return [block for block in blocks if block]


def steps(series: list[str], times: range) -> list[str]:
    return [f"{spelling} {number * time % 1000} {time}" for time in times for number, spelling in enumerate(series)]


@pytest.mark.parametrize("form", list(Form))
def test_steps_are_read_as_they_are_line_by_line_wherever_blocks_end(form: Form) -> None:
    series = [f"{{{name.partition('{')[2]}" for name in SERIES] if form is Form.DUMP else SERIES
    blocks = in_blocks(steps(series, range(1000, 1012)), [1000, 1, 1700, 600, 600, 333])
    assert read(blocks, form) == line_by_line(blocks, form)


def test_what_follows_in_a_known_order_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = []
    codes = imported_module.Spellings.codes

    def counted(self: imported_module.Spellings, series: object) -> object:
        looked_up.append(len(series))  # type: ignore[arg-type]
        return codes(self, series)

    monkeypatch.setattr(imported_module.Spellings, "codes", counted)
    read(in_blocks(steps(SERIES, range(1000, 1020)), [700, 900, 1300]), Form.OPENMETRICS)
    assert sum(looked_up) <= 700 + 900, "the first block has a whole step, and the second still ends with new order"
    looked_up.clear()
    by_series = [f"{one} {time} {time}" for one in SERIES for time in range(50)]
    read(in_blocks(by_series, [5000, 7000, 11]), Form.OPENMETRICS)
    assert sum(looked_up) <= len(SERIES) + 4


def test_a_series_that_comes_or_goes_or_moves_changes_nothing_else() -> None:
    moved = [*SERIES[:100], *SERIES[101:300], "m_new", *SERIES[300:], SERIES[100]]
    lines = (
        steps(SERIES, range(3))
        + steps(moved, range(3, 6))
        + steps(SERIES[:500], range(6, 9))
        + steps(moved, range(9, 11))
    )
    blocks = in_blocks(lines, [1100, 900, 900, 900, 900])
    assert read(blocks, Form.OPENMETRICS) == line_by_line(blocks, Form.OPENMETRICS)


def test_a_few_series_that_are_left_of_many_are_an_order_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def counted(some: pa.BinaryArray, others: pa.BinaryArray) -> object:
        compared.append(len(some))
        return are_equal(some, others)

    blocks = in_blocks([*steps(SERIES, range(2)), *steps([SERIES[-1], SERIES[-2]], range(2, 2002))], [1200, 2000])
    expected = line_by_line(blocks, Form.OPENMETRICS)
    monkeypatch.setattr(series_order, "are_equal", counted)
    assert read(blocks, Form.OPENMETRICS) == expected
    assert len(compared) < 10


def test_two_spellings_of_a_series_are_one() -> None:
    other = [name.replace("}", ",}") for name in SERIES]
    blocks = in_blocks(steps(SERIES, range(3)) + steps(other, range(3, 6)) + steps(SERIES, range(6, 8)), [1000, 900])
    samples, refused, _ = read(blocks, Form.OPENMETRICS)
    assert len({series for _, series, _, _ in samples}) == len(SERIES)
    assert len(samples) == 8 * len(SERIES)
    assert not refused


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_order, "MAX_BYTES", 100_000)
    monkeypatch.setattr(imported_module, "CACHE_BYTES", 200_000)
    series = [f'm{{number="{number}",filler="{"x" * 50}"}}' for number in range(2000)]
    blocks = in_blocks(steps(series, range(6)), [1300, 1700, 900, 2100, 1000])
    assert read(blocks, Form.OPENMETRICS) == line_by_line(blocks, Form.OPENMETRICS)
    order = SeriesOrder(lambda spelling: 0)
    for _ in range(20):
        order.learn(pa.array(series[:700], pa.binary()), np.arange(700))
    assert order.size < 200_000


SERIES_TEXTS = st.sampled_from(
    [
        "a",
        'a{x="1"}',
        'a{x="1",}',
        'a {x="1"}',
        '{__name__="a",x="1"}',
        'a{x=" # "}',
        'b{x="1 2 3"}',
        'b{x="\\" 5 5"}',
        'b{le="1"}',
        "a 1",
        "a{",
        "#",
        "# TYPE b histogram",
        "",
        " a",
        "\udcff",
        "a\t1",
    ]
)
SEPARATORS = st.sampled_from([" "] * 7 + ["\t", "  ", ""])
VALUES = st.sampled_from(["1", "-2.5", "1e5", "+Inf", "NaN", "nan(1)", "0x10", "", "1 2", "1\t2", "1_0"])
TIMES = st.sampled_from(["1", "12", "1.5", "1.25", "-3", "12345", "123456789", "1e3", "", "x", "1e300", "NaN"])
TAILS = st.sampled_from([""] * 7 + [" ", ' # {t="1"} 2 3', "\r"])
LINES = st.tuples(SERIES_TEXTS, SEPARATORS, VALUES, SEPARATORS, TIMES, TAILS)
CHANGES = st.lists(st.tuples(st.integers(0, 40), LINES), max_size=4)


@settings(max_examples=100)
@given(
    st.lists(LINES, min_size=1, max_size=30),
    st.lists(CHANGES, min_size=1, max_size=4),
    st.lists(st.integers(1, 40), max_size=5),
    st.sampled_from(list(Form)),
)
@example(
    [("a", " ", "1", " ", "1", "")] * 2 + [("a", " ", "1", " ", "nan(1)123456789", "")], [[]], [], Form.OPENMETRICS
)
def test_any_lines_again_and_again_are_read_as_they_are_line_by_line(
    step: list[tuple[str, ...]], rounds: list[list[tuple[int, tuple[str, ...]]]], sizes: list[int], form: Form
) -> None:
    lines: list[str] = []
    for changes in rounds:
        for at, line in changes:
            step[at % len(step)] = line
        lines += map("".join, step)
    blocks = in_blocks(lines, sizes)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(series_order, "MIN_LINES", 2)
        assert read(blocks, form) == line_by_line(blocks, form)
