"""What the files of a block of events hold beside payloads: schemas, the footer's JSON, checksums. In prose:
docs/format/event_block.md."""

from __future__ import annotations

import json
import secrets
import zlib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from streamgauge.errors import FormatTooNew
from streamgauge.model.arrays import Int64s
from streamgauge.model.event_source import Node, Path
from streamgauge.model.events import Stream
from streamgauge.store.events.ports import EventBlockMeta
from streamgauge.store.events.tree import struct_type

FORMAT_VERSION = 1
FOOTER_KEY = "streamgauge"
"""Key of the JSON in the footers of both Parquet files."""

TIME = pa.timestamp("ns", tz="UTC")

STREAM_ID = "stream_id"
INDEX = "stream_event_index"
RECEIVED = "received"
PAYLOAD = "payload"

_FIXED_FIELDS: list[pa.Field[Any]] = [
    pa.field(STREAM_ID, pa.int64(), nullable=False),
    pa.field(INDEX, pa.int64(), nullable=False),
    pa.field(RECEIVED, TIME, nullable=False),
]
_STREAMS_FIELDS: list[pa.Field[Any]] = [
    pa.field(STREAM_ID, pa.int64(), nullable=False),
    pa.field("started", TIME, nullable=False),
    pa.field("transport", pa.string(), nullable=False),
    pa.field("headers", pa.string(), nullable=False),
    pa.field("name", pa.string(), nullable=False),
]
STREAMS_SCHEMA = pa.schema(_STREAMS_FIELDS)

MAX_ROW_GROUP = 65_536
MAX_ROW_GROUP_BYTES = 64 << 20
"""Rows of a row group, and bytes of their payloads (one event may pass it): what writing and reading hold at a time."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Events in order of (stream, index); columns of one length."""

    streams: Int64s
    indexes: Int64s
    times: Int64s
    payloads: pa.StructArray  # of a `struct_type`
    text_bytes: int  # about what the payloads take as JSON

    def __len__(self) -> int:
        return len(self.streams)


def events_schema(node: Node) -> pa.Schema:
    """Of events.parquet for payloads with this tree."""
    return pa.schema([*_FIXED_FIELDS, pa.field(PAYLOAD, struct_type(node), nullable=False)])


def streams_table(streams: Sequence[Stream]) -> pa.Table:
    """In order of their ids; each once."""
    rows = sorted({stream.id: stream for stream in streams}.values(), key=lambda stream: stream.id)
    columns: list[pa.Array[Any]] = [
        pa.array([stream.id for stream in rows], pa.int64()),
        pa.array([stream.started for stream in rows], pa.int64()).cast(TIME),
        pa.array([stream.transport for stream in rows], pa.string()),
        pa.array([stream.headers for stream in rows], pa.string()),
        pa.array([stream.name for stream in rows], pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=STREAMS_SCHEMA)


def streams_of(table: pa.Table) -> list[Stream]:
    """The opposite of `streams_table`."""
    ids, started, *texts = (table.column(name) for name in STREAMS_SCHEMA.names)
    columns = [ids, started.cast(pa.int64()), *texts]
    return [Stream(*row) for row in zip(*(column.to_pylist() for column in columns), strict=True)]


def new_block_id(time: int, first_commit: int, last_commit: int) -> str:
    """A name that is unique, and tells a person the day of `time` (ns) and the commits."""
    return f"{_day_name(time)}{commits_in_id(first_commit, last_commit)}{secrets.token_hex(4)}"


def commits_in_id(first_commit: int, last_commit: int) -> str:
    """What the ids of all blocks of events of these commits have in them, and those of other blocks have not."""
    return f"-{first_commit}to{last_commit}-"


def _day_name(time: int) -> str:
    try:
        return f"{_EPOCH + timedelta(microseconds=time // 1000):%Y%m%d}"
    except OverflowError:
        return "day"


# ---- the footer's JSON ----------------------------------------------------------------------------------------------

_TUPLES = ("parents", "pruned")


def encode_meta(meta: EventBlockMeta, mixed: Collection[Path] | None = None) -> str:
    """The footer's JSON. `bytes` is not part of it: the files' sizes say it. `mixed`: of what `Node.mixed` tells, the
    paths."""
    document = {"version": FORMAT_VERSION} | asdict(meta)
    del document["bytes"]
    if mixed is not None:
        document["mixed"] = sorted(mixed)
    return json.dumps(document, separators=(",", ":"))


def decode_mixed(raw: bytes) -> frozenset[Path] | None:
    """What `encode_meta` was given; None for a block of an earlier version. `raw` is what `decode_meta` took."""
    paths = json.loads(raw).get("mixed")
    return None if paths is None else frozenset(tuple(map(str, path)) for path in paths)


def decode_meta(raw: bytes | None, size: int) -> EventBlockMeta:
    """The opposite of `encode_meta`. `size` is that of the block's files together, in bytes.

    Raises ValueError, and FormatTooNew for a version that we do not know.
    """
    if raw is None:
        raise ValueError("its footer has no entry of streamgauge's")
    try:
        document: dict[str, Any] = json.loads(raw)
        _refuse_newer(document)
        values: dict[str, Any] = {"id": str(document["id"]), "bytes": size}
        for name in _TUPLES:
            values[name] = tuple(str(item) for item in document[name])
        for field in fields(EventBlockMeta):
            if field.name not in values:
                values[field.name] = int(document[field.name])
        return EventBlockMeta(**values)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the streamgauge entry in its footer makes no sense: {error!r}") from None


def _refuse_newer(document: dict[str, Any]) -> None:
    if document["version"] > FORMAT_VERSION:
        raise FormatTooNew(
            f"a block of events has format version {document['version']}; this streamgauge reads up to {FORMAT_VERSION}"
        )


# ---- checksums ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checksums:
    """Sizes, and CRC-32 of every byte of a block's two Parquet files: a query checks the columns that it reads.

    Parquet's own page checksums cover neither the headers of pages nor footers.
    """

    events_size: int
    footer_start: int  # of events.parquet
    footer: int  # CRC-32 of its bytes from there on
    text_bytes: tuple[int, ...]  # of the payloads of each row group as JSON, about; what they take when they are read
    columns: tuple[tuple[int, ...], ...]  # for each row group: CRC-32 of each column's bytes, in the file's order
    streams_size: int
    streams: int  # CRC-32 of streams.parquet

    def encode(self) -> bytes:
        """One line of JSON, and a line with the CRC-32 of the first."""
        line = json.dumps({"version": FORMAT_VERSION} | asdict(self), separators=(",", ":")).encode()
        return line + b"\n%08x\n" % zlib.crc32(line)


def decode_checksums(raw: bytes) -> Checksums:
    """The opposite of `Checksums.encode`. Raises ValueError and FormatTooNew."""
    line, _, rest = raw.partition(b"\n")
    if rest != b"%08x\n" % zlib.crc32(line):
        raise ValueError("its checksum is wrong")
    document = json.loads(line)
    _refuse_newer(document)
    columns = tuple(tuple(group) for group in document.pop("columns"))
    text_bytes = tuple(document.pop("text_bytes"))
    del document["version"]
    return Checksums(columns=columns, text_bytes=text_bytes, **document)
