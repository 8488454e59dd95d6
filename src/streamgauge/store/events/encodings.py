"""How columns of events are encoded, found by trying: an id is another thing than a level or a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from streamgauge.store.events.format import INDEX, PAYLOAD, RECEIVED, STREAM_ID
from streamgauge.store.parquet_output import COMMON_SETTINGS

DICTIONARY = "dictionary"
_TRIALS: tuple[tuple[pa.DataType, tuple[str, ...]], ...] = (
    (pa.string(), (DICTIONARY, "PLAIN", "DELTA_BYTE_ARRAY")),
    (pa.int64(), (DICTIONARY, "DELTA_BINARY_PACKED", "PLAIN")),
    (pa.float64(), (DICTIONARY, "BYTE_STREAM_SPLIT", "PLAIN")),
    (pa.bool_(), ("RLE",)),
)
FLUSH_LEVEL = 3
COMPACTED_LEVEL = 9
"""Of zstd."""
_TRIAL_ROWS = 8_192


@dataclass(frozen=True, slots=True)
class Encodings:
    """`by_path` names the encoding of each column of payloads, whose path is dotted, as Parquet has it."""

    by_path: dict[str, str]
    level: int  # of zstd

    def settings(self) -> dict[str, Any]:
        """For pq.ParquetWriter."""
        return {
            "use_dictionary": [path for path, encoding in self.by_path.items() if encoding == DICTIONARY],
            "column_encoding": {path: encoding for path, encoding in self.by_path.items() if encoding != DICTIONARY}
            | dict.fromkeys((STREAM_ID, INDEX, RECEIVED), "DELTA_BINARY_PACKED"),
            "compression_level": self.level,
            "write_statistics": True,
        }


def choose_encodings(payloads: pa.StructArray, level: int) -> Encodings:
    """Those that make some payloads of the block smallest."""
    chosen: dict[str, str] = {}
    for path, values in _leaves(PAYLOAD, payloads.slice(0, _TRIAL_ROWS)):
        trials = next(encodings for type_, encodings in _TRIALS if type_ == values.type)
        if path in chosen:  # names with dots make one path of two columns, maybe of different types
            chosen[path] = DICTIONARY
        else:
            chosen[path] = min(trials, key=partial(_encoded_size, values))
    return Encodings(chosen, level)


def _leaves(path: str, values: Any) -> Iterator[tuple[str, pa.Array[Any]]]:
    if isinstance(values.type, pa.StructType):
        for column, array in zip(values.type, values.flatten(), strict=True):
            yield from _leaves(f"{path}.{column.name}", array)
    else:
        yield path, values


def _encoded_size(values: pa.Array[Any], encoding: str) -> int:
    if values.null_count == len(values):
        return 0  # the first will do
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_arrays([values], ["column"]),
        sink,
        use_dictionary=encoding == DICTIONARY,
        column_encoding=None if encoding == DICTIONARY else {"column": encoding},
        compression_level=FLUSH_LEVEL,
        write_statistics=False,
        **COMMON_SETTINGS,
    )
    return int(sink.tell())
