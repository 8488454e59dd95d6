"""Lines of samples with times: three forms, whatever order, and garbage that costs nothing but itself."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.wire.findings import Reason
from streamgauge.wire.imported import Imported
from streamgauge.wire.sample_lines import Form, SampleLines

Sample = tuple[str, int, float]


def read(text: bytes | str, form: Form = Form.OPENMETRICS, time: int | None = None) -> Imported:
    body = text.encode() if isinstance(text, str) else text
    return SampleLines(form, time).read(body if body.endswith(b"\n") else body + b"\n", 1)


def samples(imported: Imported) -> list[Sample]:
    rows = imported.rows
    return [
        (rows.texts[code].decode(), time, value)
        for code, time, value in zip(rows.codes.tolist(), rows.times.tolist(), rows.values.tolist(), strict=True)
    ]


def refused(imported: Imported) -> dict[Reason, int]:
    return dict(imported.findings.refused)


def test_openmetrics_has_seconds() -> None:
    imported = read(
        '# TYPE a counter\n# HELP a Some \\"text\\".\n# UNIT a seconds\n'
        'a_total{x="1 2",y="\\"\\\\"} 5 1700000000.123\n'
        "b -1.5e3 1700000000\n"
        '{"my.metric",z="3"} +Inf -12.5\n'
        "b NaN 1.7e9\n"
        "# EOF\n"
    )
    a, b, c, d = samples(imported)
    assert a == ('{__name__="a_total",x="1 2",y="\\"\\\\"}', 1_700_000_000_123, 5.0)
    assert b == ('{__name__="b"}', 1_700_000_000_000, -1500.0)
    assert c == ('{__name__="my.metric",z="3"}', -12_500, math.inf)
    assert d[1] == 1_700_000_000_000
    assert math.isnan(d[2])
    assert imported.places.tolist() == [4, 5, 6, 7]
    assert imported.count == 8
    assert imported.findings.metadata["a"].help == 'Some "text".'
    assert imported.findings.metadata["a"].unit == "seconds"
    assert not refused(imported)


def test_the_text_format_has_milliseconds() -> None:
    imported = read("# a comment\n# TYPE a gauge\na 1 1700000000123\n\n  a\t2  -5\na{x='1'} 3 4\n", Form.PROMETHEUS)
    assert samples(imported) == [('{__name__="a"}', 1_700_000_000_123, 1.0), ('{__name__="a"}', -5, 2.0)]
    assert imported.places.tolist() == [3, 5]
    assert refused(imported) == {Reason.LINE: 1}
    assert imported.findings.metadata["a"].type == "gauge"


def test_what_promtool_dumps() -> None:
    imported = read(
        '{__name__="up", job="a \\u00e9\\t\\"", x="y, z"} 1 1700000000000\n'
        '{__name__="h"} {count:4, sum:1, (0.5,1]:4} 1700000000000\n'
        '{job="nameless"} NaN -1\n',
        Form.DUMP,
    )
    first, second = samples(imported)
    assert first == ('{__name__="up",job="a é\t\\"",x="y, z"}', 1_700_000_000_000, 1.0)
    assert second[:2] == ('{job="nameless"}', -1)
    assert refused(imported) == {Reason.HISTOGRAM: 1}


def test_garbage_costs_its_own_line_and_is_named() -> None:
    imported = read(
        "a 1 1\n"
        "garbage\n"
        'a{x="torn\n'
        "a 1x 2\n"
        "a 2 yesterday\n"
        "a 2 1e300\n"
        "a 3\n"
        'a{x="1",x="2"} 4 4\n'
        "a 5 5 6\n"
        "\xff 6 6\n"
        "# TYPE a nonsense\n"
        "a 7 7\n"
    )
    assert [sample[1:] for sample in samples(imported)] == [(1000, 1.0), (7000, 7.0)]
    assert imported.places.tolist() == [1, 12]
    assert refused(imported) == {Reason.LINE: 7, Reason.NO_TIME: 1, Reason.LABELS: 1, Reason.METADATA: 1}
    examples = imported.findings.examples
    assert examples[0].startswith("line 11: there is no metric type")
    assert examples[1].startswith("line 2: ")
    assert "garbage" in examples[1]


def test_a_time_for_samples_that_have_none() -> None:
    imported = read('a 1\na{x="b c"} 2\na 3 4\n', time=5000)
    assert [sample[1] for sample in samples(imported)] == [5000, 5000, 4000]


def test_exemplars_are_counted_and_their_samples_kept() -> None:
    imported = read('a_bucket{le="1"} 2 3 # {trace="x # y"} 0.5 2.5\na{x=" # "} 1 2\n')
    assert [sample[1:] for sample in samples(imported)] == [(3000, 2.0), (2000, 1.0)]
    assert refused(imported) == {Reason.EXEMPLAR: 1}


def test_buckets_are_spelled_as_every_scrape_spells_them() -> None:
    text = '# TYPE h histogram\nh_bucket{le="1"} 1 1\nh_bucket{le="1.0"} 2 2\n'
    assert {sample[0] for sample in samples(read(text))} == {'{__name__="h_bucket",le="1.0"}'}
    assert '{__name__="g_bucket",le="1"}' in {sample[0] for sample in samples(read(text + 'g_bucket{le="1"} 1 1\n'))}


def test_a_later_run_knows_what_an_earlier_one_read() -> None:
    first = SampleLines(Form.OPENMETRICS)
    first.read(b"# TYPE h histogram\n# HELP h Some.\n# EOF\n", 1)
    later = SampleLines(Form.OPENMETRICS)
    assert later.end() is not None
    later.remember(first.memory)
    assert later.end() is None
    assert samples(later.read(b'h_bucket{le="5"} 1 1\n', 4))[0][0] == '{__name__="h_bucket",le="5.0"}'
    assert later.read(b"# UNIT h seconds\n", 5).findings.metadata["h"].help == "Some."


def test_the_end_of_openmetrics_is_missed() -> None:
    reader = SampleLines(Form.OPENMETRICS)
    reader.read(b"a 1 1\n", 1)
    assert "# EOF" in str(reader.end())
    assert SampleLines(Form.PROMETHEUS).end() is None


NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
LABEL_VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=8)
SERIES = st.tuples(NAMES, st.dictionaries(NAMES, LABEL_VALUES, max_size=3))
SAMPLES = st.lists(st.tuples(SERIES, st.integers(-(10**12), 10**13), st.floats()), max_size=20)


def spelled(series: tuple[str, dict[str, str]]) -> str:
    escaped = (f'{name}="' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for name, value in series[1].items())
    return f"{series[0]}{{{','.join(escaped)}}}" if series[1] else series[0]


@given(SAMPLES)
def test_any_samples_are_read_as_they_were_written(
    written: list[tuple[tuple[str, dict[str, str]], int, float]],
) -> None:
    def bits(value: float) -> bytes:
        return struct.pack("<d", math.nan if math.isnan(value) else value)

    wanted = [(time, bits(value)) for _, time, value in written]
    seconds = "".join(f"{spelled(series)} {value} {time / 1000:.3f}\n" for series, time, value in written)
    whole = "".join(f"{spelled(series)} {value} {time}\n" for series, time, value in written)
    for text, form in ((seconds, Form.OPENMETRICS), (whole, Form.PROMETHEUS)):
        imported = read(text, form)
        assert [(time, bits(value)) for _, time, value in samples(imported)] == wanted
        assert not refused(imported)
    by_series: dict[str, int] = {}
    for (series, _, _), code in zip(written, imported.rows.codes.tolist(), strict=True):
        assert by_series.setdefault(spelled((series[0], dict(sorted(series[1].items())))), code) == code


PIECES = st.sampled_from(
    [
        b"a",
        b"{",
        b"}",
        b'x="1"',
        b" ",
        b"\t",
        b"\n",
        b"1",
        b"1.5",
        b"NaN",
        b"#",
        b" # {",
        b"# TYPE a gauge",
        b"\\",
        b'"',
        b"\xff",
    ]
)


@given(st.lists(PIECES, max_size=40), st.sampled_from(list(Form)))
def test_fuzz_every_line_is_read_or_counted(parts: list[bytes], form: Form) -> None:
    text = b"".join(parts) + b"\n"
    imported = SampleLines(form, 7).read(text, 1)
    assert len(imported.rows) == len(imported.places) <= imported.count == text.count(b"\n")
    assert (imported.places >= 1).all()
    alone = [sample for line in text.split(b"\n") for sample in samples(SampleLines(form, 7).read(line + b"\n", 1))]
    assert len(alone) == len(imported.rows), "what a line gives does not depend on its neighbours"


@pytest.mark.parametrize("form", list(Form))
@given(body=st.binary(max_size=300))
def test_fuzz_any_bytes_are_read_or_refused(form: Form, body: bytes) -> None:
    SampleLines(form).read(body + b"\n", 1)
