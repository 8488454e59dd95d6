"""What delta_binary_packed promises beside being read by others, which test_output.py is about."""

from __future__ import annotations

import numpy as np
import pytest

from streamgauge.store.parquet.encodings import definition_levels, delta_binary_packed


def test_differences_take_whole_bytes() -> None:
    """A block of 128 in 2 miniblocks, 4 values from 7 on; the least difference, -2, and others by what is above it."""
    page = delta_binary_packed(np.array([7, 5, 8, 261]))
    assert page.hex() == "800102040e0308000005ff" + "00" * 61


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_equal_steps_take_no_bytes(dtype: type[np.signedinteger]) -> None:
    steps = np.arange(0, 60_000 * 1000, 1000, dtype)
    assert len(delta_binary_packed(steps)) < 1000


def test_a_page_is_cut_into_blocks_that_other_readers_take() -> None:
    """parquet-go refuses blocks of more than 65,536, cuDF miniblocks of more than 64."""
    page = delta_binary_packed(np.arange(98_304) % 7)
    assert page.startswith(bytes.fromhex("808004800880800600"))


def test_levels_are_one_run_where_all_rows_are_alike() -> None:
    assert definition_levels(np.ones(300, np.bool_)).hex() == "03000000d80401"
    assert definition_levels(np.zeros(300, np.bool_)).hex() == "03000000d80400"
    assert definition_levels(np.arange(10) % 2 == 1).hex() == "0300000005aa02"
