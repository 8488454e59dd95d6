"""The Sample message, which remote write 1.0 and 2.0 share, read in columns.

A sample as every encoder writes it today has one of these forms (hexadecimal; the timestamp of any day from 1971 to
2109 has six bytes):

    12 10 09 vv vv vv vv vv vv vv vv 10 tt tt tt tt tt tt     18 bytes
    12 07 10 tt tt tt tt tt tt                                 9 bytes: a value of +0 is left out
    12 17 09 vv … vv 10 tt … tt 18 ss ss ss ss ss ss          25 bytes: with a start timestamp (2.0 only)

Such rows are gathered by their ends; whatever looks otherwise is read field by field.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import numpy as np

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Int64s
from streamgauge.model.batch import SampleBatch, empty_batch, joined
from streamgauge.wire.findings import Findings, Reason
from streamgauge.wire.protobuf import BYTES, FIXED64, VARINT, expect, field, fields, signed

BATCH_ROWS = 2000
"""Samples of a batch: about 1 ms of work, after which other tasks of the event loop get their turn."""

SAMPLE_BYTES = 18
VALUE_AND_TIME_BYTES = 15
TIME_BYTES = 7
ZERO_SAMPLE_BYTES = 9
START_BYTES = 7
SAMPLE_HEAD = b"\x12\x10\x09"
ZERO_HEAD = b"\x12\x07"
STARTED_HEAD = b"\x12\x17\x09"
SAMPLES_FIELD = 2

MAX_SMALL = BATCH_ROWS // 4
"""Samples of one series that are put into a batch together with those of other series."""
PAUSE = 8192
"""Fields read one by one before other tasks get their turn."""
NEW_AT_ONCE = 64
"""Series seen for the first time before other tasks get their turn: some 30 µs each, as the index takes them in, and
80 where other processes want the core."""
IDLE_STEPS = 64
"""Top-level fields read one by one before other tasks get their turn; each may be a whole series."""
_MAX_HELD = 256  # small batches joined into one
_MIN_BLOCK = 8  # samples from which on reading them in columns pays

Window = tuple[int, int]
"""The oldest and the newest admitted time, ms, both inclusive."""

_ROW = np.dtype(
    {
        "names": ["field", "value_tag", "value", "time_tag", "time_low", "time_high"],
        "formats": ["u1", "<u2", "<i8", "u1", "<u4", "<u2"],
        "offsets": [0, 1, 3, 11, 12, 16],
        "itemsize": SAMPLE_BYTES,
    }
)
CONTINUED = np.uint64(0x8080_8080_8080)
SIX_BYTES = np.uint64(0x0080_8080_8080)
_ODD_BYTES, _EVEN_BYTES = np.uint64(0x7F00_7F00_7F00), np.uint64(0x007F_007F_007F)
_LOW_PAIR, _MIDDLE_PAIR, _HIGH_PAIR = (np.uint64(0x3FFF << 14 * place) for place in range(3))
_ONE, _TWO = np.uint64(1), np.uint64(2)


def read_rows(
    data: bytes, ends: list[int] | Int64s, ids: list[int] | Int64s, heads_seen: bool = False
) -> SampleBatch | None:
    """The samples that end at `ends`, each at least 18 bytes into `data`.

    ids: series id of each row, ~id where the value is left out; for those, or for all with `heads_seen`, the caller has
        seen the bytes before the value or the timestamp. All else is checked here.
    None when a row is not in such a form.
    """
    signs = np.array(ids, np.int64)
    zero = signs < 0
    windows: np.ndarray[tuple[int], np.dtype[np.void]] = np.ndarray(
        (len(data) - SAMPLE_BYTES + 1,), np.dtype((np.void, SAMPLE_BYTES)), data, 0, (1,)
    )
    rows = windows[np.array(ends, np.int64) - SAMPLE_BYTES].view(_ROW)
    time = rows["time_high"].astype(np.uint64) << np.uint64(32)
    time |= rows["time_low"]
    standard = (rows["time_tag"] == 0x10) & (time & CONTINUED == SIX_BYTES)
    if not heads_seen:
        standard &= zero | ((rows["field"] == 0x12) & (rows["value_tag"] == 0x0910))
    if not standard.all():
        return None
    bits = rows["value"].astype(np.int64)
    bits[zero] = 0
    series = np.where(zero, ~signs, signs).astype(np.uint32)
    return SampleBatch(series, six_byte_varints(time), bits.view(np.float64))


def six_byte_varints(raw: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Numbers from their six varint bytes, little-endian in one integer."""
    pairs = raw & _ODD_BYTES
    pairs >>= _ONE
    pairs |= raw & _EVEN_BYTES  # 14 bits in each 16
    time = pairs & _LOW_PAIR
    pairs >>= _TWO
    time |= pairs & _MIDDLE_PAIR
    pairs >>= _TWO
    time |= pairs & _HIGH_PAIR
    return time.view(np.int64)


