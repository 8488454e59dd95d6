from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamgauge.model.frame import LabelFrame, empty_frame

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
