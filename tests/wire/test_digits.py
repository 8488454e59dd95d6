"""Digits read eight at a time: the numbers that Python reads from the same text, or none."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from streamgauge.model.arrays import Floats, Int64s, UInt8s
from streamgauge.wire.digits import MAX_DIGITS, decimals, whole_numbers

WORDS = st.one_of(
    st.integers(0, 10**18).map(str),
    st.integers(0, 10**8 + 10).map(str),
    st.decimals(0, 10**9, allow_nan=False, places=3).map(str),
    st.text("0123456789", min_size=1, max_size=17),
    st.text("0123456789.", max_size=17),
    st.text(st.characters(max_codepoint=127), max_size=9),
    st.sampled_from(["-5", "+5", "1e5", "NaN", "1_0", " 5", "5 ", "1 2", "/", ":", "1:", "\x80"]),
)


def laid_out(words: list[str], before: str) -> tuple[UInt8s, Int64s, Int64s]:
    """The words behind one another, each behind another byte, and where they begin and end."""
    raw = before.encode() + b"".join(b"9" + word.encode("latin-1") for word in words)
    sizes = np.array([len(word) for word in words], np.int64)
    stops = len(before) + np.cumsum(sizes + 1)
    return np.frombuffer(raw, np.uint8), stops - sizes, stops


def is_plain(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= MAX_DIGITS


@given(st.lists(WORDS, max_size=12), st.sampled_from(["", "m ", "x" * 16]))
@example(["0" * 8, "9" * 8, "9" * 9, "9" * 15, "9" * 16, "1"], "x" * 16)
@example(["1795759277"] * 3, "x" * 16)
@example([":"] * 3, "x" * 16)
def test_whole_numbers_are_those_that_are_written(words: list[str], before: str) -> None:
    raw, starts, stops = laid_out(words, before)
    numbers, good = whole_numbers(raw, starts, stops)
    for word, number, is_good, stop in zip(words, numbers.tolist(), good.tolist(), stops.tolist(), strict=True):
        assert is_good == (is_plain(word) and stop >= 16)
        assert not is_good or number == int(word)


@given(st.lists(WORDS, max_size=12))
@example(["0.1", "0.3", "123456789012.345", "1.25", "999999999999999"])
@example(["1.", "2.", ".5", ".", "1.2.3"])
@example(["7.123456789012345", "0.00000000000001"])
@example(["0.000", ""])
def test_decimals_are_the_floats_that_python_reads(words: list[str]) -> None:
    raw, starts, stops = laid_out(words, "x" * 16)
    numbers, good = decimals(raw, starts, stops)
    for word, number, is_good in zip(words, numbers.tolist(), good.tolist(), strict=True):
        assert not is_good or (number.hex() == float(word).hex() and set(word) <= set("0123456789."))


def test_words_with_as_many_decimals_are_read_at_once() -> None:
    for words in (["1.5", "20.5", "999.9"], ["1795759277.123", "1.000"], ["5", "123456", "1795759277123"]):
        numbers: Floats
        numbers, good = decimals(*laid_out(words, "x" * 16))
        assert good.all()
        assert numbers.tolist() == [float(word) for word in words]
