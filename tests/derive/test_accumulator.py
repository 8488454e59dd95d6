"""What a rule counts, compared with a plain model of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.derive.accumulator import Accumulator, LeftOut
from streamgauge.derive.event_metrics import projection_of
from streamgauge.derive.rule import EventMetric, Kind
from streamgauge.live.event_rows import MAX_EVENT_BYTES, EventRows
from streamgauge.live.filters import event_filter
from streamgauge.model.events import EventBatch, Stream

LABELS = (("level", ("level",)), ("method", ("http", "method")))
BUCKETS = (0.5, 1.0, 2.0)
STREAM = Stream(1, 0, "http", "{}")


def rows_of(payloads: Sequence[Any], rule: EventMetric, whole: bool = False) -> EventRows:
    """whole: payloads are parsed whole, as where the fields of rules get into each other's way."""
    texts = [json.dumps(payload).encode() for payload in payloads]
    rows = EventRows.of([EventBatch(STREAM, 1, 0, pa.array(texts, pa.binary()))])
    return rows.slice(0, len(rows), None if whole else projection_of([rule]))


def samples(accumulator: Accumulator) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = accumulator.family().samples
    assert len({(name, labels) for name, labels, _ in found}) == len(found), "a series is there twice"
    return {(name, frozenset(labels)): value for name, labels, value in found}


def add(accumulator: Accumulator, *payloads: Any) -> LeftOut:
    return accumulator.add(rows_of(payloads, accumulator.rule))


levels = st.sampled_from(["info", "ERROR", "é", "", None, True, 7, 1.5, ["a"]])
numbers = st.one_of(
    st.integers(-3, 8), st.sampled_from([0.5, 1.5, 2.0, 10**400]), st.sampled_from(["1", None, True, {}])
)
requests = st.sampled_from([{"method": "GET"}, None])
events = st.one_of(
    st.fixed_dictionaries({}, optional={"level": levels, "http": requests, "n": numbers}),
    st.sampled_from([1, "text", None, []]),
)


def model(kind: Kind, payloads: Sequence[Any]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Of a rule for events whose level is not "info"."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for payload in payloads:
        members = payload if isinstance(payload, dict) else {}
        if members.get("level") == "info":
            continue
        level, http, number = members.get("level"), members.get("http"), members.get("n")
        spelled = level if isinstance(level, str) else json.dumps(level, separators=(",", ":"))
        pairs = [("level", "" if level is None else spelled), ("method", http["method"] if http else "")]
        labels = frozenset(pair for pair in pairs if pair[1])
        proper = isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < 1e300
        if kind is not Kind.COUNT and not proper:
            continue
        adds = [("m", labels, 1.0)]
        if kind is Kind.SUM:
            if number < 0:
                continue
            adds = [("m", labels, number)]
        elif kind is Kind.HISTOGRAM:
            adds = [("m_sum", labels, number), ("m_count", labels, 1.0)]
            for bound in (*BUCKETS, float("inf")):
                le = "+Inf" if bound == float("inf") else str(bound)
                adds.append(("m_bucket", labels | {("le", le)}, float(number <= bound)))
        for name, key, value in adds:
            found[name, key] = found.get((name, key), 0.0) + value
    return found


@given(st.sampled_from(Kind), st.lists(st.lists(events, min_size=1, max_size=20), max_size=4), st.booleans())
def test_counts_are_those_of_a_plain_model(kind: Kind, batches: list[list[Any]], whole: bool) -> None:
    where = event_filter((), ("level!=info",), ())
    value, buckets = ((), ()) if kind is Kind.COUNT else (("n",), BUCKETS if kind is Kind.HISTOGRAM else ())
    accumulator = Accumulator(EventMetric("m", kind, value, buckets, where, LABELS))
    for batch in batches:
        accumulator.add(rows_of(batch, accumulator.rule, whole))
    assert samples(accumulator) == model(kind, [event for batch in batches for event in batch])


def test_a_metric_without_labels_begins_at_zero() -> None:
    counter = Accumulator(EventMetric("m", Kind.COUNT))
    assert samples(counter) == {("m", frozenset()): 0.0}
    add(counter, 1, "two", None)
    assert samples(counter) == {("m", frozenset()): 3.0}


def test_what_is_no_number_and_what_would_shrink_a_sum_is_left_out_and_told() -> None:
    left_out = add(Accumulator(EventMetric("m", Kind.SUM, ("n",))), {"n": "3"}, {"n": True}, {}, {"n": -1}, {"n": 2})
    assert (left_out.reasons["no_number"], left_out.reasons["negative"]) == (3, 1)


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 5000, "9" * 4200, "1e999"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_number_beyond_all_doubles_is_none(number: str, whole: bool) -> None:
    total = EventMetric("m", Kind.SUM, ("n",))
    text = f'{{"n":{number}}}'.encode()
    rows = EventRows.of([EventBatch(STREAM, 1, 0, pa.array([text], pa.binary()))])
    rows = rows.slice(0, 1, None if whole else projection_of([total]))
    assert Accumulator(total).add(rows).reasons["no_number"] == 1
    labelled = Accumulator(EventMetric("m", Kind.COUNT, labels=(("n", ("n",)),)))
    labelled.add(rows)
    assert labelled.label_sets == 1


def test_rules_that_look_at_a_member_and_into_it_count_as_any() -> None:
    """Their payloads are parsed whole."""
    rules = [EventMetric("m", Kind.COUNT, labels=(("http", ("http",)), ("method", ("http", "method"))))]
    assert projection_of(rules) is None
    counter = Accumulator(rules[0])
    add(counter, {"http": {"method": "GET"}})
    assert samples(counter) == {("m", frozenset({("http", '{"method":"GET"}'), ("method", "GET")})): 1.0}


def test_label_sets_are_bounded_and_those_that_are_there_go_on() -> None:
    counter = Accumulator(EventMetric("m", Kind.COUNT, labels=(("user", ("user",)),)), label_sets=2)
    assert add(counter, {"user": "a"}, {"user": "b"}, {"user": "c"}, {"user": "d"}).label_sets == 2
    assert add(counter, {"user": "a"}).label_sets == 0
    assert samples(counter) == {("m", frozenset({("user", "a")})): 2.0, ("m", frozenset({("user", "b")})): 1.0}


def test_a_label_value_that_no_series_may_have_is_refused() -> None:
    counter = Accumulator(EventMetric("m", Kind.COUNT, labels=(("text", ("text",)),)))
    assert add(counter, {"text": "x" * 65_537}, {"text": "é" * 32_769}).label_sets == 2
    assert add(counter, {"text": "é" * 32_768}).label_sets == 0
    assert counter.label_sets == 1


def test_an_event_too_large_to_be_parsed_counts_only_where_nothing_in_it_is_asked_for() -> None:
    large = {"n": 1, "text": "x" * MAX_EVENT_BYTES}
    everything = Accumulator(EventMetric("m", Kind.COUNT))
    assert not +add(everything, large).reasons
    assert samples(everything) == {("m", frozenset()): 1.0}
    for rule in (
        EventMetric("m", Kind.SUM, ("n",)),
        EventMetric("m", Kind.COUNT, where=event_filter((), ("n=1",), ())),
    ):
        accumulator = Accumulator(rule)
        assert add(accumulator, large).reasons["too_large"] == 1
        assert samples(accumulator) == {("m", frozenset()): 0.0}
