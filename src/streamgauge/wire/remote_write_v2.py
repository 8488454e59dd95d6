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
from functools import partial
from typing import cast

import numpy as np

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Int64s, UInt32s
from streamgauge.model.batch import SampleBatch, empty_batch
from streamgauge.model.labels import NAME
from streamgauge.wire import protobuf
from streamgauge.wire.findings import Findings, Reason, series_text
from streamgauge.wire.protobuf import BYTES, VARINT, expect, fields, span, varint
from streamgauge.wire.references import references, unpack
from streamgauge.wire.row_cache import UNKNOWN
from streamgauge.wire.samples import (
    BATCH_ROWS,
    IDLE_STEPS,
    NEW_AT_ONCE,
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
from streamgauge.wire.series_records import Records, survey
from streamgauge.wire.symbols import SymbolOrder, short_symbols, spelled, text_of

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
_EMPTY = b"\x00"
_FEW = 16
"""Series in standard form, or symbols, that look-ahead has to find to be worth it."""
_MOST_FIELDS = 256
_MOST_SYMBOLS = 1024
"""Looked up before other tasks get their turn: a quarter of a millisecond."""
_REFUSED = -2


def decode(
    data: bytes, cache: SeriesCache, resolve: Resolve, window: Window, findings: Findings
) -> Iterator[SampleBatch]:
    """Batches of the samples of one request, in order. A batch may be empty: a pause in much work without samples.

    resolve: the sink's; gives the id of a canonical key, or raises (`series_cache.Resolve`).
    findings: receives what was refused, and metadata (of a series whenever it, or its metadata, is new).
    Raises BadInput where the bytes are not such a message; what came before has been handed over by then.
    """
    return gathered(_Decoder(data, cache, resolve, window, findings).batches())


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
        self.order = SymbolOrder()  # where the symbols are
        self.places: list[int] = []  # of the symbols, in that
        self.paused_at = 0  # symbols
        self.codes: UInt32s = np.empty(0, np.uint32)
        self.no_metadata = cache.code(_EMPTY)
        self.tails: dict[bytes, int] = {}  # bytes behind the samples, to the code of the metadata they hold
        self.metadata: dict[int, tuple[int, bytes, bytes]] = {}  # by code: type, help, unit
        self.read_carefully = 0  # top-level fields
        self.looked_up = 0  # series that were not among those seen last

    def batches(self) -> Iterator[SampleBatch]:
        self.cache.trim()
        self.table = self.cache.tables.find(self.data)
        if self.table is not None:
            yield from self._repeated(self.table)
        if self.at < self.end:
            symbols_end = yield from self._read_symbols()
            if self.table is None:
                self.cache.tables.remember(self.data[:symbols_end])
            self.at = max(self.at, symbols_end)
        fields_at_once = 1
        while self.at < self.end:
            self.cache.trim()
            records = survey(self.data, self.at, self.end)
            if records is not None:
                yield from self._decode(records)
                self.at = int(records.stops[-1])
            # Something else stands between series. Where it does again and again, looking ahead is of no use.
            few = records is None or len(records) < _FEW
            fields_at_once = min(2 * fields_at_once, _MOST_FIELDS) if few else 1
            for _ in range(fields_at_once if few else 0):
                if self.at >= self.end:
                    break
                _, _, _, after = protobuf.field(self.data, self.at, self.end)
                yield from self._carefully(self.at, after)
                self.at = after

    def _decode(self, records: Records) -> Iterator[SampleBatch]:
        for standard, run in records.runs():
            mark = self.findings.mark()
            batch = (yield from self._decode_run(run)) if standard else None
            if batch is None:
                self.findings.rewind(mark)
                yield from self._carefully(int(run.starts[0]), int(run.stops[-1]))
            else:
                yield from pieces(batch)

    # -- symbols ------------------------------------------------------------------------------------------------

    def _read_symbols(self) -> Generator[SampleBatch, None, int]:
        """Read the symbols at the beginning of the request, and find their codes; returns where they end."""
        data, at, end = self.data, 0, self.end
        order = self.order = self.cache.symbols.young
        self.places, self.paused_at = [], 0
        codes: list[int] = []
        at_once = _FEW
        while at < end and data[at] == _SYMBOL_TAG:
            at = self._look_up(at, at_once, codes)
            following = self.places[-1] + 1
            count, at = order.stretch(data, at, following)
            self.places += range(following, following + count)
            codes += order.codes[following : following + count]
            at_once = _FEW if count >= _FEW else min(4 * at_once, _MOST_SYMBOLS)
            if len(codes) > MAX_SYMBOLS:
                raise BadInput(f"the request has more than {MAX_SYMBOLS} symbols")
            if len(codes) - self.paused_at >= _MOST_SYMBOLS:
                self.paused_at = len(codes)
                self.cache.trim()
                yield empty_batch()
        if codes and self._text(0):
            raise BadInput("the first symbol must be the empty string")
        self.codes = np.array(codes, np.uint32)
        return at

    def _look_up(self, at: int, most: int, codes: list[int]) -> int:
        """Note places and codes of some symbols from `at` on, one at least; where the next one begins."""
        symbols, at = short_symbols(self.data, at, most)
        if len(symbols) < min(most, _FEW):
            at = self._read_part(at, most, symbols)
        order = self.order
        places = list(map(order.places.get, symbols))
        if None in places:
            for index, symbol in enumerate(symbols):
                if places[index] is None:
                    code = self.cache.code(symbol)
                    # The cache may have begun another generation of symbols since this request began.
                    place = order.places.get(symbol)
                    places[index] = order.add(symbol, code) if place is None else place
        known = cast("list[int]", places)
        self.places += known
        codes += map(order.codes.__getitem__, known)
        return at

    def _read_part(self, at: int, most: int, symbols: list[bytes]) -> int:
        """Read some symbols from `at` on, one by one; where the next one begins."""
        data, end = self.data, self.end
        for _ in range(most):
            if at >= end or data[at] != _SYMBOL_TAG:
                break
            if at + 1 >= end:
                raise BadInput(f"protobuf: a symbol is cut off at byte {end}")
            start, at = span(data, at + 1, end)
            symbols.append(spelled(data[start:at]))
        return at

    def _text(self, ref: int) -> bytes:
        """The symbol that is referred to."""
        return text_of(self.order.spelling(self.places[ref]))

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
        if not self.places:
            for _ in self._read_symbols():
                pass
        while True:
            _, _, a, b = protobuf.field(self.data, at, self.end)
            if b >= ends[row]:
                _, kind, c, d = protobuf.field(self.data, a, b)
                return series_text(self._pairs(references(self.data, kind, c, d, 2 * MAX_PAIRS)))
            at = b

    # -- in columns ---------------------------------------------------------------------------------------------

    def _tail(self, raw: bytes) -> int | None:
        """The code of what is behind the value and time of a sample; None when it is in no standard form.

        That is: the sample's start timestamp of six bytes or nothing, then a Metadata or nothing.
        """
        begin = START_BYTES if raw[:1] == _START_TAG else 0
        tail = self.no_metadata
        try:
            if begin and varint(raw, 1, len(raw))[1] != begin:
                return None
            if len(raw) > begin:
                number, kind, a, b = protobuf.field(raw, begin, len(raw))
                if (number, kind, b) != (_METADATA_FIELD, BYTES, len(raw)):
                    return None
                tail = self._metadata_code(raw, a, b)
        except BadInput:
            return None
        self.tails[raw] = tail
        return tail

    def _decode_run(self, records: Records) -> Generator[SampleBatch, None, SampleBatch | None]:
        """Returns the batch of these series; None when a part of it is in another form than it seemed, and nothing is
        done. Yields empty batches where many series are new."""
        repeats = np.abs(records.counts)
        zero = np.repeat(np.where(records.counts < 0, -1, 0), repeats)
        ends = records.sample_ends()
        batch = read_rows(self.data, ends, zero, heads_seen=True)
        unpacked = unpack(self.data, records.refs, records.heads - records.refs, len(self.places))
        tails = self._tails(records)
        if batch is None or unpacked is None or tails is None:
            return None
        refs, counts = unpacked
        bounds = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
        codes = self.codes.take(refs)
        ids = self._known_ids(codes, bounds, counts, tails)
        for row in np.flatnonzero(ids == UNKNOWN).tolist():
            labels = slice(bounds[row], bounds[row + 1])
            key = codes[labels].tobytes() + tails[row].tobytes()
            ids[row] = self._series_of_row(key, refs[labels].tolist(), int(tails[row]), int(repeats[row]))
            self.looked_up += 1
            if self.looked_up % NEW_AT_ONCE == 0:
                yield empty_batch()
        self._count_starts(ends)
        if self.table is not None:
            self._learn(self.table, records, ids)
        batch, stored = _with_series(batch, ids, repeats)
        last_rows = np.cumsum(repeats)

        def name(row: int) -> str:
            series = int(np.searchsorted(last_rows, stored[row], side="right"))
            return series_text(self._pairs(refs[bounds[series] : bounds[series + 1]].tolist()))

        return admit(batch, self.window, self.findings, name)

    def _tails(self, records: Records) -> UInt32s | None:
        """For each series the code of the metadata behind its samples. None where it is not in standard form."""
        if np.array_equal(records.ends, records.stops):
            return np.full(len(records), self.no_metadata, np.uint32)
        known = self.tails
        codes: list[int] = []
        for end, stop in zip(records.ends.tolist(), records.stops.tolist(), strict=True):
            raw = self.data[end:stop]
            tail = known.get(raw)
            if tail is None and (tail := self._tail(raw)) is None:
                return None
            codes.append(tail)
        return np.array(codes, np.uint32)

    def _known_ids(self, codes: UInt32s, bounds: Int64s, counts: Int64s, tails: UInt32s) -> Int64s:
        """The id of each series, UNKNOWN where it is not among those seen lately. Its codes are
        codes[bounds[i]:bounds[i + 1]], counts[i] of them."""
        ids = np.full(len(counts), UNKNOWN)
        widths = np.flatnonzero(np.bincount(counts)).tolist()
        for width in widths:
            rows = np.flatnonzero(counts == width)
            labels = codes.reshape(-1, width) if len(widths) == 1 else codes[bounds[rows, None] + np.arange(width)]
            ids[rows] = self.cache.rows.ids_of(np.column_stack((labels, tails[rows])))
        return ids

    def _series_of_row(self, row: bytes, refs: list[int], tail: int, samples: int) -> int:
        """The id of a series that is not among those seen lately; REFUSED when it is refused."""
        series = self.cache.rows.get(row)
        if series is not None:
            return series
        pairs = self._pairs(refs)
        series = identify(pairs, samples, self.resolve, self.findings)
        if series is None:
            return _REFUSED
        self.cache.rows.put(row, series)
        self._note_metadata(pairs, tail)
        return series

    def _count_starts(self, ends: list[int] | Int64s) -> None:
        """Count the rows behind whose timestamp a start timestamp stands; no other field of that tag can."""
        behind = np.array(ends, np.int64)
        tags = np.frombuffer(self.data, np.uint8)[behind[behind < self.end]]
        self.findings.start_times += int(np.count_nonzero(tags == _START_TAG[0]))

    def _learn(self, table: SymbolTable, records: Records, ids: Int64s) -> None:
        """Know these series again in the next request that begins with the same symbols."""
        for at, count, series in zip(records.starts.tolist(), records.counts.tolist(), ids.tolist(), strict=True):
            if series >= 0 and count <= 1 and (parts := self._parts(at)) is not None:
                prefix, tail, size, zero = parts
                self.cache.tables.learn(table, prefix, tail, size, ~series if zero else series)

    def _pairs(self, refs: list[int]) -> list[tuple[bytes, bytes]]:
        texts = [self._text(ref) for ref in refs]
        return list(zip(texts[::2], texts[1::2], strict=True))

    # -- metadata -----------------------------------------------------------------------------------------------

    def _metadata_code(self, data: bytes, start: int, stop: int) -> int:
        """The code of the Metadata data[start:stop], the same in every request; that of the empty symbol when it says
        nothing.

        Wrong references are refused, and read as absent.
        """
        values = {1: 0, 3: 0, 4: 0}
        for number, kind, a, b in fields(data, start, stop):
            if number in values:
                expect(kind, VARINT, "a field of metadata", b)
                values[number] = a
        kind_number, help_ref, unit_ref = values.values()
        if max(help_ref, unit_ref) >= len(self.places):
            self.findings.refuse(Reason.METADATA, f"metadata refers to symbol {max(help_ref, unit_ref)}; there is none")
            return self.no_metadata
        if not any(values.values()):
            return self.no_metadata
        kind_number = min(kind_number, _MAX_KIND)
        # No symbol is spelled so: what says that it has no bytes has none.
        spelling = _EMPTY + bytes([kind_number]) + self.codes[[help_ref, unit_ref]].tobytes()
        code = self.cache.code(spelling)
        self.metadata[code] = (kind_number, self._text(help_ref), self._text(unit_ref))
        return code

    def _note_metadata(self, pairs: list[tuple[bytes, bytes]], code: int) -> None:
        metric = next((value for name, value in pairs if name == NAME), b"")
        if code != self.no_metadata and metric:
            self.findings.note_metadata(metric, *self.metadata[code])

    # -- field by field -------------------------------------------------------------------------------------------

    def _carefully(self, start: int, stop: int) -> Iterator[SampleBatch]:
        """Decode the top-level fields in data[start:stop]."""
        for number, kind, a, b in fields(self.data, start, stop):
            if number == _SERIES_FIELD:
                expect(kind, BYTES, "a time series", a)
                yield from self._series(a, b)
            elif number == _SYMBOLS_FIELD:
                raise BadInput(f"protobuf: the symbol at byte {a} stands behind a time series; symbols come first")
            self.read_carefully += 1
            if self.read_carefully % IDLE_STEPS == 0:
                yield empty_batch()

    def _series(self, start: int, stop: int) -> Iterator[SampleBatch]:
        refs: list[int] = []
        metadata = self.no_metadata
        others: Counter[Reason] = Counter()

        def other(number: int, kind: int, a: int, b: int) -> None:
            nonlocal metadata
            if number == _REFS_FIELD:
                refs.extend(references(self.data, kind, a, b, 2 * MAX_PAIRS + 2 - len(refs)))
            elif number == _METADATA_FIELD:
                expect(kind, BYTES, "metadata", a)
                metadata = self._metadata_code(self.data, a, b)
            elif number in _NOT_STORED:
                expect(kind, BYTES, "a field of a time series", a)
                others[_NOT_STORED[number]] += 1

        blocks = yield from samples_of(self.data, start, stop, other, self.findings)
        samples = sum(map(len, blocks))
        wrong = [ref for ref in refs if ref >= len(self.places)]
        if wrong or len(refs) % 2:
            what = f"symbol {wrong[0]}, but there are only {len(self.places)}" if wrong else "an odd number of symbols"
            self.findings.refuse(
                Reason.LABELS, f"the labels of the time series at byte {start} refer to {what}", samples
            )
            self.findings.refuse_not_stored(others, f"the time series at byte {start}")
            return
        pairs = self._pairs(refs)
        if others:
            self.findings.refuse_not_stored(others, series_text(pairs))
        series = identify(pairs, samples, self.resolve, self.findings) if samples else None
        self._note_metadata(pairs, metadata)
        if series is not None:
            yield from batches_of_series(blocks, series, self.window, self.findings, partial(series_text, pairs))


def _with_series(batch: SampleBatch, ids: Int64s, repeats: Int64s) -> tuple[SampleBatch, Int64s]:
    """The batch with its series ids, repeats[i] rows of ids[i], without the rows of refused series; and which rows
    of `batch` are left."""
    series = np.repeat(ids, repeats)
    stored = np.flatnonzero(series >= 0)
    if len(stored) == len(series):
        return SampleBatch(series.astype(np.uint32), batch.times, batch.values), stored
    return SampleBatch(series[stored].astype(np.uint32), batch.times[stored], batch.values[stored]), stored
