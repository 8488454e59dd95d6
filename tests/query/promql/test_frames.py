from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.model.frame import LabelColumn, LabelFrame
from streamgauge.query.promql.frames import compact, concat, drop_names, encode, fractions, order

SETS = st.lists(
    st.dictionaries(st.sampled_from(["a", "b", "c", "Z"]), st.sampled_from(["1", "2", "10", "ß"]), max_size=4)
)


@settings(deadline=None)
@given(SETS)
def test_order_is_that_of_the_sorted_pairs(label_sets: list[dict[str, str]]) -> None:
    frame = LabelFrame.of(label_sets)
    got = [sorted(frame.labels(row).items()) for row in order(frame).tolist()]
    assert got == sorted(sorted(labels.items()) for labels in label_sets)


@settings(deadline=None)
@given(st.lists(SETS, min_size=1, max_size=3))
def test_frames_under_each_other_keep_their_labels(parts: list[list[dict[str, str]]]) -> None:
    assert list(concat([LabelFrame.of(part) for part in parts])) == [
        dict(sorted(one.items())) for part in parts for one in part
    ]


def test_frames_that_share_dictionaries_go_on_sharing_them() -> None:
    frame = LabelFrame.of([{"a": "1"}, {"a": "2"}])
    both = concat([frame.take(np.array([1])), frame])
    assert both.columns["a"].values is frame.columns["a"].values
    assert [labels["a"] for labels in both] == ["2", "1", "2"]


def test_a_dictionary_shrinks_to_what_is_used() -> None:
    column = LabelColumn(np.array([500, -1, 3, 500], np.int32), pa.array([str(i) for i in range(1_000)]))
    small = compact(column)
    assert small.values.to_pylist() == ["3", "500"]
    assert [small.text(row) for row in range(4)] == ["500", "", "3", "500"]


def test_an_empty_text_is_an_absent_label() -> None:
    column = encode(pa.array(["x", "", "y", "x"]))
    assert [column.text(row) for row in range(4)] == ["x", "", "y", "x"]
    assert "" not in column.values.to_pylist()


def test_a_name_goes_together_with_what_describes_it() -> None:
    frame = LabelFrame.of([{"__name__": "m", "__type__": "counter", "__unit__": "s", "a": "1"}] * 2)
    dropped = drop_names(frame, np.array([True, False]))
    assert dropped.labels(0) == {"a": "1"}
    assert len(dropped.labels(1)) == 4


def test_fractions_depend_on_the_labels_alone() -> None:
    sets = [{"a": "1", "b": "2"}, {"b": "1", "a": "2"}, {"a": "1"}, {}]
    some, others = fractions(LabelFrame.of(sets)), fractions(LabelFrame.of([{"c": "x"}, *reversed(sets)]))
    assert some.tolist() == others[:0:-1].tolist()
    assert len(set(some.tolist())) == 4
    assert ((some >= 0) & (some < 1)).all()
