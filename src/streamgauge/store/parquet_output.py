"""A Parquet file that is being written: through `fs`, and with a checksum of every byte."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from streamgauge.store.checksummed_file import ChecksummedFile

ONE_PAGE = 1 << 30
"""Rows and bytes of a page at most: each column of a row group is one page. Readers decode whole row groups anyway, and
zstd finds far more in 98,304 rows than in the 20,000 that Arrow would put into a page (0.37 against 0.45 bytes a sample
on recorded scrapes), above all in times, which series that are scraped together share."""

COMMON_SETTINGS: dict[str, Any] = {
    "compression": "zstd",
    "write_page_checksum": True,
    "store_schema": False,
    "data_page_size": ONE_PAGE,
    "max_rows_per_page": ONE_PAGE,
    "dictionary_pagesize_limit": ONE_PAGE,
}


class ParquetOutput:
    """A new Parquet file. Not synced. Always `close` it; unless `finish` came before, the file is then of no use.

    Raises StorageError when the disk fails. `settings` are those of pq.ParquetWriter.
    """

    def __init__(self, path: Path, schema: pa.Schema, settings: dict[str, Any]) -> None:
        self._file = ChecksummedFile(path)
        self._writer = pq.ParquetWriter(pa.PythonFile(self._file, "w"), schema, **COMMON_SETTINGS, **settings)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._file.size

    def write_row_group(self, table: pa.Table) -> None:
        self._writer.write_table(table, row_group_size=max(table.num_rows, 1))

    def take_checksum(self) -> int:
        """CRC-32 of what was written since the last call."""
        return self._file.take_checksum()

    def finish(self, key: str, value: str) -> None:
        """Write the footer, with one entry of key-value metadata."""
        self._writer.add_key_value_metadata({key: value})
        self._writer.close()

    def close(self) -> None:
        self._file.close()
        with suppress(Exception):
            self._writer.close()  # writes a footer, which the closed file drops; it would come anyway when collected
        self._writer.is_open = False
