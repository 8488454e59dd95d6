"""The receiver of samples in bulk, as `wire.sample_table` describes them: what `streamgauge import` sends.

It gives way to everybody else: a request waits until the store has room that live senders do not need.
A request may be repeated: the same samples again change nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from streamgauge.clock import Clock
from streamgauge.errors import BadInput, IndexFull, Overloaded, StreamgaugeError, UnsupportedMedia
from streamgauge.ingest.admission import InFlight, Limits, count, read_body
from streamgauge.ingest.bound import Bindings, Bound
from streamgauge.ingest.turns import Turns
from streamgauge.model.arrays import Bools, Int64s
from streamgauge.model.batch import Metadata, SampleBatch, empty_batch
from streamgauge.model.labels import series_key
from streamgauge.model.sink import Sink
from streamgauge.stats import Stats
from streamgauge.wire.findings import MAX_EXAMPLES, Findings, Reason, bad_labels, no_room, shorten
from streamgauge.wire.sample_table import CONTENT_TYPE, SeriesRows, SeriesTexts, decode
from streamgauge.wire.series_text import parse_series

SOURCE = "import"

APPEND_ROWS = 65_536
"""Rows handed to the store at once: about a millisecond of work on the event loop."""
_CACHE_BYTES = 64 << 20
"""Of texts of series: 200,000 of nine labels. When there are more, it begins anew; one that is not in it costs as much
as a hundred that are."""
_ENTRY_BYTES = 135  # of one in a dictionary, beside its text (measured)
_LOOKUPS, _LOOKUP_BYTES = 2048, 512 << 10
"""Texts of series looked up before other tasks get their turn, and bytes of these: about 1 ms."""
_NEW_SERIES = 64
"""New series before other tasks get their turn: 30 µs each, as they are parsed and the index takes them in."""
_NEW_BYTES = 32 << 10
"""Of their texts, the same: parsing takes time for each byte, and a text may have half a megabyte."""
_LAST_BYTES = 16 << 20
"""Of the texts of the last request, all of which are known: 100,000 series. Files in order of time send the same ones
with each request, so that none is looked up."""
_REFUSED = -1
_SHOWN = 150  # characters of a series' text in a message
_ATTEMPTS = 3
_SERIES_REASONS = (Reason.LABELS, Reason.FOREIGN, Reason.SERIES_LIMIT, Reason.METRIC_LIMIT, Reason.LABEL_LIMIT)
_LATE_OR_EARLY = {
    Reason.TOO_OLD: "is older than the oldest that is taken, {} ms: start the server with a longer --retention, unless "
    "only aggregates are kept of that day any more",
    Reason.TOO_NEW: "is too far ahead of the server's clock: the newest that is taken is {} ms",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An example of what was refused. row: its number in the request, from 0."""

    row: int
    reason: Reason
    text: str


@dataclass(slots=True)
class BulkResult:
    """What became of a request."""

    stored: int = 0
    findings: Findings = field(default_factory=Findings)
    examples: list[Refusal] = field(default_factory=list)

    def example(self, row: int, reason: Reason, text: str) -> None:
        """Keep it if there is still room for one of its reason."""
        if sum(example.reason is reason for example in self.examples) < MAX_EXAMPLES:
            self.examples.append(Refusal(row, reason, shorten(text)))

    def as_json(self) -> dict[str, object]:
        refused = {reason.value: number for reason, number in sorted(self.findings.refused.items())}
        examples = [{"row": one.row, "reason": one.reason.value, "text": one.text} for one in self.examples]
        return {"stored": self.stored, "refused": refused, "examples": examples}


class _RefusedSeries:
    """Which series of a table are refused. As many as a hostile table has cost a byte each."""

    def __init__(self, series: int) -> None:
        self._reasons = np.zeros(series, np.uint8)  # 0, or one more than the number of the reason in _SERIES_REASONS
        self._examples: list[tuple[int, Reason, str]] = []

    def add(self, number: int, reason: Reason, text: str) -> None:
        self._reasons[number] = 1 + _SERIES_REASONS.index(reason)
        if sum(known is reason for _, known, _ in self._examples) < MAX_EXAMPLES:
            self._examples.append((number, reason, text))

    def enter(self, codes: Int64s, first: int, result: BulkResult) -> None:
        """Enter the rows of these series into the result; the first row has the number `first`."""
        if not self._examples:
            return
        counts = np.bincount(self._reasons[codes], minlength=1 + len(_SERIES_REASONS))
        for reason, rows in zip(_SERIES_REASONS, counts[1:].tolist(), strict=True):
            if rows:
                result.findings.refused[reason] += rows
        for number, reason, text in self._examples:
            result.example(first + int(np.argmax(codes == number)), reason, text)


