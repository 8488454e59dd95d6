"""Samples in the InfluxDB line protocol: a field becomes the metric measurement_field, tags its labels.

Lines of the usual form, without quotes, backslashes and anything that is odd, are divided and read in columns; each
spelling of a series is parsed once. Any other line is looked at alone (`influx_lines`), and refused when it is none.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.model.batch import SampleBatch, empty_batch
from streamgauge.model.labels import NAME
from streamgauge.wire.exposition_text import Pairs
from streamgauge.wire.findings import MAX_EXAMPLES, Findings, Reason
from streamgauge.wire.influx_columns import Columns, columns_of
from streamgauge.wire.influx_lines import (
    MAX_LINE_BYTES,
    Line,
    Precision,
    plain,
    read_key,
    read_line,
)
from streamgauge.wire.samples import NEW_AT_ONCE, Window, admit, pieces
from streamgauge.wire.series_cache import Resolve, identify

CACHE_BYTES = 64 << 20
"""Of spellings of series: some 250,000 of usual names never leave it."""
_WINDOW_BYTES = 65_536
"""Read at once, in columns: 2,000 values of usual names."""
_WINDOW_LINES = 1_000
"""Beyond which lines are short, so that fewer bytes are read at once; and the most that are cut one by one, since some
have quotes or backslashes."""
_SINGLES = 100
"""Lines looked at one by one before other tasks get their turn: about a millisecond."""
_FIELDS, _BYTES_AS_FIELD = 500, 256
"""Fields looked at by their names before others get their turn, about a millisecond; a long key counts as some more."""
_SHOWN = 80  # bytes of a line in a message
_LINE = re.compile(
    rb"(?:[^\\ \n]|\\(?:.|\Z))*+"
    rb'(?: (?:[^\\\n=]|\\(?:.|\Z)|=(?:"(?:[^"\\]|\\(?:.|\Z))*+(?:"|\Z))?+)*+)?',
    re.DOTALL,
)
"""As far as a line goes: line feeds behind a backslash, and between quotes that begin a value, are part of it."""

_REFUSED = -1
"""In place of the id of a series that the store does not take."""
_MAX_KEY_BYTES = 2_048
"""Of a key that is spelled anew for each of its fields in the cache: there may be thousands."""
_ENTRY_BYTES, _ID_BYTES = 200, 40  # of an entry of the cache, and of each id in it (measured)


class InfluxCache:
    """Ids of the series of lines by how these are spelled: key, space, fields with commas between them. In two
    generations: when the young one has half of the limit it becomes the old one, and the old one goes. `limit` is in
    bytes; one window of lines may go beyond it."""

    def __init__(self, limit: int = CACHE_BYTES, generation: int | None = None) -> None:
        self._limit = limit
        self._generation = generation
        self._young: dict[bytes, tuple[int, ...]] = {}
        self._old: dict[bytes, tuple[int, ...]] = {}
        self._young_size = self._old_size = 0

    @property
    def size(self) -> int:
        """Bytes."""
        return self._young_size + self._old_size

    def all_of(self, spellings: Sequence[bytes]) -> list[tuple[int, ...] | None]:
        return list(map(self._young.get, spellings))

    def get(self, spelling: bytes) -> tuple[int, ...] | None:
        known = self._young.get(spelling)
        if known is None and (known := self._old.pop(spelling, None)) is not None:
            self.put(spelling, known)
        return known

    def put(self, spelling: bytes, ids: tuple[int, ...]) -> None:
        self._young[spelling] = ids
        self._young_size += len(spelling) + _ENTRY_BYTES + _ID_BYTES * len(ids)

    def for_generation(self, generation: int) -> InfluxCache:
        """The cache for a request that begins: this one, or an empty one where its ids are of another generation."""
        return self if generation == self._generation else InfluxCache(self._limit, generation)

    def trim(self) -> None:
        """Keep to the limit."""
        if self._young_size > self._limit // 2:
            self._old, self._old_size = self._young, self._young_size
            self._young, self._young_size = {}, 0


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Samples. lines: numbers of their lines in the body, from 1. ids: of series, or what stands in place of one."""

    lines: Int64s
    ids: Int64s
    times: Int64s
    values: Floats

    def take(self, which: Bools | Int64s) -> _Rows:
        return _Rows(self.lines[which], self.ids[which], self.times[which], self.values[which])

    def together(self, other: _Rows) -> _Rows:
        """These and others, in the order of lines."""
        rows = _Rows(
            np.concatenate((self.lines, other.lines)),
            np.concatenate((self.ids, other.ids)),
            np.concatenate((self.times, other.times)),
            np.concatenate((self.values, other.values)),
        )
        return rows.take(np.argsort(rows.lines, kind="stable"))


@dataclass(slots=True)
class _Singles:
    """Samples that were read one by one, on their way into columns."""

    lines: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, line: int, series: int, time: int, value: float) -> None:
        self.lines.append(line)
        self.ids.append(series)
        self.times.append(time)
        self.values.append(value)

    def rows(self) -> _Rows:
        return _Rows(
            np.array(self.lines, np.int64),
            np.array(self.ids, np.int64),
            np.array(self.times, np.int64),
            np.array(self.values, np.float64),
        )


