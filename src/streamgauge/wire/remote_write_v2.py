"""Remote write 2.0: an `io.prometheus.write.v2.Request` to batches of samples.

    Request     4 symbols string*   5 timeseries TimeSeries*
    TimeSeries  1 labels_refs uint32* (name, value, name, value, …)   2 samples Sample*   3 histograms   4 exemplars
                5 metadata Metadata   (6 was a created timestamp)
    Sample      1 value double   2 timestamp int64 (ms)   3 start_timestamp int64 (ms)
    Metadata    1 type enum   3 help_ref uint32   4 unit_ref uint32

Specification: https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/

A reference means something in its own request only. So the symbols are mapped, once a request, to codes that stay the
same from request to request, and a series is known by its row of codes. Symbols stand before the series, as encoders
write them; a request that is built otherwise is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Int64s
from streamgauge.model.batch import SampleBatch, empty_batch
from streamgauge.model.labels import NAME
from streamgauge.wire import protobuf
from streamgauge.wire.findings import Findings, Reason, series_text
from streamgauge.wire.protobuf import BYTES, VARINT, expect, fields, span, varint
from streamgauge.wire.references import references, unpack
from streamgauge.wire.samples import (
    BATCH_ROWS,
    IDLE_STEPS,
    MAX_SMALL,
    NEW_AT_ONCE,
    PAUSE,
    SAMPLE_BYTES,
    SAMPLE_HEAD,
    START_BYTES,
    STARTED_HEAD,
    ZERO_HEAD,
    ZERO_SAMPLE_BYTES,
    Window,
    admit,
    batches_of_series,
    gathered,
    pieces,
    read_rows,
    samples_of,
)
from streamgauge.wire.series_cache import MAX_PAIRS, Resolve, SeriesCache, SymbolTable, identify

MAX_SYMBOLS = 1_000_000
"""Distinct names and values of one request. A request of 2,000 series has about 4,000."""

_SYMBOL_TAG = 0x22
_SYMBOLS_FIELD = 4
_SERIES_TAG = 0x2A
_SERIES_FIELD = 5
_REFS_TAG = 0x0A
_REFS_FIELD = 1
_METADATA_FIELD = 5
_NOT_STORED = {3: Reason.HISTOGRAM, 4: Reason.EXEMPLAR}
_START_TAG = b"\x18"
_MAX_KIND = 255
_CODE_BYTES = 8


def decode(
    data: bytes, cache: SeriesCache, resolve: Resolve, window: Window, findings: Findings
) -> Iterator[SampleBatch]:
    """Batches of the samples of one request, in order. A batch may be empty: a pause in much work without samples.

    resolve: the sink's; gives the id of a canonical key, or raises (`series_cache.Resolve`).
    findings: receives what was refused, and metadata (of a series whenever it, or its metadata, is new).
    Raises BadInput where the bytes are not such a message; what came before has been handed over by then.
    """
    return gathered(_Decoder(data, cache, resolve, window, findings).batches())


@dataclass(slots=True)
class _Rows:
    """Series in standard form, column by column: one element a series, but for `ends`, which has one a sample."""

    starts: list[int] = field(default_factory=list)  # of the record
    refs: list[bytes] = field(default_factory=list)  # the packed references
    tails: list[bytes] = field(default_factory=list)  # key of the metadata
    counts: list[int] = field(default_factory=list)  # samples; -1: one with its value left out
    ends: list[int] = field(default_factory=list)


class _Decoder:
    def __init__(self, data: bytes, cache: SeriesCache, resolve: Resolve, window: Window, findings: Findings) -> None:
        self.data = data
        self.end = len(data)
        self.at = 0  # everything before is decoded
        self.cache = cache
        self.resolve = resolve
        self.window = window
        self.findings = findings
        self.table: SymbolTable | None = None  # of earlier requests with the same symbols
        self.symbols: list[bytes] = []
        self.codes: Int64s = np.empty(0, np.int64)
        self.tails: dict[bytes, bytes] = {}  # bytes behind the samples, to the key of the metadata they hold
        self.metadata: dict[bytes, tuple[int, bytes, bytes]] = {}  # by key: type, help, unit
        self.looked_up = 0  # series that were not among those seen last

    def batches(self) -> Iterator[SampleBatch]:
        self.table = self.cache.tables.find(self.data)
        if self.table is not None:
            yield from self._repeated(self.table)
        if self.at < self.end:
            symbols_end = yield from self._read_symbols()
            if self.table is None:
                self.cache.tables.remember(self.data[:symbols_end])
            self.at = max(self.at, symbols_end)
        steps = 0
        while self.at < self.end:
            self.cache.trim()
            begin, mark = self.at, self.findings.mark()
            rows, stuck = self._collect()
            if rows.refs:
                batch = yield from self._decode_rows(rows)
                if batch is None:
                    self.findings.rewind(mark)
                    yield from self._carefully(begin, self.at)
                else:
                    yield from pieces(batch)
            if stuck:
                _, _, _, after = protobuf.field(self.data, self.at, self.end)
                yield from self._carefully(self.at, after)
                self.at = after
                steps += 1
                if steps % IDLE_STEPS == 0:
                    yield empty_batch()

    # -- symbols ------------------------------------------------------------------------------------------------

    def _read_symbols(self) -> Generator[SampleBatch, None, int]:
        """Read the symbols at the beginning of the request, and find their codes; returns where they end."""
        data, at, end = self.data, 0, self.end
        symbols: list[bytes] = []
        codes: list[int] = []
        while at < end and data[at] == _SYMBOL_TAG:
            part: list[bytes] = []
            at = self._read_part(at, part)
            known = self.cache.symbols.young.get
            codes += [known(symbol) or self.cache.code(symbol) for symbol in part]
            symbols += part
            if len(symbols) > MAX_SYMBOLS:
                raise BadInput(f"the request has more than {MAX_SYMBOLS} symbols")
            yield empty_batch()
        if symbols and symbols[0]:
            raise BadInput("the first symbol must be the empty string")
        self.symbols = symbols
        self.codes = np.array(codes, np.int64)
        return at

    def _read_part(self, at: int, symbols: list[bytes]) -> int:
        """Read some symbols from `at` on; where the next one begins."""
        data, end = self.data, self.end
        add = symbols.append
        for _ in range(PAUSE):
            if at + 1 >= end or data[at] != _SYMBOL_TAG:
                break
            size = data[at + 1]
            if size < 0x80:
                start, at = at + 2, at + 2 + size
            else:
                start, at = span(data, at + 1, end)
            add(data[start:at])
        if at > end or (at == end - 1 and data[at] == _SYMBOL_TAG):
            raise BadInput(f"protobuf: a symbol is cut off at byte {end}")
        return at

    # -- as in an earlier request -------------------------------------------------------------------------------

    def _repeated(self, table: SymbolTable) -> Iterator[SampleBatch]:
        """Decode from the beginning whatever is as it was in an earlier request with the same symbols."""
        at = len(table.raw)
        if at < self.end and self.data[at] != _SERIES_TAG:
            self.table = None
            return
        while True:
            self.at = at
            ids, ends, after = self._collect_repeated(table, at)
            batch = read_rows(self.data, ends, ids, heads_seen=True) if ids else None
            if batch is None:
                return
            self._count_starts(ends)
            yield admit(batch, self.window, self.findings, partial(self._series_around, at, ends))
            at = after

    def _collect_repeated(self, table: SymbolTable, at: int) -> tuple[list[int], list[int], int]:
        """Walk over known records from `at` on: (ids, ends of samples, where the walk ended)."""
        prefixes, sizes, known, tails = table.records.prefixes, table.records.sizes, table.records.ids, table.tails
        begins_with, ends_with = self.data.startswith, self.data.endswith
        end = self.end
        ids: list[int] = []
        ends: list[int] = []
        slot = -1
        for _ in range(BATCH_ROWS):
            if at >= end:
                break
            slot += 1
            if not (begins_with(prefixes[slot], at) and ends_with(tails[slot], at, at + sizes[slot])):
                slot = self._find(table, at)
                if slot < 0:
                    break
            after = at + sizes[slot]
            if after > end:
                break
            ids.append(known[slot])
            ends.append(after - len(tails[slot]))
            at = after
        return ids, ends, at

    def _find(self, table: SymbolTable, at: int) -> int:
        """The slot of the record at `at`; -1 when it is not a known one."""
        parts = self._parts(at)
        return -1 if parts is None else table.records.slots.get(parts[0] + parts[1], -1)

    def _parts(self, at: int) -> tuple[bytes, bytes, int, bool] | None:
        """(prefix, tail, bytes in all, whether the value is left out) of a record of one sample at `at`."""
        data = self.data
        if data[at] != _SERIES_TAG:
            return None
        try:
            start, stop = span(data, at + 1, self.end)
            if start == stop or data[start] != _REFS_TAG:
                return None
            _, samples_at = span(data, start + 1, stop)
        except BadInput:
            return None
        zero = data.startswith(ZERO_HEAD, samples_at)
        if not (zero or data.startswith((SAMPLE_HEAD, STARTED_HEAD), samples_at)):
            return None
        sample_end = samples_at + (ZERO_SAMPLE_BYTES if zero else SAMPLE_BYTES)
        prefix = data[at : samples_at + len(ZERO_HEAD if zero else SAMPLE_HEAD)]
        return None if sample_end > stop else (prefix, data[sample_end:stop], stop - at, zero)

    def _series_around(self, at: int, ends: list[int], row: int) -> str:
        """The series, at or after `at`, in which the sample that ends at ends[row] lies, for a message."""
        if not self.symbols:
            for _ in self._read_symbols():
                pass
        while True:
            _, _, a, b = protobuf.field(self.data, at, self.end)
            if b >= ends[row]:
                _, kind, c, d = protobuf.field(self.data, a, b)
                return series_text(self._pairs(references(self.data, kind, c, d, 2 * MAX_PAIRS)))
            at = b

    # -- in columns ---------------------------------------------------------------------------------------------

    def _collect(self) -> tuple[_Rows, bool]:
        """Walk over series in standard form, from `at` on; and whether the walk got stuck before another form."""
        data, at, end = self.data, self.at, self.end
        begins_with = data.startswith
        rows = _Rows()
        add_start, add_refs, add_tail, add_count = (
            rows.starts.append,
            rows.refs.append,
            rows.tails.append,
            rows.counts.append,
        )
        ends = rows.ends
        tails = self.tails
        stuck = True
        while len(ends) < BATCH_ROWS:
            if at + 5 > end:
                stuck = at < end
                break
            if data[at] != _SERIES_TAG:
                break
            size, start = data[at + 1], at + 2
            if size >= 0x80:
                if data[start] >= 0x80:
                    break
                size = size & 0x7F | data[start] << 7
                start += 1
            stop = start + size
            if stop > end or size < 2 or data[start] != _REFS_TAG or data[start + 1] >= 0x80:
                break
            samples_at = start + 2 + data[start + 1]
            if begins_with(SAMPLE_HEAD, samples_at):
                count = 1
                sample_end = samples_at + SAMPLE_BYTES
                while begins_with(SAMPLE_HEAD, sample_end) and count < MAX_SMALL:
                    count += 1
                    sample_end += SAMPLE_BYTES
            elif begins_with(ZERO_HEAD, samples_at):
                count = -1
                sample_end = samples_at + ZERO_SAMPLE_BYTES
            elif begins_with(STARTED_HEAD, samples_at):
                count = 1
                sample_end = samples_at + SAMPLE_BYTES
            else:
                break
            raw_tail = data[sample_end:stop]
            tail = tails.get(raw_tail)
            if tail is None:
                tail = self._tail(raw_tail)
            if (raw_tail[:1] == _START_TAG) != (data[samples_at + 1] == STARTED_HEAD[1]):
                break
            if tail is None or not SAMPLE_BYTES <= sample_end <= stop:
                break
            add_start(at)
            add_refs(data[start + 2 : samples_at])
            add_tail(tail)
            add_count(count)
            if count <= 1:
                ends.append(sample_end)
            else:
                ends += range(samples_at + SAMPLE_BYTES, sample_end + 1, SAMPLE_BYTES)
            at = stop
        else:
            stuck = False
        self.at = at
        return rows, stuck

    def _tail(self, raw: bytes) -> bytes | None:
        """The key of what is behind the value and time of a sample; None when it is in no standard form.

        That is: the sample's start timestamp of six bytes or nothing, then a Metadata or nothing.
        """
        begin = START_BYTES if raw[:1] == _START_TAG else 0
        tail = b""
        try:
            if begin and varint(raw, 1, len(raw))[1] != begin:
                return None
            if len(raw) > begin:
                number, kind, a, b = protobuf.field(raw, begin, len(raw))
                if (number, kind, b) != (_METADATA_FIELD, BYTES, len(raw)):
                    return None
                tail = self._metadata_key(raw, a, b)
        except BadInput:
            return None
        self.tails[raw] = tail
        return tail

    def _decode_rows(self, rows: _Rows) -> Generator[SampleBatch, None, SampleBatch | None]:
        """Returns the batch of these series; None when a part of it is in another form than it seemed, and nothing is
        done. Yields empty batches where many series are new."""
        counts = np.array(rows.counts, np.int64)
        repeats = np.abs(counts)
        batch = read_rows(self.data, rows.ends, np.repeat(np.where(counts < 0, -1, 0), repeats), heads_seen=True)
        unpacked = unpack(rows.refs, len(self.symbols))
        if batch is None or unpacked is None:
            return None
        refs, bounds = unpacked
        spelled = self.codes[refs].tobytes()
        edges = (bounds * _CODE_BYTES).tolist()
        keys = [spelled[a:b] + tail for a, b, tail in zip(edges, edges[1:], rows.tails, strict=False)]
        ids: list[int | None] = list(map(self.cache.rows.young.get, keys))
        unknown = [row for row, known in enumerate(ids) if known is None] if None in ids else []
        for row in unknown:
            row_refs = refs[bounds[row] : bounds[row + 1]].tolist()
            ids[row] = self._series_of_key(keys[row], row_refs, rows.tails[row], int(repeats[row]))
            self.looked_up += 1
            if self.looked_up % NEW_AT_ONCE == 0:
                yield empty_batch()
        self._count_starts(rows.ends)
        if self.table is not None:
            self._learn(self.table, rows, ids)
        batch, stored = _with_series(batch, ids, repeats)
        ends = np.cumsum(repeats)

        def name(row: int) -> str:
            series = int(np.searchsorted(ends, stored[row], side="right"))
            return series_text(self._pairs(refs[bounds[series] : bounds[series + 1]].tolist()))

        return admit(batch, self.window, self.findings, name)

    def _series_of_key(self, key: bytes, refs: list[int], tail: bytes, samples: int) -> int | None:
        """The id of a series that is not in the young cache; None when it is refused."""
        series = self.cache.rows.get(key)
        if series is None:
            pairs = self._pairs(refs)
            series = identify(pairs, samples, self.resolve, self.findings)
            if series is not None:
                self.cache.rows.put(key, series)
                self._note_metadata(pairs, tail)
        return series

    def _count_starts(self, ends: list[int]) -> None:
        """Count the rows behind whose timestamp a start timestamp stands; no other field of that tag can."""
        behind = np.array(ends, np.int64)
        tags = np.frombuffer(self.data, np.uint8)[behind[behind < self.end]]
        self.findings.start_times += int(np.count_nonzero(tags == _START_TAG[0]))

    def _learn(self, table: SymbolTable, rows: _Rows, ids: list[int | None]) -> None:
        """Know these series again in the next request that begins with the same symbols."""
        for at, count, series in zip(rows.starts, rows.counts, ids, strict=True):
            if series is not None and count <= 1 and (parts := self._parts(at)) is not None:
                prefix, tail, size, zero = parts
                table.add(prefix, tail, size, ~series if zero else series)

    def _pairs(self, refs: list[int]) -> list[tuple[bytes, bytes]]:
        texts = [self.symbols[ref] for ref in refs]
        return list(zip(texts[::2], texts[1::2], strict=True))

    # -- metadata -----------------------------------------------------------------------------------------------

    def _metadata_key(self, data: bytes, start: int, stop: int) -> bytes:
        """The Metadata data[start:stop] as a key that means the same in every request; b"" when it says nothing.

        Wrong references are refused, and read as absent.
        """
        values = {1: 0, 3: 0, 4: 0}
        for number, kind, a, b in fields(data, start, stop):
            if number in values:
                expect(kind, VARINT, "a field of metadata", b)
                values[number] = a
        kind_number, help_ref, unit_ref = values.values()
        if max(help_ref, unit_ref) >= len(self.symbols):
            self.findings.refuse(Reason.METADATA, f"metadata refers to symbol {max(help_ref, unit_ref)}; there is none")
            return b""
        if not any(values.values()):
            return b""
        key = b"".join(
            number.to_bytes(_CODE_BYTES, "little")
            for number in (min(kind_number, _MAX_KIND), int(self.codes[help_ref]), int(self.codes[unit_ref]))
        )
        self.metadata[key] = (min(kind_number, _MAX_KIND), self.symbols[help_ref], self.symbols[unit_ref])
        return key

    def _note_metadata(self, pairs: list[tuple[bytes, bytes]], key: bytes) -> None:
        metric = next((value for name, value in pairs if name == NAME), b"")
        if key and metric:
            self.findings.note_metadata(metric, *self.metadata[key])

    # -- field by field -------------------------------------------------------------------------------------------

    def _carefully(self, start: int, stop: int) -> Iterator[SampleBatch]:
        """Decode the top-level fields in data[start:stop]."""
        for number, kind, a, b in fields(self.data, start, stop):
            if number == _SERIES_FIELD:
                expect(kind, BYTES, "a time series", a)
                yield from self._series(a, b)
            elif number == _SYMBOLS_FIELD:
                raise BadInput(f"protobuf: the symbol at byte {a} stands behind a time series; symbols come first")

    def _series(self, start: int, stop: int) -> Iterator[SampleBatch]:
        refs: list[int] = []
        key = b""
        others: Counter[Reason] = Counter()

        def other(number: int, kind: int, a: int, b: int) -> None:
            nonlocal key
            if number == _REFS_FIELD:
                refs.extend(references(self.data, kind, a, b, 2 * MAX_PAIRS + 2 - len(refs)))
            elif number == _METADATA_FIELD:
                expect(kind, BYTES, "metadata", a)
                key = self._metadata_key(self.data, a, b)
            elif number in _NOT_STORED:
                expect(kind, BYTES, "a field of a time series", a)
                others[_NOT_STORED[number]] += 1

        blocks = yield from samples_of(self.data, start, stop, other, self.findings)
        samples = sum(map(len, blocks))
        wrong = [ref for ref in refs if ref >= len(self.symbols)]
        if wrong or len(refs) % 2:
            what = f"symbol {wrong[0]}, but there are only {len(self.symbols)}" if wrong else "an odd number of symbols"
            self.findings.refuse(
                Reason.LABELS, f"the labels of the time series at byte {start} refer to {what}", samples
            )
            self.findings.refuse_not_stored(others, f"the time series at byte {start}")
            return
        pairs = self._pairs(refs)
        if others:
            self.findings.refuse_not_stored(others, series_text(pairs))
        series = identify(pairs, samples, self.resolve, self.findings) if samples else None
        self._note_metadata(pairs, key)
        if series is not None:
            yield from batches_of_series(blocks, series, self.window, self.findings, partial(series_text, pairs))


def _with_series(batch: SampleBatch, ids: list[int | None], repeats: Int64s) -> tuple[SampleBatch, Int64s]:
    """The batch with its series ids, repeats[i] rows of ids[i], without the rows of refused series; and which rows
    of `batch` are left."""
    series = np.repeat(np.array([-1 if one is None else one for one in ids], np.int64), repeats)
    stored = np.flatnonzero(series >= 0)
    if len(stored) == len(series):
        return SampleBatch(series.astype(np.uint32), batch.times, batch.values), stored
    return SampleBatch(series[stored].astype(np.uint32), batch.times[stored], batch.values[stored]), stored
