"""Conditions on fields, held against what they mean."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.errors import BadInput
from streamgauge.live.event_rows import EventRows
from streamgauge.live.filters import EventFilter, event_filter, parse_term
from streamgauge.live.messages import TEXT


def rows(*texts: str) -> EventRows:
    numbers = np.arange(len(texts))
    return EventRows(numbers, numbers, numbers, pa.array(texts, TEXT))


def fulfils(condition: str, text: str) -> bool:
    found, unchecked = rows(text).matching(event_filter([], [condition], []), None)
    assert unchecked == 0
    return len(found) == 1


@pytest.mark.parametrize(
    ("condition", "payload", "expected"),
    [
        ("a=1", '{"a":1.0}', True),
        ("a=1", '{"a":"1"}', True),
        ('a="1"', '{"a":1}', False),
        ('a="1"', '{"a":"1"}', True),
        ("a=true", '{"a":true}', True),
        ("a=1", '{"a":true}', False),
        ("a=null", '{"a":null}', True),
        ("a!=1", '{"b":1}', True),
        ("a!=1", '{"a":1}', False),
        ("a!=1", "[1]", True),
        ("a>9", '{"a":10}', True),
        ("a>9", '{"a":"10"}', False),
        ("a>b", '{"a":"c"}', True),
        ("a<=1e3", '{"a":1000}', True),
        ("a>0", '{"a":1e999}', True),
        ("a>0", '{"a":123456789012345678901234567890}', True),
        ("a>0", '{"a":true}', False),
        ("a.b=x", '{"a":{"b":"x"}}', True),
        ("a.b=x", '{"a.b":"x"}', True),
        ("a.b=x", '{"a":{"b":["x"]}}', False),
        ("a~^x+$", '{"a":"xx"}', True),
        ("a=~5..", '{"a":503}', True),
        ("a~.", '{"a":{"b":1}}', False),
        ("a!~x", '{"b":1}', True),
        ("level=ERROR", '{"\\u006cevel":"\\u0045RROR"}', True),
        ("level=ERROR", '{"text":"level\\": ERROR"}', False),
        ("é=ü", '{"\\u00e9":"\\u00fc"}', True),
        ('a="q\\"/"', '{"a":"q\\"\\/"}', True),
        ("a/b=x", '{"a\\/b":"x"}', True),
        ("a=", '{"a":""}', True),
        ("a = 1", '{"a":1}', True),
    ],
)
def test_a_condition_means_what_is_documented(condition: str, payload: str, expected: bool) -> None:
    assert fulfils(condition, payload) is expected


_NAMES = st.sampled_from(["a", "b", "a.b", "é", 'q"', "/"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.sampled_from(["", "x", "1", "é", "\\"]),
    lambda inner: st.dictionaries(_NAMES, inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=6,
)


@given(st.lists(_VALUES, min_size=1, max_size=5), st.sampled_from(["a", "b", "a.b", "é"]), st.booleans(), st.booleans())
def test_what_is_looked_for_before_parsing_loses_nothing(
    payloads: list[object], path: str, escaped: bool, negative: bool
) -> None:
    """The texts that a payload must have do not depend on how it was written."""
    texts = [json.dumps(payload, ensure_ascii=escaped) for payload in payloads]
    for value in ("x", "1", "é", "true"):
        wanted = EventFilter(terms=(parse_term(f"{path}{'!=' if negative else '='}{value}"),))
        found, _ = rows(*texts).matching(wanted, None)
        expected = [n for n, payload in enumerate(payloads) if _equal(payload, path, value) != negative]
        assert found.tolist() == expected


def _equal(payload: object, path: str, value: str) -> bool:
    """By the words of the documentation."""
    found = payload
    for member in path.split("."):
        if not isinstance(found, dict) or member not in found:
            found = payload.get(path) if isinstance(payload, dict) else None
            break
        found = found[member]
    if isinstance(found, bool):
        return value == str(found).lower()
    if isinstance(found, int | float):
        return value == "1" and found == 1
    return found == value


@pytest.mark.parametrize("text", ["", "level", "=x", "a b=1", ".a=1", "a..b=1", "a~[", 'a="x', "!=1"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"is no condition|regular expression|no JSON string"):
        parse_term(text)
