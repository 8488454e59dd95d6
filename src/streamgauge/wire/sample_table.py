"""Samples in bulk: an Arrow IPC stream of three columns. docs/import.md has the format for those who send it.

    series   dictionary of text (or text): what `series_text` describes
    time     timestamp of any unit, or int64 milliseconds since 1970
    value    float64

Format: https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format. Types, help texts and units of metrics
may stand in the schema's metadata under METADATA_KEY. A stream is self-contained, so the text of a series may be a key
of a cache. Buffers may not be compressed: how much they become would be known only once the memory is taken. Nor may
they be big-endian: each would be copied whole, and as they may overlap, the stream's bytes are no bound of that.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Floats, Int64s
from streamgauge.model.batch import Metadata
from streamgauge.wire.findings import TYPES, Findings

CONTENT_TYPE = "application/vnd.apache.arrow.stream"
METADATA_KEY = b"metric_metadata"

MAX_BATCHES = 64
"""Record batches of one stream, and as many dictionaries: each costs some 50 µs however small it is."""
MAX_ROWS = 1 << 20
"""Of one stream. Buffers of a stream may overlap, so that its bytes alone are no bound."""

MAX_METADATA_BYTES = 1 << 20
"""Of the JSON of metadata: 5,000 metrics and more. It is read in one go that lets no other thread work: 3 to 17 ms."""

_COLUMNS = ("series", "time", "value")
_MS = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 1_000_000)}
_HEADER, _CUSTOM, _ENDIANNESS, _COMPRESSION, _DICTIONARY_DATA = 2, 4, 0, 3, 1  # numbers of fields in its own schema


@dataclass(frozen=True, slots=True, eq=False)
class SeriesRows:
    """Some samples. texts: the series among them, as `wire.series_text` spells them. codes: which of these each sample
    belongs to. times: ms."""

    texts: Sequence[bytes]
    codes: Int64s
    times: Int64s
    values: Floats

    def __len__(self) -> int:
        return len(self.codes)


class SeriesTexts(Sequence[bytes]):
    """The texts of a decoded table, in the order of their dictionary: bytes are made of them when they are asked for.

    dictionary: shared with other batches of the stream, or the stream itself. used: which of its texts, without
    repetition, ascending; None for all.
    """

    def __init__(self, dictionary: Any, used: Int64s | None) -> None:
        large = pa.types.is_large_string(dictionary.type)
        self._texts = dictionary.cast(pa.large_binary() if large else pa.binary())  # without copying
        self._used = used
        places = self._texts.buffers()[1]
        offsets: Any = np.frombuffer(places or b"\0" * 8, np.int64 if large else np.int32)
        self._offsets = offsets[self._texts.offset :][: len(dictionary) + 1]

    def __len__(self) -> int:
        return len(self._texts) if self._used is None else len(self._used)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        return self._texts[int(number if self._used is None else self._used[number])].as_py()

    @property
    def are_all(self) -> bool:
        """Whether these are all that is in the dictionary."""
        return self._used is None

    @property
    def size(self) -> int:
        """Bytes of all of the dictionary."""
        return int(self._offsets[-1] - self._offsets[0])

    def some(self, at: int, count: int, size: int) -> list[bytes]:
        """Up to `count` texts of `size` bytes together from number `at` on, but at least one."""
        used = np.arange(at, min(at + count, len(self))) if self._used is None else self._used[at : at + count]
        ends = np.cumsum(self._offsets[used + 1] - self._offsets[used], dtype=np.int64)
        fit = max(int(np.searchsorted(ends, size, "right")), 1)
        chosen: Any = pa.array(used[:fit])
        texts: list[bytes] = self._texts.take(chosen).to_pylist()
        return texts

    def equals(self, other: SeriesTexts) -> bool:
        """Whether these are the same; False where they are not all that is in both dictionaries."""
        comparable = self.are_all and other.are_all and self.size == other.size
        return comparable and bool(self._texts.equals(other._texts))

    def copied(self) -> SeriesTexts:
        """All of the dictionary, and nothing of the stream is held by it."""
        everything: Any = pa.array(np.arange(len(self._texts)))
        return SeriesTexts(self._texts.take(everything), None)


def part_of(rows: SeriesRows, start: int, stop: int) -> SeriesRows:
    """Some of the rows, with the texts that they use and no others."""
    codes = rows.codes[start:stop]
    used = np.zeros(len(rows.texts), np.bool_)
    used[codes] = True
    numbers = np.cumsum(used) - 1
    texts = [rows.texts[number] for number in np.flatnonzero(used).tolist()]
    return SeriesRows(texts, numbers[codes], rows.times[start:stop], rows.values[start:stop])


def portions(metadata: Sequence[Metadata]) -> Iterator[list[Metadata]]:
    """Metadata in as many parts as it takes for each to fit a stream; at least one, which may be empty."""
    portion: list[Metadata] = []
    size = 0
    for entry in metadata:
        more = len(_entry(entry)) + 2
        if portion and size + more > MAX_METADATA_BYTES:
            yield portion
            portion, size = [], 0
        portion.append(entry)
        size += more
    yield portion


def encode(rows: SeriesRows, metadata: Sequence[Metadata] = ()) -> bytes:
    """A stream with one batch of rows. The texts are UTF-8."""
    texts: Any = pa.array(rows.texts, pa.binary()).cast(pa.utf8())
    codes: Any = pa.array(rows.codes.astype(np.int32))
    series = pa.DictionaryArray.from_arrays(codes, texts)
    columns = [series, pa.array(rows.times), pa.array(rows.values)]
    about: Any = None
    if metadata:
        about = {METADATA_KEY: f"[{','.join(map(_entry, metadata))}]".encode()}
    schema = pa.schema([(n, c.type) for n, c in zip(_COLUMNS, columns, strict=True)], about)
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    return out.getvalue().to_pybytes()


def decode(body: bytes, findings: Findings) -> list[SeriesRows]:
    """All rows of a stream, a batch an entry; metadata goes into the findings. Takes as much memory again as the body.

    Raises BadInput when it is no such stream; nothing of it is to be stored then.
    """
    try:
        _check_messages(body)
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            _check_schema(reader.schema)
            _note_metadata((reader.schema.metadata or {}).get(METADATA_KEY), findings)
            return list(_batches(reader))
    except (pa.ArrowException, OSError, ValueError, EOFError, MemoryError, struct.error) as error:
        raise BadInput(f"this is no Arrow IPC stream that can be read: {_first_line(error)}") from None


def _batches(reader: pa.RecordBatchReader) -> Iterator[SeriesRows]:
    rows = 0
    for batch in reader:
        rows += len(batch)
        if rows > MAX_ROWS:
            raise BadInput(f"the stream has more than {MAX_ROWS} rows, which is the limit")
        batch.validate(full=True)
        for name in _COLUMNS:
            if batch.column(name).null_count:
                raise BadInput(f"the column {name} has nulls")
        yield _rows(batch)


def _rows(batch: pa.RecordBatch) -> SeriesRows:
    series: Any = batch.column("series")
    if not pa.types.is_dictionary(series.type):
        series = series.dictionary_encode()
    dictionary = series.dictionary
    codes = series.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    is_used = np.zeros(len(dictionary), np.bool_)
    is_used[codes] = True
    used = None if is_used.all() else np.flatnonzero(is_used)
    if dictionary.null_count and dictionary.is_null().to_numpy(zero_copy_only=False)[is_used].any():
        raise BadInput("the column series has nulls")
    if used is not None:
        codes = (np.cumsum(is_used) - 1)[codes]
    values = batch.column("value").to_numpy(zero_copy_only=False)
    return SeriesRows(SeriesTexts(dictionary, used), codes, _times(batch.column("time")), values)


def _times(column: Any) -> Int64s:
    times: Int64s = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    if pa.types.is_int64(column.type):
        return times
    factor, divisor = _MS[column.type.unit]
    if factor > 1 and len(times) and max(abs(int(times.min())), abs(int(times.max()))) > (1 << 62) // factor:
        raise BadInput("a time in seconds is out of bounds")
    return times * factor // divisor


def _check_schema(schema: pa.Schema) -> None:
    if sorted(schema.names) != sorted(_COLUMNS):
        raise BadInput(f"the columns are {', '.join(schema.names)[:200]}; they must be {', '.join(_COLUMNS)}")
    series: Any = schema.field("series").type
    if pa.types.is_dictionary(series):
        series = series.value_type
    time: Any = schema.field("time").type
    good = {
        "series": pa.types.is_string(series) or pa.types.is_large_string(series),
        "time": pa.types.is_int64(time) or pa.types.is_timestamp(time),
        "value": pa.types.is_float64(schema.field("value").type),
    }
    for name, taken in good.items():
        if not taken:
            wanted = {"series": "a dictionary of text", "time": "a timestamp or int64", "value": "float64"}[name]
            raise BadInput(f"the column {name} is {schema.field(name).type}; it must be {wanted}")


def _check_messages(body: bytes) -> None:
    """Refuse what would cost more than its bytes, before anything is made of it."""
    reader = pa.ipc.MessageReader.open_stream(pa.py_buffer(body))
    counts = {"record batch": 0, "dictionary": 0}
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        header = message.metadata.to_pybytes()
        if message.type == "schema" and _is_big_endian(header):
            raise BadInput("the stream's buffers are big-endian; write it on, or for, a little-endian machine")
        if message.type not in counts:
            continue
        counts[message.type] += 1
        if counts[message.type] > MAX_BATCHES:
            raise BadInput(f"the stream has more than {MAX_BATCHES} record batches or dictionaries, which is the limit")
        if _is_compressed(header, message):
            raise BadInput("the stream's buffers are compressed; write it without compression")


def _is_compressed(header: bytes, message: pa.Message) -> bool:
    """Whether a Message, which is a verified flatbuffer, says how the buffers of its RecordBatch are compressed."""
    root = _follow(header, 0)
    if message.metadata_version != pa.ipc.MetadataVersion.V5 and _field(header, root, _CUSTOM) is not None:
        return True  # before V5 that could stand in a message's metadata, where Arrow still looks for it
    table = _follow(header, _field(header, root, _HEADER))
    if message.type == "dictionary":
        table = _follow(header, _field(header, table, _DICTIONARY_DATA))
    return _field(header, table, _COMPRESSION) is not None


def _is_big_endian(header: bytes) -> bool:
    """Whether the Schema in a Message says so. The field is absent where it says nothing else than usual."""
    at = _field(header, _follow(header, _field(header, _follow(header, 0), _HEADER)), _ENDIANNESS)
    return at is not None and struct.unpack_from("<h", header, at)[0] != 0


def _field(data: bytes, table: int, number: int) -> int | None:
    """Where the value of a table's field stands; None when the table does not have it."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    slot = 4 + 2 * number
    if slot + 2 > struct.unpack_from("<H", data, vtable)[0]:
        return None
    offset: int = struct.unpack_from("<H", data, vtable + slot)[0]
    return table + offset if offset else None


def _follow(data: bytes, at: int | None) -> int:
    if at is None:
        raise BadInput("a message of the stream has no header")
    offset: int = struct.unpack_from("<I", data, at)[0]
    return at + offset


def _entry(metadata: Metadata) -> str:
    return json.dumps([metadata.metric, metadata.type, metadata.help, metadata.unit], separators=(",", ":"))


def _note_metadata(text: bytes | None, findings: Findings) -> None:
    if text is None:
        return
    if len(text) > MAX_METADATA_BYTES:
        raise BadInput(
            f"{METADATA_KEY.decode()} has {len(text)} bytes; the limit is {MAX_METADATA_BYTES}: send the rest with "
            "another stream, which needs no rows"
        )
    try:
        entries = [[str(word).encode() for word in entry] for entry in json.loads(text)]
        for metric, kind, help_text, unit in entries:
            number = TYPES.index(kind.decode()) if kind.decode() in TYPES else 0
            findings.note_metadata(metric, number, help_text, unit)
    except (ValueError, TypeError, RecursionError):
        raise BadInput(
            f"{METADATA_KEY.decode()} in the schema's metadata must be JSON: a list of [metric, type, help, unit]"
        ) from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
