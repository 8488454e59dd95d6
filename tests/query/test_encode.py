"""The API's JSON against what the json module makes of the same result."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.errors import BadInput, QueryTimeout
from streamgauge.model.frame import LabelColumn, LabelFrame, empty_frame
from streamgauge.model.source import Samples
from streamgauge.query import encode
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.encode import error_body, evaluation_data, json_data, series_data, strings_data, success
from streamgauge.query.result import Evaluation, Matrix, RangeVector, Result, Scalar, String, Vector
from streamgauge.query.text import strings, time_texts


def decoded(chunks: Iterable[bytes]) -> Any:
    return json.loads(b"".join(chunks))


def shown(result: Result) -> Any:
    data = decoded(evaluation_data(Evaluation(result)))
    assert list(data) == ["resultType", "result"]
    return data


label_names = st.one_of(st.sampled_from(["__name__", "job", "le", "Z"]), st.text('aé"\\\n.\x00\u2028😀', min_size=1))
label_values = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)
frames = st.lists(st.dictionaries(label_names, label_values, max_size=4), max_size=6)
numbers = st.integers(-1000, 10**12).map(float)


@st.composite
def matrices(draw: st.DrawFn) -> tuple[list[dict[str, str]], Matrix]:
    labels = draw(frames)
    steps = draw(st.integers(1, 5))
    present = np.array([draw(st.integers(1, 2**steps - 1)) >> np.arange(steps) & 1 for _ in labels], np.bool_)
    values = np.array([[draw(numbers) for _ in range(steps)] for _ in labels], np.float64)
    shape = (len(labels), steps)
    times = draw(st.integers(-(10**6), 10**13)) + 1500 * np.arange(steps)
    return labels, Matrix(LabelFrame.of(labels), times, values.reshape(shape), present.reshape(shape))


def whole(value: float) -> str:
    return str(int(value))


@given(matrices(), st.sampled_from([1, 100, 1 << 20]))
def test_a_matrix_shows_each_present_point_whatever_the_chunks(
    given_matrix: tuple[list[dict[str, str]], Matrix], chunk_bytes: int
) -> None:
    labels, matrix = given_matrix
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "CHUNK_BYTES", chunk_bytes)
        data = shown(matrix)
    assert data["resultType"] == "matrix"
    assert data["result"] == [
        {
            "metric": dict(sorted(labels[row].items())),
            "values": [
                [pytest.approx(time / 1000), whole(value)]
                for time, value, there in zip(
                    matrix.times.tolist(), matrix.values[row].tolist(), matrix.present[row].tolist(), strict=True
                )
                if there
            ],
        }
        for row in range(len(labels))
    ]
    assert [list(series["metric"]) for series in data["result"]] == [sorted(each) for each in labels]


@given(frames, st.data(), st.sampled_from([1, 100, 1 << 20]))
def test_a_vector_shows_one_value_a_series(labels: list[dict[str, str]], data: st.DataObject, chunk_bytes: int) -> None:
    values = [data.draw(numbers) for _ in labels]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "CHUNK_BYTES", chunk_bytes)
        result = shown(Vector(LabelFrame.of(labels), 1_500, np.array(values, np.float64)))
    assert result["resultType"] == "vector"
    assert result["result"] == [
        {"metric": each, "value": [1.5, whole(value)]} for each, value in zip(labels, values, strict=True)
    ]


@given(st.lists(st.integers(1, 5), max_size=5), st.sampled_from([1, 100, 1 << 20]))
def test_a_range_vector_shows_its_samples(counts: list[int], chunk_bytes: int) -> None:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    total = int(offsets[-1])
    samples = Samples(offsets, 1000 * np.arange(total), np.arange(total, dtype=np.float64))
    labels = LabelFrame.of([{"i": str(i)} for i in range(len(counts))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "CHUNK_BYTES", chunk_bytes)
        result = shown(RangeVector(labels, samples))
    assert result["resultType"] == "matrix"
    assert result["result"] == [
        {"metric": {"i": str(i)}, "values": [[t, str(t)] for t in range(offsets[i], offsets[i + 1])]}
        for i in range(len(counts))
    ]


def test_scalars_and_strings() -> None:
    assert shown(Scalar(1_500, 0.25)) == {"resultType": "scalar", "result": [1.5, "0.25"]}
    assert shown(Scalar(-1, -np.inf)) == {"resultType": "scalar", "result": [-0.001, "-Inf"]}


@given(st.integers(-(1 << 53), 1 << 53))
def test_one_time_is_spelled_as_many_are(time: int) -> None:
    [spelled] = time_texts(np.array([time])).to_pylist()
    assert b"".join(evaluation_data(Evaluation(Scalar(time, 1.0)))) == (
        f'{{"resultType":"scalar","result":[{spelled},"1"]}}'.encode()
    )


@pytest.mark.parametrize("rows", [1, 16, 17, 40])
def test_labels_of_few_and_of_many_values_stand_in_order(rows: int) -> None:
    labels = [{"a": "same", "b": f"b{row}", "c": f"{row % 2}", "d": f'd"{row}', "e": "x"} for row in range(rows)]
    labels[0].pop("c")
    result = decoded(series_data(LabelFrame.of(labels), Budget(Limits())))
    assert result == labels
    assert [list(row) for row in result] == [sorted(row) for row in labels]
    assert shown(String(2_000, 'a "b"\n')) == {"resultType": "string", "result": [2, 'a "b"\n']}


def test_a_large_matrix_comes_in_several_chunks_that_fit_together() -> None:
    rows, steps = 2_000, 200
    labels = LabelFrame.of([{"__name__": "m", "i": str(i)} for i in range(rows)])
    values = np.random.default_rng(1).random((rows, steps))
    matrix = Matrix(labels, 1000 * np.arange(steps), values, np.ones((rows, steps), np.bool_))
    chunks = list(evaluation_data(Evaluation(matrix)))
    assert len(chunks) > 5
    assert max(map(len, chunks)) < 2 * encode.CHUNK_BYTES
    result = decoded(chunks)["result"]
    assert [series["metric"]["i"] for series in result] == [str(i) for i in range(rows)]
    assert [[float(value) for _, value in series["values"]] for series in result] == values.tolist()


def test_long_labels_count_towards_the_size_of_a_chunk() -> None:
    rows = 200
    column = LabelColumn(np.zeros(rows, np.int32), strings(["x" * 60_000]))
    chunks = list(evaluation_data(Evaluation(Vector(LabelFrame(rows, {"l": column}), 0, np.zeros(rows)))))
    assert max(map(len, chunks)) < 2 * encode.CHUNK_BYTES
    assert len(decoded(chunks)["result"]) == rows


def test_a_dictionary_much_longer_than_the_frame_is_not_gone_through() -> None:
    values = pa.array([f'value "{i}"' for i in range(1000)], pa.string())
    frame = LabelFrame(3, {"l": LabelColumn(np.array([999, -1, 7], np.int32), values)})
    assert decoded(series_data(frame, Budget(Limits()))) == [{"l": 'value "999"'}, {}, {"l": 'value "7"'}]


def test_series_and_strings() -> None:
    assert decoded(series_data(empty_frame(), Budget(Limits()))) == []
    assert decoded(series_data(empty_frame(2), Budget(Limits()))) == [{}, {}]
    assert decoded(strings_data(strings([]), Budget(Limits()))) == []
    assert decoded(strings_data(strings(["a", '"', "\x1f", "é"]), Budget(Limits()))) == ["a", '"', "\x1f", "é"]


@settings(max_examples=20)
@given(st.lists(label_values, max_size=5))
def test_strings_survive(texts: list[str]) -> None:
    assert decoded(strings_data(strings(texts), Budget(Limits()))) == texts


def test_the_envelope_is_that_of_prometheus() -> None:
    assert b"".join(success(json_data(["a"]))) == b'{"status":"success","data":["a"]}'
    assert b"".join(success(json_data({}), ["w"], ["i", "j"])) == (
        b'{"status":"success","data":{},"warnings":["w"],"infos":["i","j"]}'
    )
    assert error_body(BadInput('1:1: parse error: "x"')) == (
        b'{"status":"error","errorType":"bad_data","error":"1:1: parse error: \\"x\\""}'
    )
    assert json.loads(error_body(QueryTimeout("late")))["errorType"] == "timeout"


def test_statistics_stand_beside_the_result() -> None:
    evaluation = Evaluation(Scalar(0, 1.0))
    assert decoded(evaluation_data(evaluation, {"samples": {"peakSamples": 3}})) == {
        "resultType": "scalar",
        "result": [0, "1"],
        "stats": {"samples": {"peakSamples": 3}},
    }
