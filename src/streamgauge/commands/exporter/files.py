"""The file of an export, made of one answer after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet

_PIECE_BYTES = 1 << 20
_GROUP_ROWS = 131_072
_GROUP_BYTES = 64 << 20
"""Of rows in memory that become one row group."""


class ExportFile(Protocol):
    asked: str  # the format in which answers are wanted
    rows: int  # that were added

    def add(self, answer: BinaryIO) -> None:
        """Append a whole answer."""

    def finish(self) -> None:
        """Nothing more comes."""


class NdjsonFile:
    """Implements ExportFile. Line feeds within texts are escaped in JSON, so lines are rows."""

    asked = "ndjson"

    def __init__(self, out: BinaryIO) -> None:
        self.rows = 0
        self._out = out

    def add(self, answer: BinaryIO) -> None:
        for piece in _pieces(answer):
            self.rows += piece.count(b"\n")
            self._out.write(piece)

    def finish(self) -> None:
        pass


class CsvFile:
    """Implements ExportFile. The line with the columns' names stands at the beginning only."""

    asked = "csv"

    def __init__(self, out: BinaryIO) -> None:
        self.rows = 0
        self._out = out
        self._begun = False

    def add(self, answer: BinaryIO) -> None:
        names = answer.readline()  # none has a line feed in it
        if not self._begun:
            self._out.write(names)
            self._begun = True
        quotes = 0
        for piece in _pieces(answer):
            self.rows += _lines(piece, quotes)
            quotes += piece.count(b'"')
            self._out.write(piece)

    def finish(self) -> None:
        pass


class ParquetFile:
    """Implements ExportFile."""

    asked = "arrow"

    def __init__(self, out: BinaryIO) -> None:
        self.rows = 0
        self._out = out
        self._writer: pa.parquet.ParquetWriter | None = None
        self._schema: pa.Schema | None = None
        self._held: list[pa.RecordBatch] = []

    def add(self, answer: BinaryIO) -> None:
        reader = pa.ipc.open_stream(cast("Any", answer))
        schema = self._schema or reader.schema
        if self._writer is None:
            self._schema = schema
            self._writer = pa.parquet.ParquetWriter(self._out, schema, compression="zstd")
        for batch in reader:
            self.rows += batch.num_rows
            self._held.append(batch.cast(schema))
            rows = sum(held.num_rows for held in self._held)
            if rows >= _GROUP_ROWS or sum(held.nbytes for held in self._held) >= _GROUP_BYTES:
                self._write()

    def _write(self) -> None:
        if self._held and self._writer is not None:
            self._writer.write_table(pa.Table.from_batches(self._held), row_group_size=_GROUP_ROWS)
            self._held = []

    def finish(self) -> None:
        self._write()
        if self._writer is not None:
            self._writer.close()


FILES: Mapping[str, Callable[[BinaryIO], ExportFile]] = {
    "parquet": ParquetFile,
    "csv": CsvFile,
    "ndjson": NdjsonFile,
}
SUFFIXES = {".parquet": "parquet", ".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
"""By which a file's name tells its format."""


def _pieces(answer: BinaryIO) -> Iterator[bytes]:
    while piece := answer.read(_PIECE_BYTES):
        yield piece


def _lines(piece: bytes, quotes: int) -> int:
    """Line feeds that stand in no quotes. quotes: how many came before."""
    data = np.frombuffer(piece, np.uint8)
    within = (np.cumsum(data == ord('"')) + quotes) & 1
    return int(np.count_nonzero((data == ord("\n")) & (within == 0)))
