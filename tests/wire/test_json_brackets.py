"""A long value is checked part by part: what passes is a value, and what is one passes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamgauge.testing.thorough import examples
from streamgauge.wire import json_brackets, json_values
from streamgauge.wire.json_brackets import Brackets, Cut
from streamgauge.wire.json_values import JsonValues, one

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.floats(-9, 9) | st.text('ab,[]{}:"\\ é', max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('a,"]', max_size=2), inner, max_size=4),
    max_leaves=25,
)
SPACING = st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :")])
CHANGES = st.lists(st.tuples(st.integers(0, 200), st.sampled_from([*'[]{},:" \\0tn', ""])), max_size=2)


@pytest.fixture(autouse=True, scope="module")
def small_steps() -> Iterator[None]:
    """Whatever is longer than some bytes is long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_brackets, "STRIDE", 6)
        patch.setattr(json_values, "_PART", 5)
        patch.setattr(json_values, "_HELD", 0)
        patch.setattr(json_values, "_SHORT", 4)
        yield


def changed(text: str, changes: list[tuple[int, str]]) -> str:
    for at, by in changes:
        at %= len(text)
        text = text[:at] + by + text[at + 1 :]
    return text


def is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse)
    except ValueError:
        return False
    return True


def _refuse(name: str) -> None:
    raise ValueError(name)


def surely(text: bytes) -> bool:
    return json_values._is_well(text)


@settings(max_examples=examples(120), deadline=None)
@given(VALUES, SPACING, CHANGES)
@example([1, 2, 3, 4, 5], (",", ":"), [(9, ",")])
@example([[1, 2], [3, 4], [5, 6]], (",", ":"), [(12, "}")])
@example({"a": {"b": [1, 2, 3, {"c": 4}]}, "d": 5}, (",", ":"), [(25, "]")])
def test_what_passes_is_a_value(value: object, separators: tuple[str, str], changes: list[tuple[int, str]]) -> None:
    text = changed(json.dumps(value, separators=separators, ensure_ascii=False), changes)
    if surely(text.encode()):
        assert is_json(text)
    whole = one(text.encode())
    assert (whole is not None) == is_json(text)
    values = JsonValues(1 << 20)
    found = values.feed(text.encode()[:7]).to_pylist()
    for at in range(7, len(text.encode()), 11):
        found += values.feed(text.encode()[at : at + 11]).to_pylist()
    found += values.finish().to_pylist()
    if is_json(text):
        assert found == [text.strip().encode()]
        assert values.stop is None


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(VALUES, min_size=3, max_size=9), SPACING)
def test_what_is_a_value_passes(value: list[object], separators: tuple[str, str]) -> None:
    text = json.dumps(value, separators=separators)
    if len(text) > 40:  # so long that it was cut
        assert surely(text.encode())


def test_a_cut_is_where_the_fewest_brackets_are_open() -> None:
    brackets = Brackets()
    brackets.follow(b'{"a":[[1,2],')
    brackets.follow(b'{"b":3,"c":4}],"d":5}')
    assert [(cut.at, cut.openers, cut.closers) for cut in brackets.cuts] == [
        (12, b'{"":[', b"]}"),
        (27, b"{", b"}"),
    ]


def test_what_is_open_is_closed_in_its_order() -> None:
    assert Cut.within(7, b"{[{") == Cut(7, b'{"":[{', b"}]}")


def test_without_commas_nothing_is_cut() -> None:
    brackets = Brackets()
    for piece in (b'["', b"x,y" * 100, b'"', b"]"):
        brackets.follow(piece)
    assert brackets.cuts == []
