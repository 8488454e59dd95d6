"""Results as the JSON of Prometheus' HTTP API, streamed in chunks of a few MiB.

The text of a chunk is the data buffer of one Arrow string array: for every point a prefix (which closes the point
before it and, where a series begins, opens the series) joined with the text of its value. Nothing here runs once per
point in Python; labels are escaped once per distinct value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.errors import StreamgaugeError
from streamgauge.model.arrays import Floats, Int64s, cut
from streamgauge.model.frame import LabelFrame
from streamgauge.query.budget import Budget
from streamgauge.query.labels import LabelTexts, used_bytes
from streamgauge.query.result import Evaluation, Matrix, RangeVector, Result, Scalar, String, Vector
from streamgauge.query.text import concatenated, join, text_bytes, time_texts, value_texts

JSON = "application/json"

CHUNK_BYTES = 2 << 20
"""Text of one chunk, about: some 64 k points, so that the arrays in between stay in the processor's cache."""
_POINT_BYTES = 32
_ROW_BYTES = 64


def error_body(error: StreamgaugeError) -> bytes:
    """The API's error envelope."""
    return _dump({"status": "error", "errorType": error.kind, "error": error.message})


def success(data: Iterable[bytes], warnings: Sequence[str] = (), infos: Sequence[str] = ()) -> Iterator[bytes]:
    """The API's envelope around the text of `data`."""
    yield b'{"status":"success","data":'
    yield from data
    if warnings:
        yield b',"warnings":' + _dump(list(warnings))
    if infos:
        yield b',"infos":' + _dump(list(infos))
    yield b"}"


def json_data(data: object) -> Iterator[bytes]:
    """Anything small."""
    yield _dump(data)


def evaluation_data(evaluation: Evaluation, stats: Mapping[str, object] | None = None) -> Iterator[bytes]:
    """The data of a query: type, result and, where asked for, statistics."""
    name, encode = _ENCODERS[type(evaluation.result)]
    yield b'{"resultType":"%s","result":' % name
    yield from encode(evaluation.result)
    if stats is not None:
        yield b',"stats":' + _dump(stats)
    yield b"}"


def series_data(frame: LabelFrame, budget: Budget) -> Iterator[bytes]:
    """One object of labels for each series. Raises the budget's errors before the first byte."""
    budget.charge(0, sum(map(used_bytes, frame.columns.values())))  # each value is spelled once
    labels = _labels(frame)
    sizes = labels.sizes()
    budget.check_answer(int(sizes.sum()))
    yield b"["
    for first, last in cut(_ROW_BYTES + sizes, CHUNK_BYTES):
        text = concatenated(join(",{", labels.rows(first, last), "}"))
        yield text[1:] if first == 0 else text
    yield b"]"


def strings_data(values: pa.StringArray, budget: Budget) -> Iterator[bytes]:
    """A list of strings. Raises the budget's errors before the first byte."""
    budget.check_answer(text_bytes(values))
    yield b"["
    sizes = pc.cast(pc.binary_length(values), pa.int64()).to_numpy()
    for first, last in cut(sizes, CHUNK_BYTES):
        text = concatenated(join(',"', _escaped(values.slice(first, last - first)), '"'))
        yield text[1:] if first == 0 else text
    yield b"]"


def _scalar(result: Scalar) -> Iterator[bytes]:
    value = value_texts(np.array([result.value]))[0].as_py()
    yield f'[{_time(result.time)},"{value}"]'.encode()


def _string(result: String) -> Iterator[bytes]:
    yield b"[%s,%s]" % (_time(result.time).encode(), _dump(result.value))


def _vector(result: Vector) -> Iterator[bytes]:
    labels = _labels(result.labels)
    middle = f'}},"value":[{_time(result.time)},"'
    yield b"["
    for first, last in cut(_ROW_BYTES + labels.sizes(), CHUNK_BYTES):
        values = value_texts(result.values[first:last])
        text = concatenated(join(',{"metric":{', labels.rows(first, last), middle, values, '"]}'))
        yield text[1:] if first == 0 else text
    yield b"]"


def _matrix(result: Matrix) -> Iterator[bytes]:
    labels = _labels(result.labels)
    counts = np.count_nonzero(result.present, axis=1)
    times = time_texts(result.times)

    def pieces() -> Iterator[bytes]:
        for first, last in cut(_ROW_BYTES + labels.sizes() + counts * _POINT_BYTES, CHUNK_BYTES):
            present = result.present[first:last]
            steps = np.nonzero(present)[1]
            starts = np.cumsum(counts[first:last]) - counts[first:last]
            values = result.values[first:last][present]
            yield _points(times, steps, starts, labels.rows(first, last), values)

    return _rows_of_points(pieces())


def _range_vector(result: RangeVector) -> Iterator[bytes]:
    labels = _labels(result.labels)
    samples = result.samples

    def pieces() -> Iterator[bytes]:
        for first, last in cut(_ROW_BYTES + labels.sizes() + np.diff(samples.offsets) * _POINT_BYTES, CHUNK_BYTES):
            begin, end = samples.offsets[first], samples.offsets[last]
            steps = np.arange(end - begin)
            starts = samples.offsets[first:last] - begin
            times = time_texts(samples.times[begin:end])
            yield _points(times, steps, starts, labels.rows(first, last), samples.values[begin:end])

    return _rows_of_points(pieces())


_ENCODERS: dict[type[Result], tuple[bytes, Callable[[Any], Iterator[bytes]]]] = {
    Scalar: (b"scalar", _scalar),
    String: (b"string", _string),
    Vector: (b"vector", _vector),
    Matrix: (b"matrix", _matrix),
    RangeVector: (b"matrix", _range_vector),
}

_SERIES_CLOSE = b'"]]}'


def _points(times: pa.StringArray, steps: Int64s, starts: Int64s, labels: pa.StringArray, values: Floats) -> bytes:
    """Points of whole series, each text beginning with the end of what stands before it.

    times: the distinct times; steps: for each point its place in `times`; starts: where each series has its first
    point (every series has one); values: float64[points].
    """
    within = join('"],[', times, ',"')
    opening = join('"]]},{"metric":{', labels, '},"values":[[', times.take(steps[starts]), ',"')
    steps[starts] = len(within) + np.arange(len(starts))
    prefixes = pa.concat_arrays([within, opening]).take(steps)
    return concatenated(join(prefixes, value_texts(values)))


def _rows_of_points(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces of `_points` as one JSON array."""
    first = next(pieces, None)
    if first is None:
        yield b"[]"
        return
    yield b"[" + first[len(_SERIES_CLOSE) + 1 :]
    yield from pieces
    yield _SERIES_CLOSE + b"]"


def _labels(frame: LabelFrame) -> LabelTexts:
    return LabelTexts(frame, lambda name: _dump(name).decode() + ":", _escaped)


def _escaped(texts: pa.StringArray) -> pa.StringArray:
    """What stands between the quotes of JSON string literals."""
    special = pc.match_substring_regex(texts, r'[\x00-\x1f"\\]')
    if not pc.any(special).as_py():
        return texts
    escaped = [json.dumps(text, ensure_ascii=False)[1:-1] for text in texts.filter(special).to_pylist()]
    replaced: pa.StringArray = pc.replace_with_mask(texts, special, pa.array(escaped, pa.string()))
    return replaced


def _time(time: int) -> str:
    """As `time_texts` spells it, which takes a third of a millisecond for one."""
    seconds, milliseconds = divmod(abs(time), 1000)
    fraction = f".{milliseconds:03d}" if milliseconds else ""
    return f"{'-' if time < 0 else ''}{seconds}{fraction}"


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