def sample_message(data: bytes, start: int, stop: int) -> tuple[int, int, int]:
    """(bits of the value as uint64, timestamp, start timestamp) of the Sample data[start:stop], any encoding of it."""
    bits = time = started = 0
    for number, kind, a, b in fields(data, start, stop):
        if number == 1:
            expect(kind, FIXED64, "a sample's value", a)
            bits = int.from_bytes(data[a:b], "little")
        elif number == 2:
            expect(kind, VARINT, "a sample's timestamp", b)
            time = signed(a)
        elif number == 3:
            expect(kind, VARINT, "a sample's start timestamp", b)
            started = signed(a)
    return bits, time, started


class LooseSamples:
    """Samples that were read one by one, on their way into columns."""

    def __init__(self) -> None:
        self._bits: list[int] = []
        self._times: list[int] = []

    def add(self, bits: int, time: int) -> None:
        self._bits.append(bits)
        self._times.append(time)

    def __len__(self) -> int:
        return len(self._times)

    def take(self) -> SampleBatch:
        """All of them, as rows of series 0, and begin anew."""
        times = np.array(self._times, np.int64)
        bits = np.array(self._bits, np.uint64)
        self._bits, self._times = [], []
        return SampleBatch(np.zeros(len(times), np.uint32), times, bits.view(np.float64))


def samples_of(
    data: bytes, start: int, stop: int, other: Callable[[int, int, int, int], None], findings: Findings
) -> Generator[SampleBatch, None, list[SampleBatch]]:
    """Read the TimeSeries data[start:stop] field by field, in any order and any form.

    other: called with (number, wire type, a, b) of every field that is not a sample.
    Yields empty batches now and then, so that other tasks get their turn; returns the samples, as rows of series 0.
    """
    blocks: list[SampleBatch] = []
    loose = LooseSamples()
    at, steps = start, 0
    while at < stop:
        steps += 1
        if steps % PAUSE == 0:
            yield empty_batch()
        count = min((stop - at) // SAMPLE_BYTES, BATCH_ROWS)
        if count >= _MIN_BLOCK and data.startswith(SAMPLE_HEAD, at):
            after = at + count * SAMPLE_BYTES
            block = read_rows(data, list(range(at + SAMPLE_BYTES, after + 1, SAMPLE_BYTES)), [0] * count)
            if block is not None:
                blocks += (loose.take(), block)
                at = after
                yield empty_batch()
                continue
        number, kind, a, at = field(data, at, stop)
        if number == SAMPLES_FIELD:
            expect(kind, BYTES, "a sample", a)
            bits, time, started = sample_message(data, a, at)
            loose.add(bits, time)
            findings.start_times += started != 0
        else:
            other(number, kind, a, at)
    blocks.append(loose.take())
    return blocks


def batches_of_series(
    blocks: list[SampleBatch], series: int, window: Window, findings: Findings, name: Callable[[], str]
) -> Iterator[SampleBatch]:
    """What `samples_of` returned, as batches of the series `series`."""
    for block in blocks:
        ids = np.full(len(block), series, np.uint32)
        for piece in pieces(SampleBatch(ids, block.times, block.values)):
            yield admit(piece, window, findings, lambda row: name())


def admit(batch: SampleBatch, window: Window, findings: Findings, name: Callable[[int], str]) -> SampleBatch:
    """The rows whose time is in the window. The others are refused; `name(row)` says whose they are."""
    oldest, newest = window
    times = batch.times
    if not len(times) or (int(times.min()) >= oldest and int(times.max()) <= newest):
        return batch
    early, late = times < oldest, times > newest
    for reason, refused, limit in ((Reason.TOO_OLD, early, oldest), (Reason.TOO_NEW, late, newest)):
        rows = np.flatnonzero(refused)
        if len(rows):
            which = "oldest" if reason is Reason.TOO_OLD else "newest"
            what = f"{name(int(rows[0]))}: time {times[rows[0]]} ms is out of bounds, the {which} admitted is {limit}"
            findings.refuse(reason, what, len(rows))
    kept = ~(early | late)
    return SampleBatch(batch.series[kept], times[kept], batch.values[kept])


def gathered(batches: Iterator[SampleBatch]) -> Iterator[SampleBatch]:
    """The same rows with small batches joined, since storing a batch costs as much as decoding a hundred rows.

    Empty batches, the pauses, go through. Rows before an error are handed over before it is raised.
    """
    held: list[SampleBatch] = []
    rows = 0
    try:
        for batch in batches:
            if len(batch) == 0:
                yield batch
                continue
            if rows + len(batch) > BATCH_ROWS or len(held) == _MAX_HELD:
                yield joined(held)
                held, rows = [], 0
            held.append(batch)
            rows += len(batch)
    except BadInput:
        if held:
            yield joined(held)
        raise
    if held:
        yield joined(held)


def pieces(batch: SampleBatch) -> Iterator[SampleBatch]:
    """The batch in parts of at most BATCH_ROWS rows."""
    if len(batch) <= BATCH_ROWS:
        yield batch
        return
    for start in range(0, len(batch), BATCH_ROWS):
        part = slice(start, start + BATCH_ROWS)
        yield SampleBatch(batch.series[part], batch.times[part], batch.values[part])
