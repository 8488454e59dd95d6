"""A field that is read alone is what it is in the whole payload."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.live.fields import ABSENT, field_of
from streamgauge.live.projection import Projection
from streamgauge.wire.json_values import read_json

NAMES = st.sampled_from(["a", "b", "c", "a.b", "b.c", "a.b.c", "\u00e9"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
PATHS = [("a", "b", "c"), ("b", "c"), ("b", "a"), ("c",), ("a.b",), ("\u00e9",)]


@given(st.lists(VALUES, max_size=5), st.booleans())
def test_fields_are_those_of_the_whole_payload(payloads: list[Any], ascii_only: bool) -> None:
    texts = [json.dumps(payload, ensure_ascii=ascii_only) for payload in payloads]
    fields = Projection(PATHS).read(texts)
    for path in PATHS:
        assert fields.column(path) == [field_of(read_json(text), path) for text in texts]


def test_of_members_with_the_same_name_the_last_counts() -> None:
    text = '{"a":{"b":1},"a":{"b":2},"b":3}'
    assert Projection([("a", "b")]).read([text]).column(("a", "b")) == [field_of(read_json(text), ("a", "b"))] == [2]


def test_what_is_absent_is_not_null() -> None:
    fields = Projection([("a",), ("b", "c")]).read(['{"a":null,"b":null}', "{}", "1", '{"b.c":null}'])
    assert fields.column(("a",)) == [None, ABSENT, ABSENT, ABSENT]
    assert fields.column(("b", "c")) == [ABSENT, ABSENT, ABSENT, None]


@pytest.mark.parametrize("paths", [[("a",), ("a", "b")], [("a", "b", "c"), ("a", "b")], [('a"',)], [("a", "b\\")]])
def test_paths_that_cannot_be_read_together_are_refused(paths: list[tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match=r"path|name"):
        Projection(paths)
