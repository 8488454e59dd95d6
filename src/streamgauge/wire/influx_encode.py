"""Samples to the InfluxDB line protocol: a metric becomes the measurement, labels its tags, and the value the field
`value`. The opposite of `influx` it is not: a metric's name does not tell what of it had been the field."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Floats, Int64s
from streamgauge.model.batch import Metadata
from streamgauge.model.labels import NAME
from streamgauge.wire.remote_write_encode import Pairs, SeriesForm

_GZIP_LEVEL = 3
_OVERHEAD = 150  # bytes of a form in memory beside its text
_SPECIAL = re.compile(rb"[,= ]")
_MEASUREMENT_SPECIAL = re.compile(rb"[, ]|(?<=\\)=")
"""In a measurement an equals sign is one; behind a backslash InfluxDB 1.x takes that away, as in tags."""
_BACKSLASH = rb"\\\g<0>"
_UNWRITABLE = re.compile(rb"[\n\r]|\\\Z")
_SEEN_KEY = re.compile(rb"(?:[^\\ ]|\\.)*+", re.DOTALL)
"""As far as InfluxDB goes for a key when it looks for the line's end: to a space behind two backslashes, too."""
_HEAD = re.compile(rb"[#\t\x00]")


class InfluxEncoder:
    """Implements wire.remote_write_encode.Encoder, for finite values; times are written in milliseconds."""

    headers: Mapping[str, str] = {"content-type": "text/plain; charset=utf-8", "content-encoding": "gzip"}
    full = False

    def clear(self) -> None:
        pass

    def describe(self, metadata: Sequence[Metadata]) -> None:
        """There is no place for it."""

    def form(self, pairs: Pairs) -> SeriesForm:
        """Raises BadInput for labels that no line can hold, or that InfluxDB does not take."""
        metric = dict(pairs).get(NAME, b"")
        tags = [(name, value) for name, value in pairs if name != NAME]
        if not metric or _HEAD.match(metric):
            raise BadInput("there is no measurement of such a name")
        for text in (metric, *(text for pair in tags for text in pair)):
            if _UNWRITABLE.search(text):
                raise BadInput("no line holds a line feed, or a backslash at the end of a name")
        if any(name == b"time" for name, _ in tags):
            raise BadInput("no tag may be called time")
        key = b",".join(
            [
                _MEASUREMENT_SPECIAL.sub(_BACKSLASH, metric),
                *(_escaped(name) + b"=" + _escaped(value) for name, value in tags),
            ]
        )
        seen = _SEEN_KEY.match(key)
        assert seen is not None  # it matches nothing, too
        if b'="' in key[seen.end() :]:
            raise BadInput("a space behind a backslash, and a quote behind that, begin a text that does not end")
        line = key + b" value="
        return SeriesForm(metric, _OVERHEAD + len(line), line)

    def request(self, series: Sequence[SeriesForm], counts: Int64s, times: Int64s, values: Floats) -> bytes:
        heads: Any = pa.array([form.labels for form in series], pa.large_binary())
        of_rows = heads.take(np.repeat(np.arange(len(series)), counts))
        parts: list[Any] = [of_rows, _texts(values), b" ", _texts(times), b"\n", b""]  # the last stands between them
        join: Any = pc.binary_join_element_wise
        lines = join(*(pa.scalar(part, pa.large_binary()) if isinstance(part, bytes) else part for part in parts))
        _, offsets, data = lines.buffers()
        size = int(np.frombuffer(offsets, np.int64, len(lines) + 1)[-1])
        return bytes(memoryview(data)[:size])

    def packed(self, message: bytes) -> bytes:
        packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        return packer.compress(message) + packer.flush()


def _texts(numbers: Floats | Int64s) -> Any:
    return pa.array(numbers).cast(pa.large_string()).cast(pa.large_binary())


def _escaped(text: bytes) -> bytes:
    return _SPECIAL.sub(_BACKSLASH, text)
