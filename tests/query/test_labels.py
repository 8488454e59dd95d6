"""Labels of few series are spelled one by one, those of many all at once, and in the same way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.model.frame import LabelFrame
from streamgauge.query.encode import _escaped
from streamgauge.query.federate import _label_values
from streamgauge.query.labels import _FEWEST_ROWS, LabelTexts, ValueSpelling

TEXTS = st.text('ab"\\\n\xe9\u20ac', min_size=1, max_size=4)
LABELS = st.dictionaries(st.sampled_from(["a", "b", "instance"]), TEXTS, max_size=3)


@pytest.mark.parametrize("value", [_escaped, _label_values])
@given(
    st.lists(LABELS, min_size=1, max_size=_FEWEST_ROWS), st.sampled_from([{}, {"instance": ""}, {"b": "x", "z": '"'}])
)
def test_few_rows_are_spelled_as_many_are(
    value: ValueSpelling, rows: list[dict[str, str]], defaults: dict[str, str]
) -> None:
    times = _FEWEST_ROWS // len(rows) + 1
    few = LabelTexts(LabelFrame.of(rows), lambda name: f"{name}=", value, defaults)
    many = LabelTexts(LabelFrame.of(rows * times), lambda name: f"{name}=", value, defaults)
    assert few.rows(0, len(rows)).to_pylist() * times == many.rows(0, len(rows) * times).to_pylist()
    assert few.rows(1, len(rows)).to_pylist() == many.rows(1, len(rows)).to_pylist()
    commas = few.sizes() - many.sizes()[: len(rows)]
    assert commas.tolist() == [max(len({**defaults, **row}) - 1, 0) for row in rows]
