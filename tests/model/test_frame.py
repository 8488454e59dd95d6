from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.model.frame import ABSENT, LabelColumn, LabelFrame, empty_frame, used_values

LABEL_SETS = st.lists(st.dictionaries(st.sampled_from("abc"), st.sampled_from(["", "1", "2", "ü"]), max_size=3))


@given(LABEL_SETS)
def test_groups_are_the_distinct_label_sets_by_first_appearance(label_sets: list[dict[str, str]]) -> None:
    frame = LabelFrame.of(label_sets)
    group, first = frame.group()
    numbers: dict[tuple[tuple[str, str], ...], int] = {}
    firsts = []
    for row, labels in enumerate(label_sets):
        key = tuple(sorted((name, value) for name, value in labels.items() if value))
        if key not in numbers:
            firsts.append(row)
        assert group[row] == numbers.setdefault(key, len(numbers))
    assert first.tolist() == firsts


def test_many_wide_labels_do_not_overflow_the_key() -> None:
    label_sets = [{f"label{i}": f"{row % 997}" for i in range(12)} for row in range(2_000)]
    group, first = LabelFrame.of(label_sets).group()
    assert len(first) == 997
    assert group.tolist() == [row % 997 for row in range(2_000)]


def test_without_labels_all_rows_are_one_group() -> None:
    group, first = empty_frame(3).group()
    assert (group.tolist(), first.tolist()) == ([0, 0, 0], [0])
    assert [array.tolist() for array in empty_frame().group()] == [[], []]


@pytest.mark.parametrize("repeats", [1, 2, 10])  # few codes, and many
def test_a_dictionary_of_used_values_alone_means_the_same(repeats: int) -> None:
    values = pa.array([f"value {number}" for number in range(100)], pa.string())
    codes = np.array([7, ABSENT, 99, 7, 0, 12, ABSENT, 3] * repeats, np.int32)
    less, used = used_values(codes, values)
    assert used.to_pylist() == ["value 0", "value 3", "value 7", "value 12", "value 99"]
    before, after = LabelColumn(codes, values), LabelColumn(less, used)
    assert [after.text(row) for row in range(len(codes))] == [before.text(row) for row in range(len(codes))]
    assert less.dtype == np.int32


def test_without_a_used_value_there_is_none() -> None:
    for count in (0, 3, 100):
        codes, used = used_values(np.full(count, ABSENT, np.int32), pa.array(["a"], pa.string()))
        assert (codes.tolist(), len(used)) == ([ABSENT] * count, 0)
