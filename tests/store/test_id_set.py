"""Sets of series ids: as Python's own, in memory for what is in them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.model.arrays import UInt32s
from streamgauge.store.id_set import IdSet

ids = st.one_of(st.integers(0, 2000), st.integers(0, (1 << 24)), st.sampled_from([(1 << 24) + 255, (1 << 24) + 256]))
steps = st.lists(st.tuples(st.sampled_from(["add", "discard"]), st.lists(ids, max_size=8)), max_size=20)


def array(values: list[int]) -> UInt32s:
    return np.array(values, np.uint32)


@given(steps, st.lists(ids))
def test_it_is_a_set(steps: list[tuple[str, list[int]]], asked: list[int]) -> None:
    at_once, one_by_one, model = IdSet(), IdSet(), set[int]()
    for what, values in steps:
        if what == "add":
            at_once.add(array(values))
            model.update(values)
        else:
            at_once.discard(array(values))
            model.difference_update(values)
        for value in values:
            (one_by_one.add_one if what == "add" else one_by_one.discard_one)(value)
        asked = asked + values
    expected = [value in model for value in asked]
    assert at_once.contains(array(asked)).tolist() == expected
    assert one_by_one.contains(array(asked)).tolist() == expected


def test_the_last_id_there_can_be() -> None:
    found = IdSet()
    found.add(array([(1 << 32) - 1, 0]))
    assert found.contains(array([0, 1, (1 << 32) - 2, (1 << 32) - 1])).tolist() == [True, False, False, True]


def test_it_takes_memory_for_the_ids_in_it() -> None:
    """After a year of a million new series a day a flag for each that ever was would be 365 MB."""
    found = IdSet()
    found.add(np.arange(364_000_000, 365_000_000, dtype=np.uint32))
    found.add(array([7, 1_000_000]))
    assert found.nbytes < 15_000_000
