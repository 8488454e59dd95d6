"""Remote write 1.0: a `prometheus.WriteRequest` to batches of samples.

    WriteRequest    1 timeseries TimeSeries*   3 metadata MetricMetadata*
    TimeSeries      1 labels Label*   2 samples Sample*   3 exemplars   4 histograms
    Label           1 name string   2 value string
    Sample          1 value double   2 timestamp int64 (ms)
    MetricMetadata  1 type enum   2 metric_family_name string   4 help string   5 unit string

Specification: https://prometheus.io/docs/specs/prw/remote_write_spec/

What senders really send, labels first and then one sample or several in standard form, is read in columns. Anything
else that the definition allows is read field by field; both ways give the same result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

import numpy as np

from streamgauge.errors import BadInput
from streamgauge.model.batch import SampleBatch, empty_batch
from streamgauge.wire.findings import Findings, Reason, series_text
from streamgauge.wire.protobuf import BYTES, VARINT, expect, field, fields, span
from streamgauge.wire.samples import (
    BATCH_ROWS,
    IDLE_STEPS,
    MAX_SMALL,
    NEW_AT_ONCE,
    SAMPLE_BYTES,
    SAMPLE_HEAD,
    TIME_BYTES,
    VALUE_AND_TIME_BYTES,
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
from streamgauge.wire.series_cache import MAX_PAIRS, Resolve, SeriesCache, identify

_SERIES_TAG = 0x0A
_LABEL_TAG = 0x0A
_NAME_TAG = 0x0A
_VALUE_TAG = 0x12
_LONGEST_HEADER = 3  # tag and length of a series of less than 16 KiB
_SERIES_FIELDS = (1, 3, 4)
_LABELS_FIELD = 1
_NOT_STORED = {3: Reason.EXEMPLAR, 4: Reason.HISTOGRAM}


def decode(
    data: bytes, cache: SeriesCache, resolve: Resolve, window: Window, findings: Findings
) -> Iterator[SampleBatch]:
    """Batches of the samples of one request, in order. A batch may be empty: a pause in much work without samples.

    resolve: the sink's; gives the id of a canonical key, or raises (`series_cache.Resolve`).
    findings: receives what was refused, and metadata.
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
        self.dropped: list[int] = []  # rows of the present batch whose series is refused
        self.looked_up = 0  # series whose labels were decoded since the last pause

    def batches(self) -> Iterator[SampleBatch]:
        steps = 0
        while self.at < self.end:
            self.cache.trim()
            begin, mark = self.at, self.findings.mark()
            ids, ends, stuck = self._collect()
            if ids:
                batch = read_rows(self.data, ends, ids)
                if batch is None:
                    self.findings.rewind(mark)
                    yield from self._carefully(begin, self.at)
                else:
                    yield from pieces(self._admit(batch, begin, ends))
            if stuck:
                _, _, _, after = field(self.data, self.at, self.end)
                yield from self._carefully(self.at, after)
                self.at = after
                steps += 1
                if steps % IDLE_STEPS == 0:
                    yield empty_batch()
            if self.looked_up >= NEW_AT_ONCE:
                self.looked_up = 0
                yield empty_batch()

    # -- in columns ---------------------------------------------------------------------------------------------

    def _collect(self) -> tuple[list[int], list[int], bool]:
        """Walk over series in standard form, from `at` on: (ids, ends of samples, whether it got stuck).

        Stops at the end, after about a batch, or, stuck, before something that has to be read carefully.
        """
        at, end = self.at, self.end
        records = self.cache.records
        prefixes, sizes, known, find = records.prefixes, records.sizes, records.ids, records.slots.get
        data = self.data
        begins_with = data.startswith
        ids: list[int] = []
        ends: list[int] = []
        self.dropped = []
        slot = -1
        stuck = False
        for _ in range(BATCH_ROWS):
            if at >= end:
                break
            slot += 1
            if not begins_with(prefixes[slot], at):
                slot = -1
                if at + _LONGEST_HEADER < end:
                    size = data[at + 1]
                    stop = at + 2 + size if size < 0x80 else at + 3 + (size & 0x7F | data[at + 2] << 7)
                    tail = VALUE_AND_TIME_BYTES if begins_with(SAMPLE_HEAD, stop - SAMPLE_BYTES) else TIME_BYTES
                    slot = find(data[at : stop - tail], -1)
                if slot < 0:
                    after = self._first_seen(at, ids, ends)
                    stuck = after is None
                    at = at if after is None else after
                    if stuck or len(ids) >= BATCH_ROWS or self.looked_up >= NEW_AT_ONCE:
                        break
                    continue
            at += sizes[slot]
            ids.append(known[slot])
            ends.append(at)
        if at > end:  # the last record is known, but cut off
            at -= sizes[slot]
            ids.pop()
            ends.pop()
            stuck = True
        self.at = at
        return ids, ends, stuck

    def _first_seen(self, at: int, ids: list[int], ends: list[int]) -> int | None:
        """Add the rows of a series that is no known record; where it ends, None when it is not in standard form.

        A series of one sample becomes a known record; one of several is known by its labels. A refused one is neither.
        """
        bounds = self._bounds(at)
        if bounds is None or bounds[1] < SAMPLE_BYTES:
            return None
        data, (start, stop) = self.data, bounds
        labels_end = self._labels_end(start, stop)
        count, rest = divmod(stop - labels_end, SAMPLE_BYTES)
        zero = data.startswith(ZERO_HEAD, labels_end) and stop - labels_end == ZERO_SAMPLE_BYTES
        if zero:
            count, rest = 1, 0
        if rest or not 0 < count <= MAX_SMALL:
            return None
        prefix = data[at : stop - (TIME_BYTES if zero else VALUE_AND_TIME_BYTES)]
        if count == 1 and (slot := self.cache.slot(prefix)) is not None:
            ids.append(self.cache.records.ids[slot])
            ends.append(stop)
            return stop
        spelling = data[start:labels_end]
        series = self.cache.labels.get(spelling) if count > 1 else None
        if series is None:
            heads = range(labels_end, stop, SAMPLE_BYTES)
            pairs = self._label_section(start, labels_end)
            if pairs is None or not (zero or all(data.startswith(SAMPLE_HEAD, head) for head in heads)):
                return None
            series = self._identify(pairs, count)
            if series is None:  # its rows are checked like the others, and dropped then
                self.dropped += range(len(ids), len(ids) + count)
                series = 0
            elif count == 1:
                self.cache.records.add(prefix, stop - at, ~series if zero else series)
            else:
                self.cache.labels.put(spelling, series)
        ids += [~series if zero else series] * count
        ends += range(stop - (count - 1) * SAMPLE_BYTES, stop + 1, SAMPLE_BYTES)
        return stop

    def _bounds(self, at: int) -> tuple[int, int] | None:
        """Start and stop of the TimeSeries at `at`; None where something else stands there, or it is cut off."""
        if self.data[at] != _SERIES_TAG:
            return None
        try:
            return span(self.data, at + 1, self.end)
        except BadInput:
            return None

    def _labels_end(self, start: int, stop: int) -> int:
        """Where the labels at the beginning of the TimeSeries data[start:stop] seem to end."""
        data, at = self.data, start
        while at + 1 < stop and data[at] == _LABEL_TAG:
            size = data[at + 1]
            if size < 0x80:
                at += 2 + size
            else:
                try:
                    _, at = span(data, at + 1, stop)
                except BadInput:
                    return stop
        return min(at, stop)

    def _label_section(self, start: int, stop: int) -> list[tuple[bytes, bytes]] | None:
        """The labels that data[start:stop] consists of; None when there is anything else or wrong, or too many."""
        data = self.data
        pairs: list[tuple[bytes, bytes]] = []
        at = start
        while at < stop:
            if data[at] != _LABEL_TAG or len(pairs) > MAX_PAIRS:
                return None
            if at + 6 <= stop and (size := data[at + 1]) < 0x80 and data[at + 2] == _NAME_TAG:
                after = at + 2 + size
                name_end = at + 4 + data[at + 3]
                value_at = name_end + 2
                if (
                    value_at <= after <= stop
                    and data[name_end] == _VALUE_TAG
                    and data[name_end + 1] == after - value_at
                ):
                    pairs.append((data[at + 4 : name_end], data[value_at:after]))
                    at = after
                    continue
            try:
                a, at = span(data, at + 1, stop)
                pairs.append(_label(data, a, at))
            except BadInput:
                return None
        return pairs

    def _admit(self, batch: SampleBatch, begin: int, ends: list[int]) -> SampleBatch:
        if self.dropped:
            kept = np.setdiff1d(np.arange(len(batch)), self.dropped)
            batch = SampleBatch(batch.series[kept], batch.times[kept], batch.values[kept])
            ends = [ends[row] for row in kept]
        return admit(batch, self.window, self.findings, lambda row: self._series_around(begin, ends[row]))

    def _series_around(self, at: int, offset: int) -> str:
        """The series, at or after `at`, in which `offset` lies, for a message."""
        while True:
            _, _, a, b = field(self.data, at, self.end)
            if b >= offset:
                return series_text([_label(self.data, c, d) for n, _, c, d in fields(self.data, a, b) if n == 1])
            at = b

    # -- field by field -------------------------------------------------------------------------------------------

    def _carefully(self, start: int, stop: int) -> Iterator[SampleBatch]:
        """Decode the top-level fields in data[start:stop]."""
        for number, kind, a, b in fields(self.data, start, stop):
            if number == 1:
                expect(kind, BYTES, "a time series", a)
                yield from self._series(a, b)
            elif number == 3:
                expect(kind, BYTES, "metadata", a)
                self._metadata(a, b)

    def _series(self, start: int, stop: int) -> Iterator[SampleBatch]:
        pairs: list[tuple[bytes, bytes]] = []
        others: Counter[Reason] = Counter()

        def other(number: int, kind: int, a: int, b: int) -> None:
            if number in _SERIES_FIELDS:
                expect(kind, BYTES, "a field of a time series", a)
            if number == _LABELS_FIELD and len(pairs) <= MAX_PAIRS:
                pairs.append(_label(self.data, a, b))
            elif number in _NOT_STORED:
                others[_NOT_STORED[number]] += 1

        blocks = yield from samples_of(self.data, start, stop, other, self.findings)
        if others:
            self.findings.refuse_not_stored(others, series_text(pairs))
        samples = sum(map(len, blocks))
        series = self._identify(pairs, samples) if samples else None
        if series is not None:
            yield from batches_of_series(blocks, series, self.window, self.findings, partial(series_text, pairs))

    def _identify(self, pairs: list[tuple[bytes, bytes]], samples: int) -> int | None:
        self.looked_up += 1
        return identify(pairs, samples, self.resolve, self.findings)

    def _metadata(self, start: int, stop: int) -> None:
        texts = {2: b"", 4: b"", 5: b""}
        kind_number = 0
        for number, kind, a, b in fields(self.data, start, stop):
            if number == 1:
                expect(kind, VARINT, "a metric's type", b)
                kind_number = a
            elif number in texts:
                expect(kind, BYTES, "a field of metadata", a)
                texts[number] = self.data[a:b]
        self.findings.note_metadata(texts[2], kind_number, texts[4], texts[5])


def _label(data: bytes, start: int, stop: int) -> tuple[bytes, bytes]:
    """Name and value of the Label data[start:stop]."""
    name = value = b""
    for number, kind, a, b in fields(data, start, stop):
        if number in (1, 2):
            expect(kind, BYTES, "a field of a label", a)
            if number == 1:
                name = data[a:b]
            else:
                value = data[a:b]
    return name, value
