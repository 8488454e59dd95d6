"""Who is bound to labels writes series that have them, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import BadInput, ForeignLabel
from streamgauge.ingest import bound as bindings
from streamgauge.ingest.admission import InFlight
from streamgauge.ingest.bound import Bindings, Bound, BoundSink
from streamgauge.ingest.bulk import BulkImport, BulkResult
from streamgauge.ingest.remote_write import RemoteWrite, Reply
from streamgauge.ingest.turns import Turns
from streamgauge.model.batch import Metadata
from streamgauge.model.labels import MAX_LABELS, key_of, labels_of
from streamgauge.model.sink import Sink
from streamgauge.stats import Stats
from streamgauge.testing import MemorySink
from streamgauge.testing.requests import V1, V2, Series, headers, snappy, v1, v2
from streamgauge.wire.sample_table import CONTENT_TYPE, SeriesRows, encode

A: Bound = (("team", "a"),)
B: Bound = (("team", "b"),)


def bound_labels(**labels: str) -> dict[str, str]:
    sink = MemorySink()
    return labels_of(sink.keys[BoundSink(sink, A).resolve(key_of(labels))])


def test_a_series_gets_the_label_that_it_lacks_and_keeps_the_one_that_it_has() -> None:
    assert bound_labels(__name__="up") == {"__name__": "up", "team": "a"}
    assert bound_labels(__name__="up", team="a", x="1") == {"__name__": "up", "team": "a", "x": "1"}


def test_labels_that_only_look_alike_are_others() -> None:
    cyrillic = "t\u0435am"
    labels = {"Team": "b", cyrillic: "b", "team ": "b", "team": "a"}
    assert bound_labels(**labels) == labels


@pytest.mark.parametrize("value", ["b", "A", "\u0430", "a ", "a\x00", "aa"])
def test_a_series_with_another_value_is_refused_by_label_and_value(value: str) -> None:
    with pytest.raises(ForeignLabel) as refused:
        bound_labels(__name__="up", team=value)
    assert refused.value.message == f'its label team is "{value}", and its sender may only write "a"'


def test_bound_to_several_labels_and_to_the_absence_of_one() -> None:
    sink = MemorySink()
    several = BoundSink(sink, (("env", ""), ("team", "a")))
    assert labels_of(sink.keys[several.resolve(key_of({"x": "1"}))]) == {"team": "a", "x": "1"}
    with pytest.raises(ForeignLabel, match="env"):
        several.resolve(key_of({"x": "1", "env": "prod"}))


def test_the_label_that_is_added_counts() -> None:
    with pytest.raises(BadInput, match="the limit is"):
        bound_labels(**{f"l{number}": "x" for number in range(MAX_LABELS)})


# ---- remote write and bulk import -----------------------------------------------------------------------------------


class Receivers:
    def __init__(self) -> None:
        self.sink = MemorySink()
        self.stats = Stats()
        inflight, clock = InFlight(1 << 26, self.stats), ManualClock(1_790_000_000_000)
        self.remote_write = RemoteWrite(self.sink, self.stats, clock, inflight, Turns())
        self.bulk = BulkImport(self.sink, self.stats, clock, inflight, Turns())

    def write(self, series: list[Series], bound: Bound, message: str = V1) -> Reply:
        body = snappy(v1(series) if message == V1 else v2(series))
        return asyncio.run(self.remote_write.receive(headers(message), _once(body), bound))

    def load(self, texts: list[str], bound: Bound) -> BulkResult:
        count = len(texts)
        rows = SeriesRows([text.encode() for text in texts], np.arange(count), np.arange(count), np.ones(count))
        body = encode(rows, [Metadata("up", "gauge", "Of one tenant.")])
        return asyncio.run(self.bulk.receive({"content-type": CONTENT_TYPE}, _once(body), bound))

    def metric(self, name: str) -> float:
        lines = self.stats.exposition().decode().splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


@pytest.mark.parametrize("message", [V1, V2])
def test_of_a_write_only_what_is_foreign_is_refused(message: str) -> None:
    receivers = Receivers()
    series = [
        Series({"__name__": "up"}, [(1, 1.0)]),
        Series({"__name__": "up", "team": "b"}, [(1, 2.0), (2, 2.0)]),
        Series([("__name__", "up"), ("team", "b"), ("team", "a")], [(1, 3.0)]),
        Series([("__name__", "up"), ("team", ""), ("x", "1")], [(1, 4.0)]),
    ]
    reply = receivers.write(series, A, message)
    assert reply.status == 400
    assert reply.body.splitlines() == [
        "2 samples were stored; 3 items were not: 2 foreign_label, 1 invalid_labels",
        'up{team="b"}: its label team is "b", and its sender may only write "a"',
        'up{team="b",team="a"}: label "team" occurs more than once in one series',
    ]
    assert receivers.sink.series() == [{"__name__": "up", "team": "a"}, {"__name__": "up", "team": "a", "x": "1"}]
    assert receivers.metric('streamgauge_refused_total{reason="foreign_label"') == 2


@pytest.mark.parametrize("message", [V1, V2])
def test_what_is_remembered_of_one_sender_never_stands_for_anothers_series(message: str) -> None:
    """The same bytes, again and again, by turns: as a cache from spellings to series sees them."""
    receivers = Receivers()
    series = [Series({"__name__": "up", "i": str(number)}, [(1, 1.0)]) for number in range(30)]
    for _ in range(3):
        for bound in (A, B, ()):
            assert receivers.write(series, bound, message).status == 204
    found = [labels.get("team") for labels in receivers.sink.series()]
    assert {team: found.count(team) for team in found} == {"a": 30, "b": 30, None: 30}
    assert len(receivers.sink.batches) == 9
    for at, batch in enumerate(receivers.sink.batches):
        teams = {labels_of(receivers.sink.keys[one]).get("team") for one in batch.series.tolist()}
        assert teams == {("a", "b", None)[at % 3]}


def test_an_import_is_bound_as_a_write_is() -> None:
    receivers = Receivers()
    for bound, team in ((A, "a"), (B, "b"), (A, "a"), ((), None)):
        result = receivers.load(["up", 'up{team="b"}', 'up{team="a"}'], bound)
        refused = [one.text for one in result.examples]
        assert result.stored == (3 if team is None else 2)
        assert len(refused) == (team is not None)
        teams = {labels_of(receivers.sink.keys[one]).get("team") for one in receivers.sink.batches[-1].series.tolist()}
        assert teams == ({"a", "b", None} if team is None else {team})
    assert result.as_json() == {"stored": 3, "refused": {}, "examples": []}
    again = receivers.load(['up{team="b"}'], A).as_json()
    assert again["refused"] == {"foreign_label": 1}
    [example] = again["examples"]  # type: ignore[misc]
    assert example["text"] == 'up{team="b"}: its label team is "b", and its sender may only write "a"'  # type: ignore[index]


def test_who_is_bound_describes_no_metric_to_others() -> None:
    receivers = Receivers()
    series = [Series({"__name__": "up"}, [(1, 1.0)], metadata=("gauge", "Of one tenant.", ""))]
    receivers.write(series, A, V2)
    receivers.load(["up"], A)
    assert receivers.sink.metadata == {}
    receivers.write(series, (), V2)
    assert receivers.sink.metadata["up"].help == "Of one tenant."


def test_series_that_are_pruned_are_resolved_anew_for_each_binding() -> None:
    receivers = Receivers()
    series = [Series({"__name__": "up"}, [(1, 1.0)])]
    for _ in range(2):
        for bound in (A, B, A):
            assert receivers.write(series, bound).status == 204
            assert receivers.load(["up"], bound).stored == 1
        receivers.sink.prune()


# ---- what is remembered ---------------------------------------------------------------------------------------------


class Memory:
    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.size = 0


def test_the_binding_that_was_not_used_for_longest_goes() -> None:
    kept = Bindings(MemorySink(), Memory, limit=100)
    first, second = kept.of(A), kept.of(B)
    for memory, bound, size in ((first, A, 60), (second, B, 40), (first, A, 60)):
        memory.size = size
        kept.used(bound)
    assert kept.of(B) is second
    assert kept.of(A) is first
    first.size = 61
    kept.used(A)
    assert kept.size == 61
    assert kept.of(A) is first
    assert kept.of(B) is not second


def test_there_are_only_so_many_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings, "MAX_BINDINGS", 3)
    kept = Bindings(MemorySink(), Memory, limit=100)
    memories = []
    for number in range(5):
        bound = (("team", str(number)),)
        memories.append(kept.of(bound))
        memories[-1].size = 10
        kept.used(bound)
    assert kept.size == 30
    assert kept.of((("team", "4"),)) is memories[4]
    assert kept.of((("team", "0"),)) is not memories[0]
