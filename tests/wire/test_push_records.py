"""Metrics found in columns are those that the plain decoder finds."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.testing.pushes import family, labels
from streamgauge.wire import metric_family_protobuf
from streamgauge.wire.metric_family import Histogram, Metric, MetricFamily, MetricType
from streamgauge.wire.push_records import digest, family_of, kinds_of, labels_of, matching, read_numbers, survey

T = TypeVar("T")
NOW = 1_700_000_000_000
KINDS = (MetricType.COUNTER, MetricType.GAUGE, MetricType.UNTYPED)
KIND_TAGS = {MetricType.COUNTER: 0x1A, MetricType.GAUGE: 0x12, MetricType.UNTYPED: 0x2A}


def finished(work: Generator[None, None, T]) -> T:
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: T = done.value
            return result


points = st.tuples(st.dictionaries(st.sampled_from("abc"), st.text(max_size=200), max_size=3), st.floats())
families = st.lists(st.tuples(st.sampled_from(["x", "y" * 200]), st.sampled_from(KINDS), st.lists(points, max_size=4)))


@given(families)
def test_metrics_are_found_with_their_values(drawn: list[tuple[str, MetricType, list[tuple[dict[str, str], float]]]]):
    pushed = [family(name, [(each, v, NOW + i) for i, (each, v) in enumerate(all_)], k) for name, k, all_ in drawn]
    body = metric_family_protobuf.encode(pushed)
    records = finished(survey(body))
    assert records is not None
    numbers = read_numbers(body, records.ends)
    assert numbers is not None
    metrics = [metric for each in pushed for metric in each.metrics]
    assert numbers.times.tolist() == [metric.timestamp for metric in metrics]
    assert np.array_equal(numbers.values, [metric.value for metric in metrics], equal_nan=True)
    assert records.first.tolist() == [at == 0 for each in pushed for at in range(len(each.metrics))]
    spelled: dict[tuple[str, MetricType, object], int] = {}
    for at, (one, metric) in enumerate([(each, metric) for each in pushed for metric in each.metrics]):
        start, end = records.starts[at], int(records.ends[at])
        messages = labels_of(body, start, end)
        assert messages is not None
        spelt = tuple(metric_family_protobuf.read_label(message, 0, len(message)) for message in messages)
        assert spelt == metric.labels
        head = metric_family_protobuf.decode_now(family_of(body, records.heads[at]))
        assert head == [MetricFamily(one.name, one.type, ())]
        assert metric.kind is not None
        assert kinds_of(body, records.ends)[at] == KIND_TAGS[metric.kind]
        found = int(records.hashes[at])
        assert spelled.setdefault((one.name, MetricType(one.type or 0), metric.labels), found) == found
    assert len(set(spelled.values())) == len(spelled)


def test_the_digest_changes_with_all_but_values_and_timestamps() -> None:
    def of(value: float, time: int, job: str = "a") -> tuple[int, np.ndarray]:
        body = metric_family_protobuf.encode([family("up", [(labels(job=job), value, time)])])
        records = finished(survey(body))
        assert records is not None
        return digest(body, records.ends), records.ends

    assert of(1.0, NOW)[0] == of(-2.5, NOW + 10**9)[0]
    assert of(1.0, NOW)[0] != of(1.0, NOW, "b")[0]


@pytest.mark.parametrize(
    "one",
    [
        MetricFamily("h", 4, (Metric(labels(), MetricType.HISTOGRAM, Histogram(1, 1.0), NOW),)),
        family("up", [(labels(), 1.0, None)]),
        family("up", [(labels(), 1.0, 1)]),
        family("up", [(labels(), 1.0, 1 << 45)]),
    ],
)
def test_what_has_another_form_is_left_to_the_plain_decoder(one: MetricFamily) -> None:
    body = metric_family_protobuf.encode([one])
    records = finished(survey(body))
    assert records is None or read_numbers(body, records.ends) is None


def test_a_metric_among_the_fields_of_its_family_does_not_hide() -> None:
    body = metric_family_protobuf.encode([family("up", [(labels(), 1.0, NOW)])])
    at = body.index(b"\x22")
    for spelling in (b"\xa2\x00", b"\xa2\x80\x00"):  # the same tag, longer than it has to be
        longer = body[:at] + spelling + body[at + 1 :]
        longer = bytes((longer[0] + len(spelling) - 1,)) + longer[1:]
        assert len(metric_family_protobuf.decode_now(longer)[0].metrics) == 1
        assert finished(survey(longer)) is None


@given(st.binary(max_size=60))
def test_bytes_that_are_nothing_do_no_harm(body: bytes) -> None:
    records = finished(survey(body))
    if records is not None and len(records):
        read_numbers(body, records.ends)


def test_rows_are_found_by_hashes() -> None:
    known, rows = np.array([-5, 3, 9], np.int64), np.array([7, 8, 9], np.uint32)
    assert matching(known, rows, np.array([9, 4, -5, 100, -100], np.int64)).tolist() == [9, -1, 7, -1, -1]
    assert matching(known[:0], rows[:0], known).tolist() == [-1, -1, -1]