@dataclass(frozen=True, slots=True)
class _Known:
    """All series of a table, none of them refused."""

    texts: SeriesTexts
    ids: Int64s
    generation: int

    @property
    def size(self) -> int:
        return self.texts.size + 2 * self.ids.nbytes


class BulkImport:
    """Receives requests. One for a server; used on the event loop."""

    def __init__(
        self, sink: Sink, stats: Stats, clock: Clock, inflight: InFlight, turns: Turns, limits: Limits | None = None
    ) -> None:
        self._stats = stats
        self._clock = clock
        self._limits = limits or Limits()
        # Requests that wait for room must leave some to those whom they wait for; one of them fits always.
        share = max(self._limits.inflight // 2, 2 * self._limits.body)
        self._inflight = InFlight(share, stats, inflight)
        self._everything = _Way(sink, stats, turns, _CACHE_BYTES)
        self._bindings = Bindings(sink, lambda own: _Way(own, stats, turns, _CACHE_BYTES // 4), _CACHE_BYTES)

    async def receive(self, headers: Mapping[str, str], body: AsyncIterator[bytes], bound: Bound = ()) -> BulkResult:
        """Store everything that is valid in one request. It is on disk then.

        headers: by name in lower case. bound: the labels that its sender's series have. Raises BadInput, TooLarge
        and UnsupportedMedia when nothing is stored, and Overloaded or StorageError when it is not known how much is.
        What `body` raises goes through.
        """
        status = 0  # of one whose sender goes away
        way = self._bindings.of(bound) if bound else self._everything
        try:
            with self._inflight.account() as held:
                check_media(headers)
                data = await read_body(headers, body, self._limits.body, held)
                self._stats.ingest_request_bytes.labels(SOURCE).inc(len(data))
                started = self._clock.monotonic()
                held.add(len(data))  # what is decoded takes as much again
                result = await way.store(data)
                self._stats.ingest_seconds.labels(SOURCE).observe(self._clock.monotonic() - started)
            status = 200
        except StreamgaugeError as error:
            status = error.status
            raise
        finally:
            if status:
                self._stats.ingest_requests.labels(SOURCE, str(status)).inc()
            if bound:
                self._bindings.used(bound)
        count(self._stats, SOURCE, 0, result.findings)
        return result


class _Way:
    """Into a sink for some senders, with what is remembered of their series: `limit` bytes at most."""

    def __init__(self, sink: Sink, stats: Stats, turns: Turns, limit: int) -> None:
        self.size = 0  # bytes of the cache
        self._sink = sink
        self._stats = stats
        self._turns = turns
        self._limit = limit
        self._cache: dict[bytes, int] = {}  # ids of series by their texts
        self._generation = sink.generation
        self._last: _Known | None = None

    async def store(self, data: bytes) -> BulkResult:
        """Decode and append a request, from the beginning again when series ids became invalid."""
        for _ in range(_ATTEMPTS):
            result = BulkResult()
            tables = await asyncio.to_thread(decode, data, result.findings)
            metadata = tuple(result.findings.metadata.values())
            result.findings.metadata.clear()
            if await self._attempt(tables, metadata, result):
                return result
        raise Overloaded("series were pruned while the request was being stored", retry_after=1)

    async def _attempt(self, tables: Sequence[SeriesRows], metadata: Sequence[Metadata], result: BulkResult) -> bool:
        """False when the sink pruned series on the way: ids that were resolved before may name nothing now."""
        if metadata:
            await self._sink.append(empty_batch(), metadata)
        first = 0
        for table in tables:
            if not await self._append_table(table, first, result):
                return False
            first += len(table)
        return True

    async def _append_table(self, table: SeriesRows, first: int, result: BulkResult) -> bool:
        """Append a table, some rows at a time, which are synced together; as `_attempt`."""
        sink, generation = self._sink, self._renewed()
        ids = await self._identified(table, first, generation, result)
        failures: list[StreamgaugeError] = []

        async def append(batch: SampleBatch) -> None:
            try:
                await sink.append(batch)
                result.stored += len(batch)
                self._stats.ingested_samples.labels(SOURCE).inc(len(batch))
            except StreamgaugeError as error:
                failures.append(error)

        async with asyncio.TaskGroup() as appends:
            for start in range(0, len(table), APPEND_ROWS):
                try:
                    await sink.bulk_room()
                except StreamgaugeError as error:
                    failures.append(error)
                if failures or sink.generation != generation:
                    break
                batch = self._admitted(table, slice(start, start + APPEND_ROWS), ids, first, result)
                appends.create_task(append(batch))
                await asyncio.sleep(0)  # it is on its way to the disk before the next one, and others get their turn
        if sink.generation != generation:
            return False
        if failures:
            raise failures[0]
        return True

    def _renewed(self) -> int:
        """The sink's generation. What was remembered of another is forgotten."""
        generation = self._sink.generation
        if generation != self._generation or self.size > self._limit:
            self._cache, self.size, self._generation, self._last = {}, 0, generation, None
        return generation

    async def _identified(self, table: SeriesRows, first: int, generation: int, result: BulkResult) -> Int64s:
        """The id of each series of a table, _REFUSED where it has none; its first row has the number `first` in the
        request. Whatever they are once the sink is of another generation, they are not used."""
        texts = table.texts
        assert isinstance(texts, SeriesTexts)
        last = self._last
        if last is not None and last.generation == generation and await asyncio.to_thread(last.texts.equals, texts):
            return last.ids
        ids = np.full(len(texts), _REFUSED, np.int64)
        refused = _RefusedSeries(len(ids))
        steps = self._identify(texts, ids, refused)
        while self._sink.generation == generation and await self._turns.take(lambda: next(steps, False)):
            pass
        refused.enter(table.codes, first, result)
        small = texts.size <= min(_LAST_BYTES, self._limit // 4)
        if small and texts.are_all and not (ids == _REFUSED).any():
            self._keep(_Known(await asyncio.to_thread(texts.copied), ids, generation))
        return ids

    def _keep(self, known: _Known) -> None:
        """Remember them for the next request, if series ids are still what they were."""
        if known.generation == self._generation:
            self.size += known.size - (self._last.size if self._last is not None else 0)
            self._last = known

    def _admitted(
        self, table: SeriesRows, part: slice[int, int, None], ids: Int64s, first: int, result: BulkResult
    ) -> SampleBatch:
        """The rows of a part of a table that are to be stored."""
        series, times, values = ids[table.codes[part]], table.times[part], table.values[part]
        keep = series != _REFUSED
        self._check_times(table, part.start, times, keep, first, result)
        if keep.all():
            return SampleBatch(series.astype(np.uint32), times, values)
        return SampleBatch(series[keep].astype(np.uint32), times[keep], values[keep])

    def _identify(self, texts: SeriesTexts, ids: Int64s, refused: _RefusedSeries) -> Iterator[bool]:
        """Find the id of each series; True where others may have their turn before it goes on."""
        at = 0
        while at < len(ids):
            some = texts.some(at, _LOOKUPS, _LOOKUP_BYTES)
            known = cast("list[int]", list(map(self._cache.get, some)))  # with None where one is new
            new = size = 0
            for number, text in enumerate(some) if None in known else ():
                if known[number] is None:
                    if new == _NEW_SERIES or size >= _NEW_BYTES:
                        yield True
                        new = size = 0
                    new += 1
                    size += len(text)
                    known[number] = self._resolve(text, at + number, refused)
            ids[at : at + len(some)] = known
            at += len(some)
            if at < len(ids):
                yield True

    def _resolve(self, text: bytes, number: int, refused: _RefusedSeries) -> int:
        try:
            series = self._sink.resolve(series_key(parse_series(text)))
        except BadInput as error:
            refused.add(number, bad_labels(error), f"{_shown(text)}: {error.message}")
            return _REFUSED
        except IndexFull as error:
            refused.add(number, no_room(error), f"{_shown(text)}: {error.message}")
            return _REFUSED
        self._cache[text] = series
        self.size += len(text) + _ENTRY_BYTES
        return series

    def _check_times(
        self, table: SeriesRows, start: int, times: Int64s, keep: Bools, first: int, result: BulkResult
    ) -> None:
        """Take rows whose time is not admitted out of `keep`. `times` are those from row `start` of the table on."""
        oldest, newest = self._sink.admitted()
        if not len(times) or (int(times.min()) >= oldest and int(times.max()) <= newest):
            return
        for reason, wrong, bound in (
            (Reason.TOO_OLD, times < oldest, oldest),
            (Reason.TOO_NEW, times > newest, newest),
        ):
            rows = np.flatnonzero(wrong & keep)
            if len(rows):
                row = start + int(rows[0])
                name = _shown(table.texts[table.codes[row]])
                text = f"{name}: time {table.times[row]} ms {_LATE_OR_EARLY[reason].format(bound)}"
                result.findings.refused[reason] += len(rows)
                result.example(first + row, reason, text)
                keep[rows] = False


def check_media(headers: Mapping[str, str]) -> None:
    """Raises UnsupportedMedia, naming what is spoken."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != CONTENT_TYPE:
        raise UnsupportedMedia(f'content type "{kind[:100]}" is not spoken here; send {CONTENT_TYPE}')
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMedia(f'content encoding "{encoding[:100]}" is not spoken here; send none')


def _shown(text: bytes) -> str:
    return shorten(text[: 4 * _SHOWN].decode(errors="backslashreplace"), _SHOWN)
