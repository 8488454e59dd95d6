"""What readers of import files have in common: what they hand over, and how they read columns of numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.model.labels import series_key
from streamgauge.wire.exposition_text import Pairs
from streamgauge.wire.findings import Findings, Reason
from streamgauge.wire.sample_table import SeriesRows
from streamgauge.wire.series_text import series_text

CACHE_BYTES = 256 << 20
"""Of spellings of series that a reader remembers; when they are more, it begins anew."""
_ENTRY_BYTES = 300  # of one in a dictionary, beside the texts (measured)

_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_VALUE = rf"(?:{_NUMBER})|(?i:^[+-]?inf(?:inity)?$)|(?i:^nan$)"
_INTEGER = r"^-?[0-9]{1,18}$"

_ZERO, _MINUS = np.uint8(48), 45

MAX_SECONDS = float(1 << 53)
"""Of a time, either side of 1970: more than any calendar needs."""


@dataclass(frozen=True, slots=True, eq=False)
class Imported:
    """The samples of one block.

    rows: their `texts` is the reader's table, which other blocks share. places: the line, or the request, of each
    sample, from 1. count: lines, or requests, of the block. findings: what was refused, and metadata.
    """

    rows: SeriesRows
    places: Int64s
    count: int
    findings: Findings = field(default_factory=Findings)


class Refused(Exception):
    """Raised and caught within a reader: one line gives no sample."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Reader(Protocol):
    """Reads a file a block at a time: whole lines, or whole requests. What it remembers is worth keeping for a later
    run that begins in the middle of the file; it is JSON."""

    def read(self, block: bytes | memoryview, first: int) -> Imported:
        """first: number of the block's first line, or request."""

    @property
    def unit(self) -> str:
        """What `places` are: line or request."""

    @property
    def series(self) -> int:
        """How many series there were so far."""

    @property
    def memory(self) -> Mapping[str, Any]: ...

    def remember(self, memory: Mapping[str, Any]) -> None: ...

    def end(self) -> str | None:
        """What is wrong with the file as a whole, in words, once all of it has been read."""


class Spellings:
    """From what spells a series in a file to its number, and the text for the server. Labels are checked once a series.

    labels_of: reads a spelling; raises BadInput for what is no series. texts: by number. series: how many there were.
    """

    def __init__(self, labels_of: Callable[[bytes], Pairs]) -> None:
        self._labels_of = labels_of
        self.series = 0
        self._forget()

    def _forget(self) -> None:
        self.texts: list[bytes] = []
        self._numbers: dict[bytes, int] = {}  # by spelling
        self._by_text: dict[bytes, int] = {}
        self._size = 0

    def number(self, spelling: bytes) -> int:
        """Raises BadInput."""
        known = self._numbers.get(spelling)
        if known is None:
            pairs = [(name, value) for name, value in self._labels_of(spelling) if value]
            series_key(pairs)
            text = series_text(sorted(pairs))
            known = self._numbers[spelling] = self._by_text.setdefault(text, len(self.texts))
            if known == len(self.texts):
                self.texts.append(text)
                self.series += 1
            self._size += len(spelling) + len(text) + _ENTRY_BYTES
        return known

    def known(self, spelling: bytes) -> int | None:
        return self._numbers.get(spelling)

    def codes(self, series: Any) -> Int64s:
        """The number of each spelling in an Arrow array of bytes; -1 for what is no series."""
        distinct = series.dictionary_encode()
        numbers = self.numbers(distinct.dictionary.to_pylist())
        codes: Int64s = numbers[distinct.indices.to_numpy(zero_copy_only=False)]
        return codes

    def numbers(self, spellings: Sequence[bytes]) -> Int64s:
        """The number of each; -1 for what is no series."""
        numbers: list[int | None] = list(map(self._numbers.get, spellings))
        if None in numbers:
            for at, known in enumerate(numbers):
                if known is None:
                    try:
                        numbers[at] = self.number(spellings[at])
                    except BadInput:
                        numbers[at] = -1
        return np.array(numbers, np.int64)

    def forget_many(self) -> bool:
        """Keep to the limit. Called between blocks; True when numbers are given anew from now on."""
        if self._size <= CACHE_BYTES:
            return False
        self._forget()
        return True


