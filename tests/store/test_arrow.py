"""Keys of more series than one Arrow array with 32-bit offsets can hold."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.store import arrow

parts_of_keys = st.lists(st.lists(st.binary(max_size=4), max_size=4), max_size=4)


@given(parts_of_keys, st.integers(0, 16), st.integers(0, 16))
def test_a_slice_of_keys_is_narrowed_to_what_it_holds(parts: list[list[bytes]], start: int, count: int) -> None:
    keys = arrow.keys_of([pa.array(part, pa.binary()) for part in parts])
    expected = [key for part in parts for key in part]
    assert keys.type == pa.large_binary(), "offsets of 64 bits"
    assert keys.to_pylist() == expected
    assert arrow.lengths(keys).tolist() == list(map(len, expected))
    some = arrow.narrow(keys[start : start + count])
    assert some.type == pa.binary()
    assert some.to_pylist() == expected[start : start + count]
    some.validate(full=True)
