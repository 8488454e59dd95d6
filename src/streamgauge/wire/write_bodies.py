"""Remote-write requests that were kept in files: from their bodies to samples.

A file is a run of bodies as they went over the network, snappy-compressed, each behind its length in bytes as a
protobuf varint. Version 1.0 and 2.0 may be mixed: no field of the one's message is at the beginning of the other's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from streamgauge.errors import BadInput, StreamgaugeError
from streamgauge.model.batch import empty_batch, joined
from streamgauge.model.labels import split_key
from streamgauge.wire import remote_write_v1, remote_write_v2, snappy
from streamgauge.wire.findings import Findings, Reason
from streamgauge.wire.imported import CACHE_BYTES, Imported
from streamgauge.wire.sample_table import SeriesRows
from streamgauge.wire.series_cache import SeriesCache
from streamgauge.wire.series_text import series_text

MAX_BODY_BYTES = 64 << 20
"""Of one body, compressed or not. Senders stay below 1 MiB."""
MAX_LENGTH_BYTES = 5
_V2_FIRST_TAGS = (0x22, 0x2A)  # symbols, time series
_ALL_TIMES = (-(1 << 62), 1 << 62)
_MAX_SERIES = 500_000  # remembered; their keys and texts are some 500 bytes each


def length_at(data: bytes, at: int) -> tuple[int, int] | None:
    """The length that stands at `at`, and where its body begins; None when more bytes are needed to tell.

    Raises BadInput when it is none, or too large.
    """
    length = 0
    for index in range(MAX_LENGTH_BYTES):
        if at + index >= len(data):
            return None
        byte = data[at + index]
        length |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if length > MAX_BODY_BYTES:
                break
            return length, at + index + 1
    raise BadInput(f"no length of a request, at most {MAX_BODY_BYTES}, stands where the next one begins")


class WriteBodies:
    """A reader of such a file: a block is some bodies with their lengths."""

    unit = "request"

    def __init__(self) -> None:
        self.series = 0
        self._forget()

    def _forget(self) -> None:
        self._cache = SeriesCache(CACHE_BYTES)
        self._ids: dict[bytes, int] = {}
        self._texts: list[bytes] = []

    def _resolve(self, key: bytes) -> int:
        number = self._ids.setdefault(key, len(self._texts))
        if number == len(self._texts):
            self._texts.append(series_text(split_key(key)))
            self.series += 1
        return number

    def read(self, block: bytes | memoryview, first: int) -> Imported:
        """The samples of some whole requests."""
        block = bytes(block)
        if len(self._texts) > _MAX_SERIES:
            self._forget()
        findings = Findings()
        batches, places = [empty_batch()], [np.empty(0, np.int64)]
        at, number = 0, first
        while at < len(block):
            found = length_at(block, at)
            assert found is not None, "blocks end where requests do"
            length, start = found
            at = start + length
            before = len(findings.examples)
            try:
                for batch in self._decode(block[start:at], findings):
                    batches.append(batch)
                    places.append(np.full(len(batch), number, np.int64))
            except StreamgaugeError as error:
                findings.refuse(Reason.LINE, error.message)
            for index in range(before, len(findings.examples)):
                findings.examples[index] = f"request {number}: {findings.examples[index]}"
            number += 1
        rows = joined(batches)
        table = SeriesRows(self._texts, rows.series.astype(np.int64), rows.times, rows.values)
        return Imported(table, np.concatenate(places), number - first, findings)

    def _decode(self, body: bytes, findings: Findings) -> Any:
        data = snappy.decompress(body, MAX_BODY_BYTES)
        decode = remote_write_v2.decode if data[:1] and data[0] in _V2_FIRST_TAGS else remote_write_v1.decode
        return decode(data, self._cache, self._resolve, _ALL_TIMES, findings)

    @property
    def memory(self) -> Mapping[str, Any]:
        return {}

    def remember(self, memory: Mapping[str, Any]) -> None:
        pass

    def end(self) -> str | None:
        return None
