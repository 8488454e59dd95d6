"""What the files of a block hold beside rows: schemas, the footer's JSON, checksums. In prose: docs/format/block.md."""

from __future__ import annotations

import json
import secrets
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from streamgauge.errors import FormatTooNew
from streamgauge.model.arrays import Int64s
from streamgauge.store.ports import BlockMeta

FORMAT_VERSION = 2
"""1 had no columns `unscaled` and `scale`; a reader takes them as null."""
FOOTER_KEY = "streamgauge"
"""Key of the JSON in the footers of both Parquet files."""

TIME = pa.timestamp("ms", tz="UTC")

_SAMPLES_FIELDS: list[pa.Field[Any]] = [
    pa.field("series_id", pa.uint32(), nullable=False),
    pa.field("time", TIME, nullable=False),
    pa.field("value", pa.float64()),
    pa.field("unscaled", pa.int64()),
    pa.field("scale", pa.uint8(), nullable=False),
]

_SERIES_FIELDS: list[pa.Field[Any]] = [
    pa.field("series_id", pa.uint32(), nullable=False),
    pa.field("first_row", pa.int64(), nullable=False),
    pa.field("rows", pa.int64(), nullable=False),
    pa.field("min_time", TIME, nullable=False),
    pa.field("max_time", TIME, nullable=False),
    pa.field("labels", pa.map_(pa.string(), pa.string()), nullable=False),
]

SAMPLES_SCHEMA = pa.schema(_SAMPLES_FIELDS)
SERIES_SCHEMA = pa.schema(_SERIES_FIELDS)

