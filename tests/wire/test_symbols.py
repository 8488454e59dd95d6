"""Symbols are cut out many at a time, and a stretch of them is known again as a whole: exactly as one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.wire.symbols import TAG, SymbolCache, SymbolOrder, short_symbols, spelled, text_of

TEXTS = st.lists(st.one_of(st.binary(max_size=6), st.sampled_from([b'"', b'a"b', b"x" * 127, b"y" * 128, b"z" * 300])))
BEHIND = st.sampled_from([b"", b"*", b"*\x00", b'"', b'"\x05ab', b"* and more"])


def table(texts: list[bytes]) -> bytes:
    return b"".join(TAG + spelled(text) for text in texts)


@given(st.binary(max_size=400))
def test_a_spelling_is_a_size_and_a_text(text: bytes) -> None:
    assert text_of(spelled(text)) == text
    assert len(spelled(text)) == len(text) + (1 if len(text) < 128 else 2)


@given(TEXTS.filter(bool), BEHIND, st.sampled_from([1, 2, 16, 1000]))
def test_what_is_cut_out_is_the_beginning_of_the_table(texts: list[bytes], behind: bytes, most: int) -> None:
    data = table(texts) + behind
    found, at = short_symbols(data, 0, most)
    assert len(found) <= most
    assert data[:at] == b"".join(TAG + spelling for spelling in found)
    assert [text_of(spelling) for spelling in found] == texts[: len(found)]
    if all(len(text) < 60 and b'"' not in text for text in texts):
        assert len(found) == min(most, len(texts)), "nothing stands in the way"


@pytest.mark.parametrize("count", [1, 5, 500, 20_000])
@pytest.mark.parametrize("behind", [b"", b"*\x00", TAG + spelled(b"new"), TAG + b"\x09cut"])
def test_a_stretch_ends_where_the_tables_differ(count: int, behind: bytes) -> None:
    order = SymbolOrder()
    texts = [b"symbol %d" % number for number in range(20_010)]
    for code, text in enumerate(texts):
        order.add(spelled(text), code)
    data = table(texts[3 : 3 + count])
    assert order.stretch(data + behind, 0, 3) == (count, len(data))
    assert order.stretch(b"??" + data + behind, 2, 3) == (count, 2 + len(data))
    assert order.stretch(data, 0, 4) == (0, 0)
    assert order.stretch(data, 0, len(texts)) == (0, 0)
    assert order.spelling(3) == spelled(b"symbol 3")


def test_a_symbol_keeps_its_code_when_it_moves_to_the_next_generation() -> None:
    cache = SymbolCache()
    assert [cache.code(b"\x01a", 5), cache.code(b"\x01b", 6)] == [5, 6]
    cache.rotate()
    assert cache.size == 0
    assert [cache.code(b"\x01b", 7), cache.code(b"\x01c", 7)] == [6, 7]
    assert cache.young.codes == [6, 7]
    cache.rotate()
    cache.rotate()
    assert cache.code(b"\x01b", 8) == 8
