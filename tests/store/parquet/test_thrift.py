"""Thrift's compact protocol, against bytes worked out by hand from its specification."""

from __future__ import annotations

import pytest

from streamgauge.model.uleb128 import uleb128
from streamgauge.store.parquet.thrift import array, binary, flag, i8, i16, i32, i64, struct, text, zigzag


@pytest.mark.parametrize(
    ("number", "content"),
    [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (2**64 - 1, "ffffffffffffffffff01")],
)
def test_varints(number: int, content: str) -> None:
    assert uleb128(number).hex() == content


@pytest.mark.parametrize(
    ("number", "content"),
    [(0, "00"), (-1, "01"), (1, "02"), (-(2**63), "ffffffffffffffffff01"), (2**63 - 1, "feffffffffffffffff01")],
)
def test_small_numbers_of_either_sign_are_short(number: int, content: str) -> None:
    assert zigzag(number).hex() == content


def test_a_struct_has_each_field_by_its_distance_to_the_one_before() -> None:
    fields = {1: i32(-1), 2: None, 3: i64(1), 6: i16(2), 9: binary(b"ab"), 10: flag(True), 11: flag(False), 12: i8(-1)}
    assert struct(fields).content.hex() == "15012602340438026162111213ff00"


def test_structs_nest() -> None:
    assert struct({1: struct({}), 2: text("ü")}).content.hex() == "1c001802c3bc00"


def test_a_list_of_15_has_its_length_behind_the_first_byte() -> None:
    assert array([i32(1)] * 14).content.hex() == "e5" + "02" * 14
    assert array([i32(1)] * 15).content.hex() == "f50f" + "02" * 15