MIN_ROW_GROUP = 65_536
MAX_ROW_GROUP = 98_304
"""Rows of a row group of samples. A query reads whole ones: 98,304 rows decode in 1.2 ms, and twice as many would save
1 % of the disk. Between the two a group ends where a series ends, so that few series lie in two groups."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def new_block_id(window: int, first_commit: int, last_commit: int) -> str:
    """A name that is unique, and tells a person the day (`wide` for several) and the commits."""
    return f"{_day_name(window)}{commits_in_id(first_commit, last_commit)}{secrets.token_hex(4)}"


def commits_in_id(first_commit: int, last_commit: int) -> str:
    """What the ids of all blocks of these commits have in them."""
    return f"-{first_commit}-{last_commit}-"


def commits_of(metas: Sequence[BlockMeta]) -> tuple[int, int]:
    """The first and the last commit of which some blocks have rows."""
    return min(meta.first_commit for meta in metas), max(meta.last_commit for meta in metas)


def successor(
    parents: Sequence[BlockMeta], window: int, late: bool, resolution: int = 0, carried_out: Iterable[int] = ()
) -> BlockMeta:
    """What takes the place of some blocks; its times and sizes are the writer's to fill in.

    carried_out: ids of tombstones whose samples the parents have and it has not."""
    first_commit, last_commit = commits_of(parents)
    applied = {number for meta in parents for number in meta.tombstones}
    return BlockMeta(
        id=new_block_id(window, first_commit, last_commit),
        first_commit=first_commit,
        last_commit=last_commit,
        min_time=0,
        max_time=0,
        window=window,
        late=late,
        level=1 + max(meta.level for meta in parents),
        series=0,
        samples=0,
        bytes=0,
        parents=tuple(meta.id for meta in parents),
        tombstones=tuple(sorted({*applied, *carried_out})),
        resolution=resolution,
    )


def _day_name(window: int) -> str:
    if window == -1:
        return "wide"
    try:
        return f"{_EPOCH + timedelta(milliseconds=window):%Y%m%d}"
    except OverflowError:  # outside the years 1 to 9999
        return f"day{window // 86_400_000}"


# ---- the footer's JSON ----------------------------------------------------------------------------------------------


def encode_meta(meta: BlockMeta) -> str:
    """The footer's JSON. `bytes` is not part of it: the files' sizes say it."""
    document: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "id": meta.id,
        "first_commit": meta.first_commit,
        "last_commit": meta.last_commit,
        "min_time": meta.min_time,
        "max_time": meta.max_time,
        "window": meta.window,
        "late": meta.late,
        "level": meta.level,
        "series": meta.series,
        "samples": meta.samples,
        "parents": list(meta.parents),
        "tombstones": list(meta.tombstones),
    }
    if meta.resolution:
        document["resolution"] = meta.resolution
    return json.dumps(document, separators=(",", ":"))


def decode_meta(raw: bytes | None, size: int) -> BlockMeta:
    """The opposite of `encode_meta`. `size` is that of the block's files together, in bytes.

    Raises ValueError, and FormatTooNew for a version that we do not know.
    """
    if raw is None:
        raise ValueError("its footer has no entry of streamgauge's")
    try:
        document: dict[str, Any] = json.loads(raw)
        if document["version"] > FORMAT_VERSION:
            raise FormatTooNew(
                f"block {document['id']} has format version {document['version']}; this streamgauge reads up to "
                f"{FORMAT_VERSION}"
            )
        return BlockMeta(
            id=str(document["id"]),
            first_commit=int(document["first_commit"]),
            last_commit=int(document["last_commit"]),
            min_time=int(document["min_time"]),
            max_time=int(document["max_time"]),
            window=int(document["window"]),
            late=bool(document["late"]),
            level=int(document["level"]),
            series=int(document["series"]),
            samples=int(document["samples"]),
            bytes=size,
            parents=tuple(str(parent) for parent in document["parents"]),
            tombstones=tuple(int(tombstone) for tombstone in document["tombstones"]),
            resolution=int(document.get("resolution", 0)),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the streamgauge entry in its footer makes no sense: {error!r}") from None


# ---- checksums ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SeriesChecksums:
    """Of series.parquet: its size, where its footer starts, and the CRC-32 of what is before and of what is after."""

    size: int
    footer_start: int
    body: int
    footer: int


@dataclass(frozen=True, slots=True)
class Checksums:
    """CRC-32 of every byte of a block's two Parquet files, in pieces that are checked as they are read.

    Parquet's own page checksums cover neither the headers of pages nor footers, and a flipped byte there can turn into
    other values without an error.
    """

    row_ends: Int64s  # [row groups] rows of samples.parquet up to the end of each row group
    byte_ends: Int64s  # [row groups] its bytes up to there; the first group's begin with the file's magic number
    row_groups: Int64s  # [row groups] CRC-32 of each group's bytes
    samples_size: int
    samples_footer: int  # CRC-32 of the bytes behind the last row group
    series: SeriesChecksums

    def encode(self) -> bytes:
        """One line of JSON, and a line with the CRC-32 of the first."""
        document = {
            "version": FORMAT_VERSION,
            "samples": {
                "size": self.samples_size,
                "footer": self.samples_footer,
                "row_ends": self.row_ends.tolist(),
                "byte_ends": self.byte_ends.tolist(),
                "row_groups": self.row_groups.tolist(),
            },
            "series": asdict(self.series),
        }
        line = json.dumps(document, separators=(",", ":")).encode()
        return line + b"\n%08x\n" % zlib.crc32(line)


def decode_checksums(raw: bytes) -> Checksums:
    """The opposite of `Checksums.encode`. Raises ValueError and FormatTooNew."""
    line, _, rest = raw.partition(b"\n")
    if rest != b"%08x\n" % zlib.crc32(line):
        raise ValueError("its checksum is wrong")
    document = json.loads(line)
    if document["version"] > FORMAT_VERSION:
        raise FormatTooNew(f"a block has format version {document['version']}; we read up to {FORMAT_VERSION}")
    samples = document["samples"]
    return Checksums(
        row_ends=np.array(samples["row_ends"], np.int64),
        byte_ends=np.array(samples["byte_ends"], np.int64),
        row_groups=np.array(samples["row_groups"], np.int64),
        samples_size=samples["size"],
        samples_footer=samples["footer"],
        series=SeriesChecksums(**document["series"]),
    )
