"""Answers to remote read: series and samples in either form, as pieces of about a MiB.

SAMPLES is one message, which goes out as one snappy block (not here: that is the answer's content coding):

    ReadResponse   1: QueryResult, one for each query
    QueryResult    1: TimeSeries, repeated
    TimeSeries     1: Label, repeated   2: Sample, repeated
    Sample         1: value, double   2: time, ms        12 length { 09 value 10 time }

STREAMED_XOR_CHUNKS is a stream of frames, each with a series or a part of one:

    frame                 length of the message as a varint; its CRC-32C, big-endian; the message
    ChunkedReadResponse   1: ChunkedSeries   2: number of the query, from 0
    ChunkedSeries         1: Label, repeated   2: Chunk, repeated
    Chunk                 1: first time, ms   2: last time, ms   3: encoding, 1 for XOR   4: the chunk itself

Both are picklable values: made where the request is read, used where the samples are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from streamgauge.model.arrays import Floats, Int64s, UInt8s, cut
from streamgauge.model.source import Samples, Selection
from streamgauge.wire import xor_chunks
from streamgauge.wire.byte_strings import byte_strings, content, joined, lengths_of, parts
from streamgauge.wire.crc32c import crc32c
from streamgauge.wire.label_pairs import LabelPairs
from streamgauge.wire.varints import ragged, varint_lengths, varint_matrix, varints
from streamgauge.wire.xor_chunks import CHUNK_SAMPLES, MAX_CHUNK_BYTES

MAX_FRAME_BYTES = 1 << 20
"""A frame's message: as Prometheus has it, so that a reader knows how much it may have to hold. Only labels that are
longer by themselves would make a longer one."""

_PIECE_BYTES = 1 << 20
_PIECE_SAMPLES = 1 << 16

_SAMPLE_WEIGHT = 16
_PIECE_WEIGHT = 2 << 20
"""What is encoded together, in bytes of samples and labels as they are held: a thousand chunks, so that going through
all of them one sample each costs little."""
_LONGEST_PIECE = 1 << 12
"""Chunks of one series that are encoded together: with 2 bytes a sample about a frame."""
_MOST_CHUNK_BYTES = MAX_CHUNK_BYTES + 64  # with its times, length and tags
_LENGTH_BYTES = 64
"""More than tags, lengths and the number of the query add to what a frame holds."""

_VALUE_BYTES = 12  # of a sample: all but its time
_XOR = b"\x18\x01"


# ---- SAMPLES --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SamplesFormat:
    """Writes a ReadResponse. `encode` is called once for each query, in their order."""

    content_type: str = "application/x-protobuf"

    def encode(self, query: int, selection: Selection) -> Iterator[bytes]:
        """The QueryResult of one query, whose number shows in its place alone."""
        samples, labels = selection.samples, LabelPairs(selection.labels)
        sample_sizes = _sample_sizes(samples)
        contents = labels.sizes() + sample_sizes
        sizes = 1 + varint_lengths(contents.view(np.uint64)) + contents
        yield content(joined(b"\x0a", varints(sizes.sum(keepdims=True))))
        for first, last in cut(sizes, _PIECE_BYTES):
            heads = joined(b"\x0a", varints(contents[first:last]), labels.rows(first, last))
            begin, end = int(samples.offsets[first]), int(samples.offsets[last])
            if last - first > 1:
                rows = _sample_rows(samples.times[begin:end], samples.values[begin:end])
                bounds = np.concatenate(([0], np.cumsum(sample_sizes[first:last])))
                yield content(joined(heads, byte_strings(rows, bounds)))
                continue
            yield content(heads)
            for at in range(begin, end, _PIECE_SAMPLES):
                part = slice(at, min(at + _PIECE_SAMPLES, end))
                yield _sample_rows(samples.times[part], samples.values[part]).tobytes()


def _sample_sizes(samples: Samples) -> Int64s:
    """Bytes of the samples of each series."""
    counts = np.diff(samples.offsets)
    if not len(counts):
        return counts
    numbers = samples.times.view(np.uint64)
    shortest, longest = varint_lengths(np.array([numbers.min(), numbers.max()]))
    sizes: Int64s = counts * (_VALUE_BYTES + longest)
    if shortest < longest:
        sizes -= np.add.reduceat(longest - varint_lengths(numbers), samples.offsets[:-1])
    return sizes


def _sample_rows(times: Int64s, values: Floats) -> UInt8s:
    """The Sample fields of a series, one behind the other. Each value is written with its bits, zeros too."""
    numbers = np.ascontiguousarray(times).view(np.uint64)
    lengths = varint_lengths(numbers)
    stamps = varint_matrix(numbers, lengths)
    rows = np.empty((len(times), _VALUE_BYTES + stamps.shape[1]), np.uint8)
    rows[:, 0] = 0x12
    rows[:, 1] = _VALUE_BYTES - 2 + lengths
    rows[:, 2] = 0x09
    rows[:, 3:11] = np.ascontiguousarray(values).view(np.uint8).reshape(-1, 8)
    rows[:, 11] = 0x10
    rows[:, 12:] = stamps
    return ragged(rows, _VALUE_BYTES + lengths)


# ---- STREAMED_XOR_CHUNKS --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChunksFormat:
    """Writes frames, each of which says which query it belongs to."""

    content_type: str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"

    def encode(self, query: int, selection: Selection) -> Iterator[bytes]:
        """The series of one query, in their order."""
        samples, labels = selection.samples, LabelPairs(selection.labels)
        chunks = _Chunks.of(samples.offsets)
        label_sizes = labels.sizes()
        pieces = np.flatnonzero(chunks.index % _LONGEST_PIECE == 0)
        bounds = np.append(pieces, len(chunks.index))
        weights = (chunks.stop[bounds[1:] - 1] - chunks.start[pieces]) * _SAMPLE_WEIGHT
        for first, last in cut(weights + label_sizes[chunks.series[pieces]], _PIECE_WEIGHT):
            part = chunks.part(int(bounds[first]), int(bounds[last]))
            yield _frames(query, part, _chunk_fields(part, samples), labels, label_sizes)


@dataclass(frozen=True, slots=True)
class _Chunks:
    """Chunks of many series: which series each belongs to, its place among those of the series, and its samples
    [start, stop)."""

    series: Int64s
    index: Int64s
    start: Int64s
    stop: Int64s

    @staticmethod
    def of(offsets: Int64s) -> _Chunks:
        counts = -(-np.diff(offsets) // CHUNK_SAMPLES)
        series = np.repeat(np.arange(len(counts)), counts)
        index = np.arange(len(series)) - np.repeat(np.cumsum(counts) - counts, counts)
        start = offsets[series] + CHUNK_SAMPLES * index
        return _Chunks(series, index, start, np.minimum(start + CHUNK_SAMPLES, offsets[series + 1]))

    def part(self, first: int, last: int) -> _Chunks:
        chosen = slice(first, last)
        return _Chunks(self.series[chosen], self.index[chosen], self.start[chosen], self.stop[chosen])


def _chunk_fields(chunks: _Chunks, samples: Samples) -> pa.BinaryArray:
    """The Chunk field of each chunk."""
    begin, end = int(chunks.start[0]), int(chunks.stop[-1])
    offsets = np.append(chunks.start, end) - begin
    data, bounds = xor_chunks.encode(samples.times[begin:end], samples.values[begin:end], offsets)
    first, last, sizes = varints(samples.times[chunks.start]), varints(samples.times[chunks.stop - 1]), np.diff(bounds)
    heads = joined(b"\x08", first, b"\x10", last, _XOR, b"\x22", varints(sizes))
    return joined(b"\x12", varints(lengths_of(heads) + sizes), heads, byte_strings(data, bounds))


def _frames(query: int, chunks: _Chunks, fields: pa.BinaryArray, labels: LabelPairs, label_sizes: Int64s) -> bytes:
    """Frames of the chunks `fields`: one for each series, more where they would become too long."""
    data, offsets = parts(fields)
    changes = np.diff(chunks.series, prepend=-1) != 0
    of_series = np.cumsum(changes) - 1  # the place of a chunk's series among those here
    within = offsets[:-1] - offsets[:-1][changes][of_series]
    room = MAX_FRAME_BYTES - _MOST_CHUNK_BYTES - _LENGTH_BYTES - label_sizes[chunks.series]
    frame = within // np.maximum(room, 1)  # one chunk may begin below that and end above it
    starts = np.flatnonzero(changes | (np.diff(frame, prepend=0) != 0))
    bounds = np.append(offsets[starts], offsets[-1])
    first, last = int(chunks.series[0]), int(chunks.series[-1])
    series = chunks.series[starts]
    texts = labels.rows(first, last + 1).take(series - first)
    head = joined(b"\x0a", varints(label_sizes[series] + np.diff(bounds)))
    number = content(joined(b"\x10", varints(np.array([query])))) if query else b""
    messages = joined(head, texts, byte_strings(data, bounds), number)
    written, ends = parts(messages)
    sums = np.array([crc32c(written[start:end].tobytes()) for start, end in pairwise(ends.tolist())], ">u4")
    checksums = byte_strings(sums.view(np.uint8), np.arange(0, 4 * len(sums) + 1, 4))
    return content(joined(varints(lengths_of(messages)), checksums, messages))
