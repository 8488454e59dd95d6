"""Samples to remote-write requests, 1.0 and 2.0: the opposite of `remote_write_v1` and `remote_write_v2`.

What is the same in each request is made once: of a series its labels, encoded (1.0) or as codes of symbols (2.0), which
a sender keeps. Times and values are written in columns.

Specifications: https://prometheus.io/docs/specs/prw/remote_write_spec/, …/remote_write_spec_2_0/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from streamgauge.model.arrays import Floats, Int64s, UInt8s, UInt32s
from streamgauge.model.batch import Metadata
from streamgauge.model.labels import NAME
from streamgauge.wire.findings import TYPES
from streamgauge.wire.protobuf import encoded_varint
from streamgauge.wire.snappy import compress
from streamgauge.wire.varints import ragged, varint_lengths, varint_matrix

Pairs = Sequence[tuple[bytes, bytes]]
"""Labels of a series, in byte order of their names."""

MAX_SYMBOL_BYTES = 64 << 20
"""Of the symbols that are kept from request to request: some 500,000 names and values."""
_FORM_OVERHEAD = 150
_SYMBOL_OVERHEAD = 200  # bytes of a symbol in memory beside its text

_SAMPLE_HEAD = np.array([0x12, 0, 0x09], np.uint8)  # a sample of so many bytes, its value
_TIME_AT = 3 + 8
_SUFFIXES = (b"_bucket", b"_count", b"_sum", b"_total", b"_created")


@dataclass(frozen=True, slots=True)
class SeriesForm:
    """What is kept of a series. size: bytes in memory, roughly. labels: 1.0's fields of them. codes: 2.0's, of name,
    value, name, value, …"""

    metric: bytes
    size: int
    labels: bytes = b""
    codes: UInt32s | None = None


class Encoder(Protocol):
    """Used on one thread at a time. headers: of requests, with the content type and coding."""

    headers: Mapping[str, str]

    @property
    def full(self) -> bool:
        """Too much has gathered: `clear`, and make every form anew."""

    def clear(self) -> None: ...

    def form(self, pairs: Pairs) -> SeriesForm:
        """Raises BadInput for labels that it cannot write."""

    def describe(self, metadata: Sequence[Metadata]) -> None:
        """What is known of metrics, for messages that say it beside the samples."""

    def request(self, series: Sequence[SeriesForm], counts: Int64s, times: Int64s, values: Floats) -> bytes:
        """A message: counts[i] samples of the i-th series, one series behind the other."""

    def packed(self, message: bytes) -> bytes:
        """In the content coding."""


def _headers(content_type: str, version: str) -> Mapping[str, str]:
    return {
        "content-type": content_type,
        "content-encoding": "snappy",
        "x-prometheus-remote-write-version": version,
    }


class EncoderV1:
    headers = _headers("application/x-protobuf", "0.1.0")
    full = False

    def packed(self, message: bytes) -> bytes:
        return compress(message)

    def clear(self) -> None:
        pass

    def form(self, pairs: Pairs) -> SeriesForm:
        labels = b"".join(_nested(0x0A, _nested(0x0A, name) + _nested(0x12, value)) for name, value in pairs)
        return SeriesForm(dict(pairs).get(NAME, b""), _FORM_OVERHEAD + len(labels), labels)

    def describe(self, metadata: Sequence[Metadata]) -> None:
        """It goes in requests of its own: `metadata_request`."""

    def request(self, series: Sequence[SeriesForm], counts: Int64s, times: Int64s, values: Floats) -> bytes:
        samples, ends = _samples(counts, times, values)
        parts: list[bytes] = []
        begin = 0
        for form, end in zip(series, ends, strict=True):
            parts += (_head(0x0A, len(form.labels) + end - begin), form.labels, samples[begin:end])
            begin = end
        return b"".join(parts)


def metadata_request(metadata: Sequence[Metadata]) -> bytes:
    """A 1.0 message of metadata alone."""
    return b"".join(
        _nested(
            0x1A,
            b"\x08"
            + encoded_varint(_type(entry))
            + _nested(0x12, entry.metric.encode())
            + _nested(0x22, entry.help.encode())
            + _nested(0x2A, entry.unit.encode()),
        )
        for entry in metadata
    )


class EncoderV2:
    headers = _headers("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0")

    def __init__(self) -> None:
        self._described: Mapping[bytes, Metadata] = {}
        self.clear()

    @property
    def full(self) -> bool:
        return self._size > MAX_SYMBOL_BYTES

    def clear(self) -> None:
        self._codes: dict[bytes, int] = {}
        self._symbols: list[bytes] = []  # by code: as they stand in a request
        self._size = 0
        self._code(b"")
        self._tails: dict[bytes, tuple[int, int, int] | None] = {}  # by metric: type, and codes of help and unit

    def form(self, pairs: Pairs) -> SeriesForm:
        codes = np.array([self._code(text) for pair in pairs for text in pair], np.uint32)
        return SeriesForm(dict(pairs).get(NAME, b""), 2 * _FORM_OVERHEAD + codes.nbytes, codes=codes)

    def packed(self, message: bytes) -> bytes:
        return compress(message)

    def describe(self, metadata: Sequence[Metadata]) -> None:
        self._described = {entry.metric.encode(): entry for entry in metadata}
        self._tails = {}

    def request(self, series: Sequence[SeriesForm], counts: Int64s, times: Int64s, values: Floats) -> bytes:
        tails = [self._tail(form.metric) for form in series]
        rows = [form.codes for form in series if form.codes is not None]
        of_tails = np.array([code for tail in tails if tail is not None for code in tail[1:]], np.uint32)
        used, local = np.unique(np.concatenate([*rows, of_tails, np.zeros(1, np.uint32)]), return_inverse=True)
        references, reference_ends = _varints(local[: local.size - of_tails.size - 1], [len(row) for row in rows])
        tail_references = iter(local[local.size - of_tails.size - 1 : -1].tolist())
        samples, ends = _samples(counts, times, values)
        parts = [self._symbols[code] for code in used.tolist()]
        begin, sample_begin = 0, 0
        for end, sample_end, tail in zip(reference_ends, ends, tails, strict=True):
            labels = _nested(0x0A, references[begin:end])
            described = b"" if tail is None else _described(tail[0], next(tail_references), next(tail_references))
            size = len(labels) + sample_end - sample_begin + len(described)
            parts += (_head(0x2A, size), labels, samples[sample_begin:sample_end], described)
            begin, sample_begin = end, sample_end
        return b"".join(parts)

    def _code(self, text: bytes) -> int:
        code = self._codes.setdefault(text, len(self._symbols))
        if code == len(self._symbols):
            self._symbols.append(_nested(0x22, text))
            self._size += 2 * len(text) + _SYMBOL_OVERHEAD
        return code

    def _tail(self, metric: bytes) -> tuple[int, int, int] | None:
        if metric not in self._tails:
            entry = self._described.get(metric) or next(
                (
                    self._described[family]
                    for suffix in _SUFFIXES
                    if metric.endswith(suffix) and (family := metric.removesuffix(suffix)) in self._described
                ),
                None,
            )
            tail = None
            if entry is not None:
                tail = (_type(entry), self._code(entry.help.encode()), self._code(entry.unit.encode()))
            self._tails[metric] = tail
        return self._tails[metric]


def _type(entry: Metadata) -> int:
    return TYPES.index(entry.type) if entry.type in TYPES else 0


def _described(kind: int, help_reference: int, unit_reference: int) -> bytes:
    return _nested(
        0x2A,
        b"\x08"
        + encoded_varint(kind)
        + b"\x18"
        + encoded_varint(help_reference)
        + b"\x20"
        + encoded_varint(unit_reference),
    )


def _samples(counts: Int64s, times: Int64s, values: Floats) -> tuple[bytes, list[int]]:
    """The fields of all samples, one behind the other, and where those of each series end."""
    unsigned = times.astype(np.int64).view(np.uint64)
    lengths = varint_lengths(unsigned)
    written = varint_matrix(unsigned, lengths)
    matrix: UInt8s = np.empty((len(times), _TIME_AT + 1 + written.shape[1]), np.uint8)
    matrix[:, :3] = _SAMPLE_HEAD
    matrix[:, 1] = lengths + (_TIME_AT - 1)
    matrix[:, 3:_TIME_AT] = np.ascontiguousarray(values, "<f8").view(np.uint8).reshape(-1, 8)
    matrix[:, _TIME_AT] = 0x10
    matrix[:, _TIME_AT + 1 :] = written
    sizes = lengths + (_TIME_AT + 1)
    ends = np.concatenate(([0], np.cumsum(sizes)))[np.cumsum(counts)]
    return ragged(matrix, sizes).tobytes(), ends.tolist()


def _varints(numbers: Int64s, counts: Sequence[int]) -> tuple[bytes, list[int]]:
    """Numbers as varints, one behind the other, and where each stretch of `counts` of them ends."""
    unsigned = numbers.astype(np.uint64)
    lengths = varint_lengths(unsigned)
    ends = np.concatenate(([0], np.cumsum(lengths)))[np.cumsum(counts)]
    return ragged(varint_matrix(unsigned, lengths), lengths).tobytes(), ends.tolist()


@lru_cache(1 << 14)
def _head(tag: int, size: int) -> bytes:
    """Tag and length of a field. Kept: the sizes of series are few."""
    return bytes([tag]) + encoded_varint(size)


def _nested(tag: int, content: bytes) -> bytes:
    return _head(tag, len(content)) + content