def decode(
    data: bytes,
    precision: Precision,
    now: int,
    cache: InfluxCache,
    resolve: Resolve,
    window: Window,
    findings: Findings,
) -> Iterator[SampleBatch]:
    """The samples of a body, in batches of at most 2,000; empty ones are pauses, so that other tasks get their turn.

    now: ms, the time of lines without one. Each line stands alone: what is wrong is in `findings`, in InfluxDB's words,
    and a line of which one field is refused keeps the others.
    """
    decoder = _Decoder(data, precision, now, cache, resolve, window, findings)
    while decoder.at < len(data):
        yield from decoder.batches()
        cache.trim()


class _Decoder:
    """Of one body. at: where its next line begins."""

    def __init__(
        self,
        data: bytes,
        precision: Precision,
        now: int,
        cache: InfluxCache,
        resolve: Resolve,
        window: Window,
        findings: Findings,
    ) -> None:
        self.at = 0
        self._data = data
        self._precision = precision
        self._now = now
        self._cache = cache
        self._resolve = resolve
        self._window = window
        self._findings = findings
        self._line = 0  # lines so far
        self._new = 0  # series met since the last pause
        self._work = 0  # fields looked at since then, and what that takes beside
        self._read: tuple[bytes, tuple[bytes, Pairs] | BadInput] | None = None  # the last key, and what it says

    def batches(self) -> Iterator[SampleBatch]:
        """The samples of the next lines, of 64 KiB together or a single one."""
        block, numbers, odd = self._cut()
        rows = _Singles().rows()
        if block:
            columns = columns_of(block, self._precision, self._now)
            rows, unreadable = yield from self._identified(columns, numbers)
            if len(unreadable):
                lines = block.split(b"\n")
                texts = map(lines.__getitem__, unreadable.tolist())
                odd = sorted([*odd, *zip(numbers[unreadable].tolist(), texts, strict=True)])
        if odd:
            rows = rows.together((yield from self._singles(odd)))
        batch = SampleBatch(rows.ids.astype(np.uint32), rows.times, rows.values)
        at = 0
        for piece in pieces(batch):
            first = at
            yield admit(piece, self._window, self._findings, lambda row: f"line {rows.lines[first + row]}")  # noqa: B023
            at += len(piece)

    # ---- lines ------------------------------------------------------------------------------------------------------

    def _cut(self) -> tuple[bytes, Int64s, list[tuple[int, bytes]]]:
        """Lines without quotes and backslashes, one behind the other, and the number of each; and the others, each with
        its number."""
        data, at = self._data, self.at
        end = len(data) if len(data) - at <= _WINDOW_BYTES else data.rfind(b"\n", at, at + _WINDOW_BYTES) + 1
        if end and data.count(b"\n", at, end) > _WINDOW_LINES:
            end = data.rfind(b"\n", at, at + _WINDOW_BYTES // 16) + 1
        if end:
            block = data[at:end]
            if b'"' not in block and b"\\" not in block:
                block += b"" if block.endswith(b"\n") else b"\n"
                self.at = end
                first, self._line = self._line, self._line + block.count(b"\n")
                return block, np.arange(first + 1, self._line + 1), []
        clean: list[tuple[int, bytes]] = []
        odd: list[tuple[int, bytes]] = []
        while self.at < (end or at + 1) and len(clean) + len(odd) < _WINDOW_LINES:
            line = self._next()
            (odd if b'"' in line or b"\\" in line else clean).append((self._line, line))
        block = b"".join(line + b"\n" for _, line in clean)
        return block, np.array([number for number, _ in clean], np.int64), odd

    def _next(self) -> bytes:
        """The next line. One that is too long is refused, and empty."""
        self._line += 1
        data, at = self._data, self.at
        if data.startswith(b"#", at):
            end = data.find(b"\n", at)
            self.at = len(data) if end < 0 else end + 1
            return b""
        found = _LINE.match(data, at, at + MAX_LINE_BYTES + 1)
        assert found is not None  # it matches nothing, too
        end = found.end()
        if end - at > MAX_LINE_BYTES:
            what = f"{_unable(data[at : at + _SHOWN])}: the line has more than {MAX_LINE_BYTES} bytes"
            self._findings.refuse(Reason.LINE_TOO_LONG, what)
            end = data.find(b"\n", end - 1)
            self.at = len(data) if end < 0 else end + 1
            return b""
        self.at = end + 1
        return data[at:end]

    # ---- in columns -------------------------------------------------------------------------------------------------

    def _identified(self, columns: Columns, numbers: Int64s) -> Generator[SampleBatch, None, tuple[_Rows, Int64s]]:
        """The samples that have a series in the store, and the lines of the block that are to be looked at alone."""
        found = self._cache.all_of(columns.spellings)
        unreadable: list[int] = []
        for row in [row for row, ids in enumerate(found) if ids is None]:
            try:
                found[row] = yield from self._line_of_series(columns.spellings[row])
            except BadInput:
                unreadable.append(row)
                found[row] = (_REFUSED,) * int(columns.counts[row])
        ids = np.fromiter(chain.from_iterable(filter(None, found)), np.int64, len(columns.values))
        lines = np.repeat(columns.lines, columns.counts)
        rows = _Rows(numbers[lines], ids, np.repeat(columns.times, columns.counts), columns.values)
        odd = np.union1d(columns.odd, columns.lines[unreadable])
        kept = ids != _REFUSED
        return (rows if kept.all() else rows.take(kept)), odd

    def _line_of_series(self, spelling: bytes) -> Generator[SampleBatch, None, tuple[int, ...]]:
        """The ids of the series of a line that is not in the young cache, _REFUSED for those that the store does not
        take, which are noted. Raises BadInput where its key is none."""
        known = self._cache.get(spelling)
        if known is not None:
            return known
        key, _, names = spelling.rpartition(b" ")
        ids: list[int] = []
        for name in names.split(b","):
            ids.append(self._series(key, name))
            if self._pause_is_due(key):
                yield empty_batch()
        if _REFUSED not in ids:
            self._cache.put(spelling, tuple(ids))
        return tuple(ids)

    def _series(self, key: bytes, name: bytes) -> int:
        """The id of one series, or _REFUSED, which is noted. Raises BadInput where the key is none."""
        spelling = key + b" " + name
        if (known := self._cache.get(spelling)) is not None:
            return known[0]
        self._new += 1
        measurement, tags = self._key(key)
        plain_name = plain(name)
        if wrong := _reserved(measurement, tags, plain_name):
            self._refuse(Reason.LABELS, wrong)
            return _REFUSED
        series = identify([(NAME, measurement + b"_" + plain_name), *tags], 1, self._resolve, self._findings)
        if series is None:
            return _REFUSED
        if len(key) <= _MAX_KEY_BYTES:
            self._cache.put(spelling, (series,))
        return series

    def _key(self, key: bytes) -> tuple[bytes, Pairs]:
        """`read_key`, once for all fields of a line."""
        if self._read is None or self._read[0] != key:
            try:
                self._read = key, read_key(key)
            except BadInput as error:
                self._read = key, error
        found = self._read[1]
        if isinstance(found, BadInput):
            raise found
        return found

    def _pause_is_due(self, key: bytes) -> bool:
        """After each field. key: that it was looked up by."""
        self._work += 1 + len(key) // _BYTES_AS_FIELD
        if self._new < NEW_AT_ONCE and self._work < _FIELDS:
            return False
        self._new = self._work = 0
        return True

    # ---- line by line -----------------------------------------------------------------------------------------------

    def _singles(self, lines: Sequence[tuple[int, bytes]]) -> Generator[SampleBatch, None, _Rows]:
        """The samples of lines that are looked at one by one."""
        singles = _Singles()
        for count, (number, text) in enumerate(lines, 1):
            try:
                line = read_line(text, self._precision)
                if line is not None:
                    yield from self._single(number, line, singles)
            except BadInput as error:
                self._findings.refuse(Reason.LINE, f"{_unable(text.lstrip())}: {error.message}")
            if count % _SINGLES == 0:
                yield empty_batch()
        return singles.rows()

    def _single(self, number: int, line: Line, singles: _Singles) -> Iterator[SampleBatch]:
        """Raises BadInput, before anything is taken of it, for a line whose key is none."""
        time = self._now if line.time is None else line.time
        for name, value in line.fields:
            if value is None:
                self._refuse(Reason.STRING, _is_text(self._key(line.key)[0], plain(name)))
            elif (series := self._series(line.key, name)) != _REFUSED:
                singles.add(number, series, time, value)
            if self._pause_is_due(line.key):
                yield empty_batch()

    def _refuse(self, reason: Reason, what: str, count: int = 1) -> None:
        """Tell of each field once."""
        examples = self._findings.examples
        if len(examples) >= MAX_EXAMPLES or what in examples:
            self._findings.refused[reason] += count
        else:
            self._findings.refuse(reason, what, count)


def _reserved(measurement: bytes, tags: Sequence[tuple[bytes, bytes]], name: bytes) -> str:
    """What InfluxDB says of a tag or field called time; "" where none is."""
    if name == b"time":
        return f'invalid field name: input field "time" on measurement "{_text(measurement)}" is invalid'
    if any(tag == b"time" for tag, _ in tags):
        return f'invalid tag key: input tag "time" on measurement "{_text(measurement)}" is invalid'
    return ""


def _is_text(measurement: bytes, name: bytes) -> str:
    return (
        f'field type conflict: input field "{_text(name)}" on measurement "{_text(measurement)}" is type string, '
        "already exists as type float"
    )


def _unable(line: bytes) -> str:
    return f"unable to parse '{_text(line)}'"


def _text(raw: bytes) -> str:
    shown = raw[:_SHOWN].decode(errors="backslashreplace")
    return f"{shown}…" if len(raw) > _SHOWN else shown
