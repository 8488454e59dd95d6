"""JSON lines as VictoriaMetrics writes them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.wire.findings import Reason
from streamgauge.wire.imported import Imported
from streamgauge.wire.json_lines import JsonLines


def read(*lines: str | bytes | dict[str, Any]) -> Imported:
    texts = [json.dumps(line, separators=(",", ":")) if isinstance(line, dict) else line for line in lines]
    body = b"\n".join(line.encode() if isinstance(line, str) else line for line in texts) + b"\n"
    return JsonLines().read(body, 1)


def samples(imported: Imported) -> list[tuple[str, int, float]]:
    rows = imported.rows
    return [
        (rows.texts[code].decode(), time, value)
        for code, time, value in zip(rows.codes.tolist(), rows.times.tolist(), rows.values.tolist(), strict=True)
    ]


def test_lines_as_every_exporter_writes_them() -> None:
    imported = read(
        '{"metric":{"__name__":"a","x":"},\\"values\\":[1]"},"values":[1,-2.5e3],"timestamps":[1700000000000,-5]}',
        "",
        '{"metric":{"__name__":"b"},"values":[],"timestamps":[]}',
        '{"metric":{"__name__":"c"},"values":[3],"timestamps":[7]}',
    )
    x = '{__name__="a",x="},\\"values\\":[1]"}'
    assert samples(imported) == [(x, 1_700_000_000_000, 1.0), (x, -5, -2500.0), ('{__name__="c"}', 7, 3.0)]
    assert imported.places.tolist() == [1, 1, 4]
    assert imported.count == 4
    assert not imported.findings.refused


def test_what_json_has_no_number_for() -> None:
    line = '{"metric":{"__name__":"a"},"values":[null,"Infinity","-Infinity","NaN",1],"timestamps":[1,2,3,4,5]}'
    values = [value for _, _, value in samples(read(line))]
    assert math.isnan(values[0])
    assert math.isnan(values[3])
    assert [values[1], values[2], values[4]] == [math.inf, -math.inf, 1.0]


def test_another_spelling_of_the_same_json() -> None:
    imported = read('{ "timestamps": [1, 2], "values": [null, 0.5], "metric": {"__name__": "\\u00e9", "e": ""} }')
    first, second = samples(imported)
    assert math.isnan(first[2])
    assert second == ('{__name__="é"}', 2, 0.5)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("garbage", Reason.LINE),
        ('{"metric":{"__name__":"a"},"values":[1],"timesta', Reason.LINE),
        ('{"metric":{"__name__":"a"},"values":[1,2],"timestamps":[1]}', Reason.LINE),
        ('{"metric":{"__name__":"a"},"values":[1,2x],"timestamps":[1,2]}', Reason.LINE),
        ('{"metric":{"__name__":"a"},"values":[1,2],"timestamps":[1,2.5]}', Reason.LINE),
        ('{"metric":{"__name__":"a"},"values":[[1],2],"timestamps":[1,2]}', Reason.LINE),
        ('{"metric":{"__name__":1},"values":[1],"timestamps":[1]}', Reason.LABELS),
        ('{"metric":{},"values":[1],"timestamps":[1]}', Reason.LABELS),
        ('{"metric":[],"values":[1],"timestamps":[1]}', Reason.LINE),
        ('{"metric":{"__name__":"a"},"values":1,"timestamps":[1]}', Reason.LINE),
        ('{"metric":{"__name__":"a"},"values":[1],"timestamps":["1"]}', Reason.LINE),
        (b'{"metric":{"__name__":"\xff"},"values":[1],"timestamps":[1]}', Reason.LABELS),
    ],
)
def test_a_bad_line_costs_itself_and_is_named(line: str | bytes, reason: Reason) -> None:
    good = '{"metric":{"__name__":"a"},"values":[5],"timestamps":[6]}'
    imported = read(good, line, good)
    assert imported.places.tolist() == [1, 3]
    assert list(imported.findings.refused) == [reason]
    assert imported.findings.examples[0].startswith("line 2: ")


LABELS = st.dictionaries(st.text(min_size=1, max_size=6), st.text(min_size=1, max_size=6), min_size=1, max_size=3)
SAMPLES = st.lists(st.tuples(st.integers(-(10**15), 10**15), st.floats(allow_nan=False)), min_size=1, max_size=8)


@given(st.lists(st.tuples(LABELS, SAMPLES), max_size=6))
def test_any_series_are_read_as_they_were_written(
    written: list[tuple[dict[str, str], list[tuple[int, float]]]],
) -> None:
    special = {math.inf: "Infinity", -math.inf: "-Infinity"}
    lines = [
        {
            "metric": labels,
            "values": [special.get(value, value) for _, value in rows],
            "timestamps": [time for time, _ in rows],
        }
        for labels, rows in written
    ]
    imported = read(*lines)
    assert [row[1:] for row in samples(imported)] == [row for _, rows in written for row in rows]
    assert not imported.findings.refused


PIECES = st.sampled_from(
    [
        '{"metric":',
        '{"__name__":"a"}',
        ',"values":[',
        '],"timestamps":[',
        "]}",
        "1",
        ",",
        "null",
        '"NaN"',
        "\n",
        "x",
        "}",
        "-",
    ]
)


@given(st.lists(PIECES, max_size=30))
def test_fuzz_every_line_is_read_or_counted(parts: list[str]) -> None:
    text = "".join(parts)
    imported = read(text)
    alone = [sample for line in text.split("\n") for sample in samples(read(line))]
    assert len(alone) == len(imported.rows) == len(imported.places)


@given(st.binary(max_size=200))
def test_fuzz_any_bytes_are_read_or_refused(body: bytes) -> None:
    read(body)