def words(block: bytes | memoryview, edges: Int64s, width: int, *which: int) -> list[Any]:
    """Every `width`-th piece of a block, from each number of `which` on, as Arrow arrays of text that nobody checked.

    edges: where pieces begin, one behind the other, ascending, and where the last one ends.
    """
    buffers = [None, pa.py_buffer(edges.astype(np.int32).tobytes()), pa.py_buffer(block)]
    pieces = pa.Array.from_buffers(pa.binary(), len(edges) - 1, buffers)
    columns = []
    for first in which:
        chosen: Any = pa.array(np.arange(first, len(edges) - 1, width, dtype=np.int32))
        taken = pieces.take(chosen)
        columns.append(pa.Array.from_buffers(pa.utf8(), len(taken), taken.buffers()))
    return columns


def values_of(texts: Any) -> tuple[Floats, Bools | None]:
    """Values, and where there are none; None instead of that where all are good. Any NaN becomes the one quiet NaN, so
    that none is a stale marker."""
    good: Bools | None = None
    try:
        values: Floats = texts.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        good = _matches(texts, _VALUE)
        unsigned: Any = pc.ascii_ltrim(texts.filter(pa.array(good)), "+")  # which Arrow does not take
        values = _spread(unsigned.cast(pa.float64()).to_numpy(zero_copy_only=False), good, np.float64)
    odd = np.flatnonzero(~np.isfinite(values))
    if len(odd):
        if good is None:
            good = np.ones(len(values), np.bool_)
            good[odd] = _matches(texts.take(pa.array(odd)), _VALUE)  # Arrow knows more spellings of NaN
        values = np.where(np.isnan(values), np.nan, values)
    return values, None if good is None or good.all() else ~good


def seconds_of(texts: Any) -> tuple[Int64s, Bools | None]:
    """Times in ms from seconds with decimals, rounded, and where there are none."""
    try:
        seconds, good = texts.cast(pa.float64()).to_numpy(zero_copy_only=False), None
    except pa.ArrowInvalid:
        good = _matches(texts, _NUMBER)
        seconds = _spread(
            texts.filter(pa.array(good)).cast(pa.float64()).to_numpy(zero_copy_only=False), good, np.float64
        )
    inside = np.abs(seconds) <= MAX_SECONDS  # which no NaN and no infinity is
    if not inside.all():
        good = inside if good is None else good & inside
        seconds = np.where(inside, seconds, 0.0)
    return np.rint(seconds * 1000).astype(np.int64), None if good is None else ~good


def milliseconds_of(texts: Any) -> tuple[Int64s, Bools | None]:
    """Times in ms from whole numbers, and where there are none."""
    if _has_only_digits(texts):
        with contextlib.suppress(pa.ArrowInvalid):
            return texts.cast(pa.int64()).to_numpy(zero_copy_only=False), None
    good = _matches(texts, _INTEGER)
    some = texts.filter(pa.array(good)).cast(pa.int64()).to_numpy(zero_copy_only=False)
    return _spread(some, good, np.int64), ~good


def _has_only_digits(texts: Any) -> bool:
    """Whether there is nothing but digits and minus signs, so that a cast reads no more into a text than it says."""
    _, offsets, data = texts.buffers()
    if not len(texts) or data is None:
        return True
    stop = int(np.frombuffer(offsets, np.int32, len(texts) + 1)[-1])
    raw = np.frombuffer(data, np.uint8, stop)
    return bool(((raw - _ZERO <= 9) | (raw == _MINUS)).all())  # unsigned: what is below zero is large


def _matches(texts: Any, pattern: str) -> Bools:
    found: Any = pc.match_substring_regex(texts.cast(pa.binary()), pattern)
    matches: Bools = found.to_numpy(zero_copy_only=False)
    return matches


def _spread(some: Any, good: Bools, kind: Any) -> Any:
    """The values at the places that are good, and zeros between them."""
    spread = np.zeros(len(good), kind)
    spread[good] = some
    return spread
