"""The receiver of samples in bulk, transport aside: what is stored, what is refused, and whom it lets go first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import (
    BadInput,
    IndexFull,
    LabelFull,
    MetricFull,
    Overloaded,
    ReadOnly,
    StreamgaugeError,
    TooLarge,
    UnsupportedMedia,
)
from streamgauge.ingest.admission import InFlight, Limits
from streamgauge.ingest.bulk import APPEND_ROWS, BulkImport, BulkResult
from streamgauge.ingest.turns import Turns
from streamgauge.model.batch import Metadata
from streamgauge.model.labels import key_of
from streamgauge.stats import Stats
from streamgauge.store.jobs import series_without_data
from streamgauge.testing import MemorySink
from streamgauge.testing.lives import NOON, batch_of, content, opened
from streamgauge.wire.exposition_text import MAX_READ_LABELS
from streamgauge.wire.findings import MAX_EXAMPLES, Reason
from streamgauge.wire.sample_table import CONTENT_TYPE, SeriesRows, SeriesTexts, encode
from streamgauge.wire.series_text import MAX_TEXT_BYTES

HEADERS = {"content-type": CONTENT_TYPE}


def rows(texts: list[str], codes: list[int], times: list[int] | None = None) -> SeriesRows:
    count = len(codes)
    at = np.array(times if times is not None else range(count), np.int64)
    return SeriesRows([text.encode() for text in texts], np.array(codes, np.int64), at, np.arange(count, dtype=float))


class Receiver:
    """A receiver on a sink, and everything that it counts."""

    def __init__(self, sink: MemorySink, limits: Limits | None = None) -> None:
        self.sink = sink
        self.stats = Stats()
        self.inflight = InFlight((limits or Limits()).inflight, self.stats)
        self.bulk = BulkImport(sink, self.stats, ManualClock(), self.inflight, Turns(), limits)

    def receive(self, body: bytes, headers: Mapping[str, str] = HEADERS) -> BulkResult:
        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 1 << 16):
                yield body[start : start + (1 << 16)]

        return asyncio.run(self.bulk.receive(headers, chunks()))

    def count(self, name: str) -> float:
        lines = self.stats.exposition().decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0.0)


def test_samples_and_metadata_are_stored() -> None:
    receiver = Receiver(MemorySink())
    body = encode(rows(['a{x="1"}', "b"], [0, 1, 0], [5, 6, 7]), [Metadata("a", "gauge", "Some.", "")])
    result = receiver.receive(body)
    assert result.as_json() == {"stored": 3, "refused": {}, "examples": []}
    assert receiver.sink.samples(__name__="a", x="1") == [(5, 0.0), (7, 2.0)]
    assert receiver.sink.samples(__name__="b") == [(6, 1.0)]
    assert receiver.sink.metadata == {"a": Metadata("a", "gauge", "Some.", "")}
    assert receiver.count('streamgauge_ingested_samples_total{source="import"}') == 3
    assert receiver.count("streamgauge_ingest_inflight_bytes") == 0


def test_the_good_part_is_kept_and_the_rest_named_by_row() -> None:
    receiver = Receiver(MemorySink(window=(100, 200)))
    texts = ["a", "no series", 'b{x="1",x="2"}']
    result = receiver.receive(encode(rows(texts, [0, 1, 0, 2, 0, 0, 1], [100, 150, 99, 150, 201, 200, 150])))
    assert receiver.sink.samples(__name__="a") == [(100, 0.0), (200, 5.0)]
    shown = result.as_json()
    assert (shown["stored"], shown["refused"]) == (2, {"invalid_labels": 3, "too_new": 1, "too_old": 1})
    examples = {(example.reason, example.row): example.text for example in result.examples}
    assert set(examples) == {(Reason.LABELS, 1), (Reason.LABELS, 3), (Reason.TOO_OLD, 2), (Reason.TOO_NEW, 4)}
    assert "--retention" in examples[Reason.TOO_OLD, 2]
    assert "time 99 ms" in examples[Reason.TOO_OLD, 2]
    assert receiver.count('streamgauge_refused_total{reason="invalid_labels",source="import"}') == 3


def test_examples_are_few_of_each_reason() -> None:
    receiver = Receiver(MemorySink(window=(0, 1 << 60)))
    texts = [f"bad {number}" for number in range(50)]
    result = receiver.receive(encode(rows([*texts, "a"], [*range(50), 50], [*range(50), -1])))
    assert result.findings.refused == {Reason.LABELS: 50, Reason.TOO_OLD: 1}
    assert [example.row for example in result.examples] == [*range(MAX_EXAMPLES), 50]


def test_a_text_that_is_too_long_to_parse_is_refused_and_the_rest_stored() -> None:
    receiver = Receiver(MemorySink())
    long = "{" + 'a="",' * (MAX_TEXT_BYTES // 4) + "}"
    many = "{" + 'a="",' * (MAX_READ_LABELS + 2) + "}"
    result = receiver.receive(encode(rows([long, many, "a"], [0, 1, 0, 2])))
    assert (result.stored, result.findings.refused) == (1, {Reason.LABELS: 3})
    assert f"the limit is {MAX_TEXT_BYTES}" in result.examples[0].text
    assert f"more than {MAX_READ_LABELS} labels" in result.examples[1].text


def test_long_texts_take_a_turn_each() -> None:
    receiver = Receiver(MemorySink())
    turns = 0

    class Counted(Turns):
        async def take(self, step: Callable[[], Any]) -> Any:
            nonlocal turns
            turns += 1
            return await super().take(step)

    receiver.bulk = BulkImport(receiver.sink, receiver.stats, ManualClock(), receiver.inflight, Counted())
    value = "x" * 60_000
    receiver.receive(encode(rows([f'a{{n="{number}",x="{value}"}}' for number in range(8)], list(range(8)))))
    assert turns == 8


def test_rows_keep_their_numbers_beyond_one_append() -> None:
    receiver = Receiver(MemorySink(window=(0, 1 << 60)))
    count = 2 * APPEND_ROWS + 10
    times = list(range(count))
    times[-1] = times[APPEND_ROWS] = -1
    result = receiver.receive(encode(rows(["a", "b"], [0, 1] * (count // 2), times)))
    assert result.stored == count - 2
    assert receiver.sink.appends == 3
    assert [example.row for example in result.examples] == [APPEND_ROWS, count - 1]


@pytest.mark.parametrize(
    ("full", "reason"),
    [
        (IndexFull, Reason.SERIES_LIMIT),
        (MetricFull, Reason.METRIC_LIMIT),
        (LabelFull, Reason.LABEL_LIMIT),
    ],
)
def test_a_full_index_refuses_new_series_alone(full: type[IndexFull], reason: Reason) -> None:
    receiver = Receiver(MemorySink())
    receiver.receive(encode(rows(["a"], [0])))
    receiver.sink.refuse_series = full("there is no room")
    result = receiver.receive(encode(rows(["a", "b"], [0, 1, 0])))
    assert (result.stored, result.findings.refused) == (2, {reason: 1})


@pytest.mark.parametrize(
    ("headers", "body", "error"),
    [
        ({"content-type": "application/json"}, b"", UnsupportedMedia),
        (HEADERS | {"content-encoding": "gzip"}, b"", UnsupportedMedia),
        (HEADERS, b"garbage", BadInput),
        (HEADERS | {"content-length": "1001"}, b"x", TooLarge),
        (HEADERS, bytes(1001), TooLarge),
    ],
)
def test_a_request_that_is_refused_stores_nothing(
    headers: dict[str, str], body: bytes, error: type[StreamgaugeError]
) -> None:
    receiver = Receiver(MemorySink(), replace(Limits(), body=1000))
    with pytest.raises(error):
        receiver.receive(body, headers)
    assert receiver.sink.appends == 0
    assert receiver.count("streamgauge_ingest_inflight_bytes") == 0
    assert receiver.count("streamgauge_ingest_requests_total") == 1


def test_a_disk_that_takes_nothing_fails_the_request() -> None:
    receiver = Receiver(MemorySink())
    receiver.sink.failure = ReadOnly("the disk is full")
    with pytest.raises(ReadOnly):
        receiver.receive(encode(rows(["a"], [0])))


def test_more_than_may_be_in_memory_is_told_to_come_again() -> None:
    receiver = Receiver(MemorySink(), replace(Limits(), inflight=2000, body=4000))
    with pytest.raises(Overloaded):
        receiver.receive(encode(rows(["a"], [0] * 100)))


def test_imports_leave_half_of_the_memory_to_live_writes() -> None:
    limit = 100_000
    receiver = Receiver(MemorySink(), replace(Limits(), inflight=limit, body=limit // 4))

    async def work() -> None:
        stalled, go_on = asyncio.Semaphore(0), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield bytes(limit // 4)
            stalled.release()
            await go_on.wait()

        async def one_byte() -> AsyncIterator[bytes]:
            yield b"x"

        waiting = [asyncio.create_task(receiver.bulk.receive(HEADERS, slow())) for _ in range(2)]
        for _ in waiting:
            await stalled.acquire()
        with pytest.raises(Overloaded, match="the limit is 50000"):
            await receiver.bulk.receive(HEADERS, one_byte())
        with receiver.inflight.account() as live:
            live.add(limit // 2)
        go_on.set()
        refused, read = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(refused, Overloaded), "decoded it takes as much again"
        assert isinstance(read, BadInput), "which there is room for now"

    asyncio.run(work())
    assert receiver.count("streamgauge_ingest_inflight_bytes") == 0


def test_series_that_were_pruned_are_looked_up_anew(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path / "data", ManualClock(NOON)) as (store, _):
            stats = Stats()
            bulk = BulkImport(store, stats, ManualClock(NOON), InFlight(1 << 30, stats), Turns())

            async def send(time: int) -> BulkResult:
                async def body() -> AsyncIterator[bytes]:
                    yield encode(rows(["a"], [0], [time]))

                return await bulk.receive(HEADERS, body())

            store.resolve(key_of({"__name__": "other"}))
            assert (await send(NOON)).stored == 1
            # Forget that there ever was such a series, as retention does.
            with store.pruner.watching([]):
                snapshot, release = store.snapshot()
                dead = series_without_data(snapshot)
                release()
                await store.pruner.prune(np.union1d(dead, batch_of(store, [(key_of({"__name__": "a"}), 0, 0)]).series))
            assert (await send(NOON + 1)).stored == 1
            assert (key_of({"__name__": "a"}), NOON + 1) in content(store)

    asyncio.run(work())


def test_series_of_the_last_request_are_known_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Receiver(MemorySink())
    handed_over = 0
    some = SeriesTexts.some

    def counted(self: SeriesTexts, at: int, count: int, size: int) -> list[bytes]:
        nonlocal handed_over
        handed_over += len(texts := some(self, at, count, size))
        return texts

    monkeypatch.setattr(SeriesTexts, "some", counted)
    texts = [f'a{{n="{number}"}}' for number in range(3)]
    receiver.receive(encode(rows(texts, [0, 1, 2], [1, 1, 1])))
    receiver.receive(encode(rows(texts, [2, 1, 0, 0], [2, 2, 2, 3])))
    assert handed_over == 3
    receiver.sink.prune()
    receiver.receive(encode(rows(texts, [0, 1, 2], [4, 4, 4])))
    assert handed_over == 6, "ids of an earlier generation are not used"
    receiver.receive(encode(rows(["a", *texts[1:]], [0, 1, 2], [5, 5, 5])))
    assert handed_over == 9
    assert receiver.sink.samples(__name__="a", n="0") == [(1, 0.0), (2, 2.0), (3, 3.0), (4, 0.0)]
    assert receiver.sink.samples(__name__="a", n="2") == [(1, 2.0), (2, 0.0), (4, 2.0), (5, 2.0)]
    assert receiver.sink.samples(__name__="a") == [(5, 0.0)]


def test_what_was_refused_once_is_looked_at_again() -> None:
    receiver = Receiver(MemorySink())
    body = encode(rows(["a", "no series"], [0, 1, 1]))
    receiver.receive(body)
    again = receiver.receive(body)
    assert (again.stored, again.findings.refused, len(again.examples)) == (1, {Reason.LABELS: 2}, 1)


class Gone(Exception):
    """As a listener raises it when a client goes away before the end of its request."""


async def cut_off() -> AsyncIterator[bytes]:
    yield b"\x0a"
    raise Gone


def test_who_goes_away_is_counted_as_no_request() -> None:
    receiver = Receiver(MemorySink())
    with pytest.raises(Gone):
        asyncio.run(receiver.bulk.receive(HEADERS, cut_off()))
    assert receiver.count('streamgauge_ingest_requests_total{code="200"') == 0
