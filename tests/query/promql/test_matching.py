"""Binary operators between vectors against a model that goes step by step and series by series."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.errors import QueryFailed
from streamgauge.model.frame import LabelFrame
from streamgauge.model.source import NoMeter
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.promql.binary import binary
from streamgauge.query.promql.nodes import Binary, Cardinality, Matching
from streamgauge.query.promql.parser import parse
from streamgauge.query.promql.steps import Steps
from streamgauge.query.promql.values import InstantVector, no_names
from streamgauge.testing.thorough import examples

Labels = dict[str, str]
Sample = tuple[Labels, float]
WIDTH = 3
NAME = "__name__"
COMPUTE: dict[str, Callable[[float, float], float]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}
COMPARE: dict[str, Callable[[float, float], bool]] = {">": operator.gt, "==": operator.eq, "<=": operator.le}
MATCHINGS = ["", "on (a)", "on (a, b)", "ignoring (b)", "ignoring (c)", "on ()"]
GROUPS = ["", "group_left ()", "group_left (c)", "group_right ()", "group_right (b, c)"]
FILLS = ["", "fill (7)", "fill_left (7)", "fill_right (7)"]


class Refused(Exception):
    pass


def key(labels: Labels) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in labels.items() if value))


def matched(labels: Labels, matching: Matching) -> Labels:
    if matching.on:
        return {name: labels[name] for name in matching.labels if name in labels}
    return {name: value for name, value in labels.items() if name not in matching.labels and name != NAME}


def model(node: Binary, lhs: list[Sample], rhs: list[Sample]) -> dict[tuple[tuple[str, str], ...], float]:
    matching = node.matching
    assert matching is not None
    if node.op in ("and", "or", "unless"):
        left, right = ({key(matched(labels, matching)) for labels, _ in side} for side in (lhs, rhs))
        if node.op == "or":
            chosen = lhs + [sample for sample in rhs if key(matched(sample[0], matching)) not in left]
        else:
            chosen = [s for s in lhs if (key(matched(s[0], matching)) in right) == (node.op == "and")]
        return unique([(key(labels), value) for labels, value in chosen])
    fills = matching.fill_left, matching.fill_right
    if (not lhs and not rhs) or (not (lhs and rhs) and fills == (None, None)):
        return {}
    swapped = matching.cardinality is Cardinality.ONE_TO_MANY
    many, one = (rhs, lhs) if swapped else (lhs, rhs)
    ones = unique([(key(matched(labels, matching)), (labels, value)) for labels, value in one])
    pairs: list[tuple[Labels, float, Labels, float]] = []
    for labels, value in many:
        if partner := ones.get(key(matched(labels, matching))):
            pairs.append((labels, value, *partner))
        elif matching.fill_right is not None:
            pairs.append((labels, value, matched(labels, matching), matching.fill_right))
    taken = {key(matched(labels, matching)) for labels, _ in many}
    if matching.fill_left is not None:
        for signature, (labels, value) in ones.items():
            if signature not in taken:
                pairs.append((matched(labels, matching), matching.fill_left, labels, value))
    result = []
    for many_labels, many_value, one_labels, one_value in pairs:
        labels = dict(many_labels)
        if node.op in COMPUTE:
            labels.pop(NAME, None)
        if matching.cardinality is Cardinality.ONE_TO_ONE:
            labels = {n: v for n, v in labels.items() if (n in matching.labels) == matching.on}
        for name in matching.include:
            labels[name] = one_labels.get(name, "")
        left, right = (one_value, many_value) if swapped else (many_value, one_value)
        result.append((labels, left, right))
    check_unique(result, matching)
    if node.op in COMPUTE:
        return {key(labels): COMPUTE[node.op](left, right) for labels, left, right in result}
    held = [(labels, left, COMPARE[node.op](left, right)) for labels, left, right in result]
    if node.return_bool:
        return {key(labels): float(holds) for labels, _, holds in held}
    return {key(labels): left for labels, left, holds in held if holds}


def check_unique(result: list[tuple[Labels, float, float]], matching: Matching) -> None:
    ignored = {NAME} if matching.cardinality is Cardinality.ONE_TO_ONE and not matching.on else set()
    keys = [key({name: value for name, value in labels.items() if name not in ignored}) for labels, _, _ in result]
    if len(set(keys)) < len(keys):
        raise Refused


def unique(pairs: list) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Refused
    return found


@st.composite
def vectors(draw: st.DrawFn, name: str) -> InstantVector:
    labels = st.fixed_dictionaries({}, optional={label: st.sampled_from(["1", "2"]) for label in ("a", "b", "c")}).map(
        lambda given: {**given, NAME: name}
    )
    rows = draw(st.lists(labels, max_size=6, unique_by=lambda given: tuple(sorted(given.items()))))
    size = len(rows) * WIDTH
    values = np.array(draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)), np.float64)
    present = np.array(draw(st.lists(st.sampled_from([True, False, False]), min_size=size, max_size=size)), np.bool_)
    steps = Steps(values.reshape(-1, WIDTH), present.reshape(-1, WIDTH))
    return InstantVector(LabelFrame.of(rows), steps, no_names(len(rows)))


def at(vector: InstantVector, step: int) -> list[Sample]:
    rows = np.flatnonzero(vector.steps.present[:, step]).tolist()
    return [(vector.labels.labels(row), float(vector.steps.values[row, step])) for row in rows]


@settings(max_examples=examples(300), deadline=None)
@given(
    lhs=vectors("l"),
    rhs=vectors("r"),
    op=st.sampled_from(["+", "-", "*", ">", "==", "<= bool", "and", "or", "unless"]),
    matching=st.sampled_from(MATCHINGS),
    group=st.sampled_from(GROUPS),
    fill=st.sampled_from(FILLS),
)
def test_matching(lhs: InstantVector, rhs: InstantVector, op: str, matching: str, group: str, fill: str) -> None:
    if op in ("and", "or", "unless"):
        group = fill = ""
    if group and not matching:
        matching = "ignoring ()"
    if group:
        included = set(group.partition("(")[2].strip(")").replace(" ", "").split(","))
        on = set(matching.partition("(")[2].strip(")").replace(" ", "").split(","))
        if matching.startswith("on") and included & on - {""}:
            return
    node = parse(f"l {op} {matching} {group} {fill} r")
    assert isinstance(node, Binary)
    try:
        want = [model(node, at(lhs, step), at(rhs, step)) for step in range(WIDTH)]
    except Refused:
        with pytest.raises(QueryFailed):
            binary(node, lhs, rhs, NoMeter())
        return
    result = binary(node, lhs, rhs, NoMeter())
    assert isinstance(result, InstantVector)
    for step in range(WIDTH):
        assert {key(labels): value for labels, value in at(result, step)} == want[step]


def one(labels: list[Labels], values: list[float]) -> InstantVector:
    column = np.array(values)[:, None]
    return InstantVector(LabelFrame.of(labels), Steps(column, np.ones_like(column, np.bool_)), no_names(len(labels)))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            "l * on (a) r",
            'found duplicate series for the match group {a="1"} on the right hand-side of the operation: '
            '[r{a="1", b="1"}, r{a="1", b="2"}]; many-to-many matching not allowed',
        ),
        (
            "r * on (a) l",
            r"multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
        ),
        ("l * on (a) group_left (b) r", "on the right hand-side"),
        ("r * on (a) group_right (b) l", "on the left hand-side"),
        ("n * on (a) group_left () l", "multiple matches for labels: grouping labels must ensure unique matches"),
    ],
)
def test_what_clashes_is_named(query: str, message: str) -> None:
    sides = {
        "l": one([{NAME: "l", "a": "1"}], [1.0]),
        "r": one([{NAME: "r", "a": "1", "b": "1"}, {NAME: "r", "a": "1", "b": "2"}], [1.0, 2.0]),
        "n": one([{NAME: "n", "a": "1"}, {NAME: "o", "a": "1"}], [1.0, 2.0]),
    }
    node = parse(query)
    assert isinstance(node, Binary)
    with pytest.raises(QueryFailed) as refused:
        binary(node, sides[query[0]], sides[query[-1]], NoMeter())
    assert message in refused.value.message


def test_series_that_take_turns_do_not_clash() -> None:
    taking_turns = Steps(np.array([[1.0, 0], [0, 2.0]]), np.array([[True, False], [False, True]]))
    always = Steps(np.array([[10.0, 10.0]]), np.ones((1, 2), np.bool_))
    turns = InstantVector(LabelFrame.of([{"a": "1", "b": "x"}, {"a": "1", "b": "y"}]), taking_turns, no_names(2))
    steady = InstantVector(LabelFrame.of([{"a": "1"}]), always, no_names(1))
    node = parse("l + on (a) r")
    assert isinstance(node, Binary)
    result = binary(node, steady, turns, NoMeter())
    assert isinstance(result, InstantVector)
    assert result.steps.values.tolist() == [[11.0, 12.0]]


def test_many_pairs_are_paid_for_before_they_are_made() -> None:
    turns = InstantVector(
        LabelFrame.of([{"a": "1", "b": str(i)} for i in range(50)]),
        Steps(np.ones((50, 50)), np.eye(50, dtype=np.bool_)),
        no_names(50),
    )
    steady = InstantVector(
        LabelFrame.of([{"a": "1", "c": str(i)} for i in range(50)]),
        Steps(np.ones((50, 50)), np.ones((50, 50), np.bool_)),
        no_names(50),
    )
    node = parse("l + on (a) group_left (b) r")
    assert isinstance(node, Binary)
    with pytest.raises(QueryFailed, match="needs more than 100000 samples"):
        binary(node, steady, turns, Budget(Limits(samples=100_000)))
