"""Rows are found whatever their order, and only by exactly their codes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.model.arrays import UInt32s
from streamgauge.wire.row_cache import UNKNOWN, RowCache

KNOWN = 3000


def rows_of(numbers: list[int], width: int = 3) -> UInt32s:
    return np.array([[number, *[7] * (width - 1)] for number in numbers], np.uint32)


def filled(width: int = 3) -> RowCache:
    cache = RowCache()
    for number, row in enumerate(rows_of(list(range(KNOWN)), width)):
        cache.put(row.tobytes(), number + 100)
    return cache


@given(st.lists(st.tuples(st.integers(0, KNOWN + 50), st.integers(1, 200)), min_size=1, max_size=20))
def test_stretches_jumps_and_strangers(stretches: list[tuple[int, int]]) -> None:
    numbers = [number for begin, length in stretches for number in range(begin, begin + length)]
    expected = [number + 100 if number < KNOWN else UNKNOWN for number in numbers]
    assert CACHE.ids_of(rows_of(numbers)).tolist() == expected


CACHE = filled()


@pytest.mark.parametrize("at", [0, 1, 31, 32, 33, 1999])
def test_a_row_that_differs_in_one_code_is_another(at: int) -> None:
    rows = rows_of(list(range(2000)))
    rows[at, 2] = 8
    ids = CACHE.ids_of(rows)
    assert ids[at] == UNKNOWN
    assert np.array_equal(np.delete(ids, at), np.delete(np.arange(2000) + 100, at))


def test_rows_of_another_width_are_others() -> None:
    cache = filled(width=4)
    assert (cache.ids_of(rows_of([0, 1])) == UNKNOWN).all()
    assert cache.ids_of(rows_of([0, 1], 4)).tolist() == [100, 101]


def test_the_old_generation_is_asked_row_by_row_and_goes_in_the_end() -> None:
    cache, first = filled(), rows_of([0])[0].tobytes()
    before = cache.size
    cache.rotate()
    assert (cache.ids_of(rows_of([0, 1])) == UNKNOWN).all()
    assert cache.get(first) == 100
    assert cache.ids_of(rows_of([0])).tolist() == [100]
    assert 0 < cache.size < before
    cache.rotate()
    cache.rotate()
    assert cache.get(first) is None
