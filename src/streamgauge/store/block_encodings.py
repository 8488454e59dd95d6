"""How the samples of a block are written: quickly by a flush, small by a compaction."""

from __future__ import annotations

from dataclasses import dataclass

from streamgauge.store.parquet.encodings import PageEncoding
from streamgauge.store.parquet.output import ColumnEncoding

_PLAIN, _SPLIT, _DELTA = PageEncoding.PLAIN, PageEncoding.BYTE_STREAM_SPLIT, PageEncoding.DELTA_BINARY_PACKED


@dataclass(frozen=True, slots=True)
class BlockEncoding:
    columns: dict[str, ColumnEncoding]  # of samples.parquet, by name
    series_level: int  # of zstd, for series.parquet


FLUSHED = BlockEncoding(
    columns={
        "series_id": ColumnEncoding((_PLAIN,), 3),
        "time": ColumnEncoding((_SPLIT,), 3),
        "value": ColumnEncoding((_PLAIN,), 3),
        "unscaled": ColumnEncoding((_SPLIT,), 3),
        "scale": ColumnEncoding((_DELTA,), 3),
    },
    series_level=3,
)
"""Quick to write and to read: nothing is tried. Level 1 takes a fifth more bytes and is no faster."""

COMPACTED = BlockEncoding(
    columns={
        "series_id": ColumnEncoding((_DELTA, _PLAIN), 9),
        "time": ColumnEncoding((_DELTA, _SPLIT), 12),
        "value": ColumnEncoding((_PLAIN, _SPLIT), 3),
        "unscaled": ColumnEncoding((_DELTA, _SPLIT), 12),
        "scale": ColumnEncoding((_DELTA,), 9),
    },
    series_level=9,
)
"""Levels are those from which a higher one hardly helps, or takes much more time. Between 6 and 11 zstd does worse on
split bytes than at 3."""

LASTING = BlockEncoding(
    columns={
        **COMPACTED.columns,
        "value": ColumnEncoding((_PLAIN, _SPLIT), 9),
        "unscaled": ColumnEncoding((_DELTA, _SPLIT), 17),
    },
    series_level=15,
)
"""For a block that will not be rewritten. Integers take 5 % less at this level than at 15 where much repeats; 3 % less
still at 19, for which a compaction takes 40 % longer."""


def compacted(lasting: bool) -> BlockEncoding:
    return LASTING if lasting else COMPACTED
