"""Events in columns, which of them fulfil a filter, and how they go out."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.live.fields import ABSENT, field_of
from streamgauge.live.filters import EventFilter, FieldTerm, Op
from streamgauge.live.messages import TEXT, joined_texts, strings, taken, times_of
from streamgauge.live.projection import Fields, Projection
from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.model.event_source import Path
from streamgauge.model.events import EventBatch
from streamgauge.wire.json_values import read_json

MAX_EVENT_BYTES = 1 << 20
"""Of an event that a tail shows and looks into: to parse more takes longer than a turn of the event loop may."""

_PLAIN = re.compile(r"[A-Za-z0-9_.:@ -]+", re.ASCII)
"""Texts that JSON spells in two ways only: as they are, and with \\u."""
_ORDER: Mapping[Op, Callable[[Any, Any], bool]] = {
    Op.GREATER: operator.gt,
    Op.LESS: operator.lt,
    Op.AT_LEAST: operator.ge,
    Op.AT_MOST: operator.le,
}
_EXACT = float(1 << 53)
_WORDS = {True: "true", False: "false", None: "null"}


@dataclass(eq=False)
class EventRows:
    """Columns of one length. `payloads` is large_string, times are ns.

    projection: of all fields that will be asked for. Where there is none, payloads are parsed whole.
    """

    streams: Int64s
    indexes: Int64s
    times: Int64s
    payloads: Any
    projection: Projection | None = None
    _parsed: dict[int, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.streams)

    @staticmethod
    def of(batches: Sequence[EventBatch]) -> EventRows:
        counts = [len(batch) for batch in batches]
        payloads = [batch.payloads for batch in batches]
        return EventRows(
            np.repeat(np.array([batch.stream.id for batch in batches], np.int64), counts),
            np.concatenate([np.arange(batch.first, batch.first + len(batch)) for batch in batches]),
            np.repeat(np.array([batch.time for batch in batches], np.int64), counts),
            (payloads[0] if len(payloads) == 1 else pa.concat_arrays(payloads)).cast(TEXT),
        )

    @staticmethod
    def of_batch(batch: pa.RecordBatch) -> EventRows:
        """With the columns that model.event_source.EVENT_COLUMNS has."""
        streams, indexes, received = (batch.column(number).to_numpy() for number in range(3))
        return EventRows(streams, indexes, received, batch.column(3).cast(TEXT))

    @staticmethod
    def together(parts: Sequence[EventRows]) -> EventRows:
        """In order of time and, within an append, of their indexes: as they came."""
        streams = np.concatenate([part.streams for part in parts])
        indexes = np.concatenate([part.indexes for part in parts])
        times = np.concatenate([part.times for part in parts])
        order = np.lexsort((indexes, times))
        payloads = pa.concat_arrays([part.payloads for part in parts])
        return EventRows(streams[order], indexes[order], times[order], taken(payloads, order))

    def slice(self, start: int, stop: int, projection: Projection | None = None) -> EventRows:
        part = slice(start, stop)
        payloads = self.payloads[start:stop]
        return EventRows(self.streams[part], self.indexes[part], self.times[part], payloads, projection)

    def take(self, rows: Int64s) -> EventRows:
        if len(rows) == len(self):
            return self
        return EventRows(self.streams[rows], self.indexes[rows], self.times[rows], taken(self.payloads, rows))

    @cached_property
    def sizes(self) -> Int64s:
        """Bytes of the payloads."""
        sizes: Int64s = pc.binary_length(self.payloads).to_numpy(zero_copy_only=False)
        return sizes

    def fields(self, path: Path, rows: Int64s) -> list[Any]:
        """What the payloads of some rows have at a path. None of these is larger than MAX_EVENT_BYTES. Each is parsed
        once, however many ask for it."""
        if self._projected is not None:
            column = self._projected.column(path)
            return column if len(rows) == len(column) else [column[row] for row in rows.tolist()]
        parsed = self._parsed
        numbers = rows.tolist()
        missing = [row for row in numbers if row not in parsed]
        if missing:
            texts = taken(self.payloads, np.array(missing)).to_pylist()
            parsed.update(zip(missing, map(read_json, texts), strict=True))
        return [field_of(parsed[row], path) for row in numbers]

    @cached_property
    def _projected(self) -> Fields | None:
        if self.projection is None:
            return None
        small = self.sizes <= MAX_EVENT_BYTES
        payloads = self.payloads if small.all() else pc.if_else(pa.array(small), self.payloads, pa.scalar("null", TEXT))
        return self.projection.read(payloads.to_pylist())

    # ---- matching ---------------------------------------------------------------------------------------------------

    def matching(self, wanted: EventFilter, streams: Collection[int] | None) -> tuple[Int64s, int]:
        """Rows that fulfil a filter, and how many may do so and were not looked into because they are too large.

        streams: the numbers of the streams that it wants; None is all of them.
        """
        mask = np.ones(len(self), np.bool_)
        if streams is not None:
            mask &= np.isin(self.streams, np.array(sorted(streams), np.int64))
        for text in wanted.texts:
            mask &= _contains(self.payloads, text)
        if not wanted.terms:
            return np.flatnonzero(mask), 0
        small = self.sizes <= MAX_EVENT_BYTES
        unchecked = int(np.count_nonzero(mask & ~small))
        mask &= small
        for term in wanted.terms:
            mask &= self._fulfilling(term, mask)
        return np.flatnonzero(mask), unchecked

    def _fulfilling(self, term: FieldTerm, among: Bools) -> Bools:
        """Which of some rows fulfil a term. Where payloads are parsed whole, only those in which its name occurs."""
        candidates = among if self.projection is not None else among & _may_have(self.payloads, term)
        rows = np.flatnonzero(candidates)
        found = np.full(len(self), term.op.negative)
        found[rows] = _decided(term, self.fields(term.path, rows))
        return found

    # ---- going out --------------------------------------------------------------------------------------------------

    def messages(self) -> tuple[Any, Any]:
        """Positions and JSON texts, large_string each, one an event."""
        times = times_of(self.times, "ns")
        indexes = strings(self.indexes)
        payloads = self.payloads
        large = self.sizes > MAX_EVENT_BYTES
        if large.any():
            notes = joined_texts('null,"payload_bytes":', strings(self.sizes))
            payloads = pc.if_else(pa.array(large), notes, payloads)
        if pc.any(pc.match_substring_regex(payloads, "[\r\n]")).as_py():  # only as white space between tokens
            payloads = pc.replace_substring_regex(payloads, "[\r\n]+", " ")
        texts = joined_texts(
            '{"stream_id":', strings(self.streams), ',"stream_event_index":', indexes, ',"time":"', times,
            '","payload":', payloads, "}",
        )  # fmt: skip
        return joined_texts(times, "/", indexes), texts


def _may_have(payloads: Any, term: FieldTerm) -> Bools:
    needed = []
    if _PLAIN.fullmatch(term.path[-1]):
        needed.append(f'{term.path[-1]}"')
    if term.op is Op.EQUAL and term.number is None and _PLAIN.fullmatch(term.text):
        needed.append(term.text)
    mask = np.ones(len(payloads), np.bool_)
    for text in needed:
        mask &= _contains(payloads, text)
    return mask if not needed or mask.all() else mask | _contains(payloads, "\\u")


def _contains(payloads: Any, text: str) -> Bools:
    mask: Bools = pc.match_substring(payloads, text).to_numpy(zero_copy_only=False)
    return mask


def _decided(term: FieldTerm, values: Sequence[Any]) -> Bools:
    if term.op in (Op.MATCH, Op.NOT_MATCH):
        texts: Any = pa.array([_text(value) for value in values], TEXT)
        matched: Any = pc.fill_null(pc.match_substring_regex(texts, term.text), False)
        mask: Bools = matched.to_numpy(zero_copy_only=False) != term.op.negative
        return mask
    if term.op in _ORDER and term.number is not None and (numbers := _exact_numbers(values)) is not None:
        return np.asarray(_ORDER[term.op](numbers, term.number), np.bool_)
    if term.op in _ORDER:
        return np.fromiter((_ordered(term, value) for value in values), np.bool_, len(values))
    return np.fromiter((_equals(term, value) != term.op.negative for value in values), np.bool_, len(values))


def _exact_numbers(values: Sequence[Any]) -> Floats | None:
    """The values, where all are absent (NaN, which is in no order) or numbers that a double holds exactly."""
    kinds = set(map(type, values))
    if not kinds <= {int, float, type(ABSENT)}:
        return None
    try:
        numbers = np.array([math.nan if value is ABSENT else value for value in values], np.float64)
    except OverflowError:
        return None
    return None if int in kinds and (np.abs(numbers) > _EXACT).any() else numbers


def _text(value: Any) -> str | None:
    """What a regular expression is applied to."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    return str(value) if isinstance(value, int | float) else None


def _equals(term: FieldTerm, value: Any) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return term.number is not None and value == term.number
    return _text(value) == term.text


def _ordered(term: FieldTerm, value: Any) -> bool:
    """Numbers with a number, texts with a text that is none."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        return term.number is not None and _ORDER[term.op](value, term.number)
    return isinstance(value, str) and term.number is None and _ORDER[term.op](value, term.text)
