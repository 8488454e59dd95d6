import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.wire.byte_search import places_of


@given(st.binary(max_size=200), st.lists(st.integers(0, 199), max_size=8), st.integers(0, 7))
def test_all_places_are_found(text: bytes, places: list[int], start: int) -> None:
    raw = np.frombuffer(text, np.uint8).copy()
    raw[[place for place in places if place < len(raw)]] = 10
    assert places_of(10, raw[start:]).tolist() == np.flatnonzero(raw[start:] == 10).tolist()


@given(st.integers(0, 40), st.integers(1, 30))
def test_lines_of_one_length(lines: int, length: int) -> None:
    raw = np.frombuffer((b"a" * length + b"\n") * lines, np.uint8)
    assert places_of(10, raw).tolist() == [(line + 1) * (length + 1) - 1 for line in range(lines)]
