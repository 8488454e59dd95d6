import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from streamgauge.model.arrays import STALE_BITS
from streamgauge.store.decimals import from_stored, to_stored


def there_and_back(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    stored = to_stored(values, starts)
    assert len(stored.value) == len(stored.unscaled) == len(stored.scale) == len(values)
    return from_stored(stored.value, stored.unscaled, stored.scale)


def assert_same_bits(one: np.ndarray, other: np.ndarray) -> None:
    np.testing.assert_array_equal(one.view(np.int64), other.view(np.int64))


any_bits = hnp.arrays(np.int64, st.integers(1, 30), elements=st.integers(-(2**63), 2**63 - 1)).map(
    lambda bits: bits.view(np.float64)
)
decimals = hnp.arrays(np.int64, st.integers(1, 30), elements=st.integers(-(2**54), 2**54)).flatmap(
    lambda unscaled: st.integers(0, 17).map(lambda scale: unscaled / 10.0**scale)
)
doubles = hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(allow_nan=False))


@given(st.lists(st.one_of(any_bits, decimals, doubles), min_size=1, max_size=6))
def test_every_bit_comes_back(series: list[np.ndarray]) -> None:
    values = np.concatenate(series)
    starts = np.cumsum([0, *(len(part) for part in series[:-1])])
    assert_same_bits(there_and_back(values, starts), values)


@pytest.mark.parametrize(
    ("series", "scale"),
    [
        ([0.0, 1.0, -7.0, 2.0**53 - 1], 0),
        ([1795249928.452, 1795249929.0], 3),
        ([1.6437e-05, 0.25, 3.0], 9),
        ([0.1] * 50 + [0.123], 3),  # the rows that are looked at first would allow 1
        ([1e-15], 15),
    ],
)
def test_a_decimal_series_is_stored_at_its_smallest_scale(series: list[float], scale: int) -> None:
    stored = to_stored(np.array(series), np.array([0]))
    assert stored.value.null_count == len(series)
    assert stored.unscaled.null_count == 0
    assert set(stored.scale.tolist()) == {scale}
    assert stored.unscaled.to_pylist() == [round(value * 10**scale) for value in series]


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, -0.0, 1 / 3, 2.0**53, 5e-324, 1e300, 1e-16])
def test_one_value_that_is_no_decimal_number_keeps_its_series_as_doubles(odd: float) -> None:
    values = np.array([1.0, odd, 2.0, 7.0, 8.0])
    stored = to_stored(values, np.array([0, 3]))
    assert stored.value.is_valid().to_pylist() == [True, True, True, False, False]
    assert stored.unscaled.to_pylist() == [None, None, None, 7, 8]
    assert_same_bits(from_stored(stored.value, stored.unscaled, stored.scale), values)


def test_stale_markers_keep_their_bits() -> None:
    values = np.array([STALE_BITS, STALE_BITS], np.int64).view(np.float64)
    assert_same_bits(there_and_back(values, np.array([0, 1])), values)


def test_columns_that_hold_nothing_may_be_left_out() -> None:
    stored = to_stored(np.array([1.0, 2.0]), np.array([0]))
    assert from_stored(None, stored.unscaled, None).tolist() == [1, 2]
    stored = to_stored(np.array([1 / 3, 2.0]), np.array([0]))
    assert from_stored(stored.value, None, None).tolist() == [1 / 3, 2]


def test_slices_are_read_from_where_they_begin() -> None:
    stored = to_stored(np.array([1.0, 1 / 3, 3.0, 0.5]), np.array([0, 1, 2, 3]))
    back = from_stored(stored.value.slice(1), stored.unscaled.slice(1), stored.scale[1:])
    assert back.tolist() == [1 / 3, 3, 0.5]


def test_a_row_with_both_or_neither_is_an_error() -> None:
    stored = to_stored(np.array([1.0, 2.0]), np.array([0]))
    with pytest.raises(ValueError, match="2 rows have 0 values"):
        from_stored(stored.value, None, None)
    with pytest.raises(ValueError, match="2 rows have 4 values"):
        from_stored(stored.unscaled.cast("double"), stored.unscaled, stored.scale)


def test_a_scale_that_nobody_writes_is_an_error() -> None:
    stored = to_stored(np.array([1.0, 2.0]), np.array([0]))
    with pytest.raises(ValueError, match="a scale of 16"):
        from_stored(None, stored.unscaled, stored.scale + np.uint8(16))
