"""Payloads of log records, as docs/format/log.md lays them down: columns to bytes and back, pure functions.

Whatever the bytes, decoding gives columns or raises Corrupt, and allocates no more than a bound that it has checked.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import pyarrow as pa

from streamgauge.errors import Corrupt
from streamgauge.model.arrays import Int64s, UInt32s
from streamgauge.model.batch import Metadata, SampleBatch

Payload = bytes | memoryview

MAX_SERIES_BYTES = 256 << 20
"""Definitions in one record, uncompressed: ids, lengths and keys. A million series take about 150 MB."""

DEFINITION_BYTES = 64 << 20
"""Keys of a record as `encode_definitions` divides them; with the first key some 128 KiB more."""

_SERIES = struct.Struct("<II")  # series, bytes uncompressed
_SAMPLES = struct.Struct("<IB3xq")  # samples, spelling of the times, base time
_METADATA = struct.Struct("<I")  # entries

_SAME_TIME, _DELTAS, _TIMES = 0, 1, 2
_INT64_MAX = (1 << 63) - 1
_UINT32_MAX = (1 << 32) - 1

# ---- series -------------------------------------------------------------------------------------------------------


def encode_definitions(ids: UInt32s, keys: Sequence[bytes], limit: int = DEFINITION_BYTES) -> Iterator[bytes]:
    """`encode_series` of any number of series, in as many records as it takes: `limit` bytes of keys in each, and at
    least one."""
    ends = np.cumsum(np.fromiter(map(len, keys), np.int64, len(keys)))
    cuts = (np.flatnonzero(np.diff(ends // limit)) + 1).tolist()
    for start, stop in itertools.pairwise([0, *cuts, len(keys)]):
        yield encode_series(ids[start:stop], keys[start:stop])


def encode_series(ids: UInt32s, keys: Sequence[bytes] | pa.BinaryArray) -> bytes:
    """Definitions of series: keys[i] is the canonical key of series ids[i].

    Raises ValueError when they take more than MAX_SERIES_BYTES.
    """
    lengths, texts = _texts(keys if isinstance(keys, pa.BinaryArray) else pa.array(keys, pa.binary()))
    raw = b"".join((np.ascontiguousarray(ids, "<u4").data, lengths.data, texts))
    if len(raw) > MAX_SERIES_BYTES:
        raise ValueError(f"{len(ids)} series take {len(raw)} bytes; one record holds at most {MAX_SERIES_BYTES}")
    return _SERIES.pack(len(ids), len(raw)) + pa.Codec("zstd", compression_level=1).compress(raw, asbytes=True)


def _texts(keys: pa.BinaryArray) -> tuple[UInt32s, memoryview]:
    """The length of each key, and all of them one after the other."""
    _, offsets_buffer, texts = keys.buffers()
    if not len(keys) or offsets_buffer is None or texts is None:
        return np.zeros(len(keys), np.uint32), memoryview(b"")
    offsets = np.frombuffer(memoryview(offsets_buffer), np.int32)[keys.offset : keys.offset + len(keys) + 1]
    return np.diff(offsets).astype("<u4"), memoryview(texts)[offsets[0] : offsets[-1]]


def decode_series(payload: Payload) -> tuple[UInt32s, pa.BinaryArray]:
    """The ids and the keys of `encode_series`. Raises Corrupt."""
    count, size = _unpack(_SERIES, payload)
    if size > MAX_SERIES_BYTES or 8 * count > size:
        raise Corrupt(f"a series record claims {count} series in {size} bytes")
    raw = _decompress(payload[_SERIES.size :], size)
    ids: UInt32s = np.frombuffer(raw, "<u4", count).astype(np.uint32, copy=False)
    offsets = np.zeros(count + 1, np.int64)
    np.cumsum(np.frombuffer(raw, "<u4", count, 4 * count), out=offsets[1:])
    if offsets[-1] != size - 8 * count:
        raise Corrupt(f"a series record holds {size - 8 * count} bytes of keys instead of {offsets[-1]}")
    buffers = [None, pa.py_buffer(offsets.astype(np.int32).data), pa.py_buffer(raw[8 * count :])]
    return ids, cast(pa.BinaryArray, pa.Array.from_buffers(pa.binary(), count, buffers))


def _decompress(packed: Payload, size: int) -> memoryview:
    try:
        raw = pa.Codec("zstd").decompress(packed, decompressed_size=size)
    except (OSError, ValueError) as error:  # pyarrow's ArrowIOError and ArrowInvalid
        raise Corrupt(f"a series record cannot be decompressed: {error}") from None
    return memoryview(raw)


# ---- samples ------------------------------------------------------------------------------------------------------


def encode_samples(batch: SampleBatch, span: tuple[int, int] | None = None) -> bytes:
    """The three columns, uncompressed: values first, as they need the widest alignment. Values keep their bits.

    span: the first and the last of its times, where they are known."""
    spelling, base, times = _spell_times(batch.times, span or batch.span())
    return b"".join(
        (
            _SAMPLES.pack(len(batch), spelling, base),
            np.ascontiguousarray(batch.values, "<f8").data,
            times,
            np.ascontiguousarray(batch.series, "<u4").data,
        )
    )


def _spell_times(times: Int64s, span: tuple[int, int]) -> tuple[int, int, bytes | memoryview]:
    low, high = span
    if low == high:
        return _SAME_TIME, low, b""
    if high - low <= _UINT32_MAX:
        return _DELTAS, low, (times - low).astype("<u4").data
    return _TIMES, 0, np.ascontiguousarray(times, "<i8").data


def decode_samples(payload: Payload) -> SampleBatch:
    """The batch of `encode_samples`. Series ids and values are read-only views of the payload. Raises Corrupt."""
    count, spelling, base = _unpack(_SAMPLES, payload)
    width = {_SAME_TIME: 0, _DELTAS: 4, _TIMES: 8}.get(spelling)
    if width is None:
        raise Corrupt(f"a samples record spells its times in the unknown way {spelling}")
    if len(payload) != _SAMPLES.size + count * (12 + width):
        raise Corrupt(f"a samples record of {len(payload)} bytes claims {count} samples")
    times_at = _SAMPLES.size + 8 * count
    values = np.frombuffer(payload, "<f8", count, _SAMPLES.size).astype(np.float64, copy=False)
    ids = np.frombuffer(payload, "<u4", count, times_at + width * count).astype(np.uint32, copy=False)
    if spelling == _TIMES:
        times = np.frombuffer(payload, "<i8", count, times_at).astype(np.int64, copy=False)
    elif spelling == _DELTAS and count:
        deltas = np.frombuffer(payload, "<u4", count, times_at)
        if base > _INT64_MAX - int(deltas.max()):
            raise Corrupt(f"a samples record has times past the end of int64, from {base}")
        times = deltas + np.int64(base)
    else:
        times = np.full(count, base, np.int64)
    return SampleBatch(ids, times, values)


# ---- metadata -----------------------------------------------------------------------------------------------------


def encode_metadata(entries: Sequence[Metadata]) -> bytes:
    """Metric, type, help and unit of each entry: all lengths, then all texts."""
    texts = [text.encode() for entry in entries for text in (entry.metric, entry.type, entry.help, entry.unit)]
    lengths = np.fromiter(map(len, texts), "<u4", len(texts))
    return b"".join((_METADATA.pack(len(entries)), lengths.data, *texts))


def decode_metadata(payload: Payload) -> list[Metadata]:
    """The entries of `encode_metadata`. Raises Corrupt."""
    (count,) = _unpack(_METADATA, payload)
    texts_at = _METADATA.size + 16 * count
    if texts_at > len(payload):
        raise Corrupt(f"a metadata record of {len(payload)} bytes claims {count} entries")
    lengths = np.frombuffer(payload, "<u4", 4 * count, _METADATA.size).astype(np.int64)
    if int(lengths.sum()) != len(payload) - texts_at:
        raise Corrupt("the lengths in a metadata record do not add up")
    ends = (np.cumsum(lengths) + texts_at).tolist()
    try:
        texts = [str(payload[start:end], "utf-8") for start, end in itertools.pairwise([texts_at, *ends])]
    except UnicodeDecodeError as error:
        raise Corrupt(f"a metadata record holds text that is not UTF-8: {error}") from None
    return [Metadata(*texts[first : first + 4]) for first in range(0, len(texts), 4)]


def _unpack(head: struct.Struct, payload: Payload) -> tuple[int, ...]:
    if len(payload) < head.size:
        raise Corrupt(f"a record of {len(payload)} bytes is shorter than its own head")
    return head.unpack_from(payload)
