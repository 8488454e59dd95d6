"""JSON texts as nasty as they come, for property tests, and what they mean."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st


def meaning(text: str | bytes) -> Any:
    """What a JSON text says. Numbers are decimal ones if they have more digits than a double tells, or are beyond it;
    values of different types are never equal, as True and 1 are in Python."""
    return _typed(json.loads(text, parse_int=_number, parse_float=_number))


def _number(text: str) -> Any:
    digits = text.lower().partition("e")[0].lstrip("-").replace(".", "").lstrip("0")
    exact = Decimal(text)
    integral = text.lstrip("-").isdigit()
    if integral or len(digits) > 17 or abs(exact) > Decimal("1.7e308") or (exact and abs(exact) < Decimal("1e-307")):
        return ("number", exact.normalize() if exact else Decimal(0))
    return ("number", Decimal(repr(float(text))).normalize() if exact else Decimal(0))


def _typed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _typed(member) for name, member in value.items()}
    if isinstance(value, list):
        return ["list", *map(_typed, value)]
    return (type(value).__name__, value)


NAMES = st.one_of(
    st.sampled_from(
        ["a", "b", "A", "level", "http", "a.b", "", "$rest", "$REST", 'q"', "back\\slash", "ü", "x y", "\0"]
    ),
    st.text(max_size=5),
)
_NASTY_NUMBERS = """
0 -0 -0.0 0.0 1 1.0 1e400 -1e400 1e-400 1000000000000000000000000000000 9223372036854775807 -9223372036854775808
9223372036854775808 -9223372036854775809 9007199254740993 9007199254740993.0 0.1 0.30000000000000004 1E5 1e+2 5e-324
0.1000000000000000055511151231257827 123456789012345678 123456789012345678e1 0.000000000000000001 12345678901234567
1.7976931348623157e308 0e999
"""
NUMBERS = st.one_of(
    st.sampled_from(_NASTY_NUMBERS.split()),
    st.integers(-(10**25), 10**25).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False, places=12).map(lambda number: f"{number:f}"),
)
STRINGS = st.one_of(
    st.text(max_size=8).map(json.dumps),
    st.text(max_size=8).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from([r'"\ud800"', r'"\udc00x"', r'"\ud83d\ude00"', r'"\/"', '""', '"null"', r'"\u0000"']),
)
SCALARS = st.one_of(NUMBERS, STRINGS, st.sampled_from(["null", "true", "false", "{}", "[]", "{ }", "[ {} ]"]))


def _join(members: list[tuple[str, str]], blank: str) -> str:
    return "{" + ",".join(f"{blank}{json.dumps(name)}{blank}:{blank}{value}" for name, value in members) + blank + "}"


VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]"),
        st.builds(_join, st.lists(st.tuples(NAMES, inner), max_size=5), st.sampled_from(["", " ", "\n\t"])),
    ),
    max_leaves=15,
)
