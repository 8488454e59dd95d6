"""Lines that are written are read back as they were."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.errors import BadInput
from streamgauge.model.labels import NAME, labels_of
from streamgauge.testing import MemorySink
from streamgauge.wire.findings import Findings
from streamgauge.wire.influx import InfluxCache, decode
from streamgauge.wire.influx_encode import InfluxEncoder
from streamgauge.wire.influx_lines import Precision

TEXT = st.text("ab,= \\\"'#\u00e4", min_size=1, max_size=6).filter(lambda text: not text.endswith("\\"))


@given(
    st.dictionaries(TEXT, TEXT, max_size=3).filter(lambda tags: "__name__" not in tags),
    TEXT.filter(lambda text: text[0] != "#"),
    st.lists(st.tuples(st.integers(-(1 << 40), 1 << 42), st.floats(allow_nan=False, allow_infinity=False)), min_size=1),
)
def test_lines_say_what_was_written(tags: dict[str, str], metric: str, samples: list[tuple[int, float]]) -> None:
    encoder = InfluxEncoder()
    pairs = sorted((name.encode(), value.encode()) for name, value in {**tags, "__name__": metric}.items())
    try:
        forms = [encoder.form(pairs), encoder.form([(NAME, b"other")])]
    except BadInput:
        assert any("\\ " in text for pair in tags.items() for text in (metric, *pair))
        return
    times = np.array([time for time, _ in samples] + [7], np.int64)
    values = np.array([value for _, value in samples] + [1.5])
    body = encoder.request(forms, np.array([len(samples), 1]), times, values)
    assert zlib.decompress(encoder.packed(body), wbits=31) == body
    sink, findings = MemorySink(), Findings()
    cache = InfluxCache()
    for batch in decode(body, Precision.MILLISECONDS, 0, cache, sink.resolve, sink.admitted(), findings):
        sink.batches.append(batch)
    assert not findings.refused, findings.examples
    assert sink.samples(__name__="other_value") == [(7, 1.5)]
    assert sink.samples(**tags, __name__=f"{metric}_value") == sorted(dict(samples).items())
    assert labels_of(sink.keys[0])["__name__"] in (f"{metric}_value", "other_value")


def test_an_equals_sign_is_escaped_in_tags_and_not_in_a_measurement() -> None:
    form = InfluxEncoder().form([(NAME, b"a=b, c"), (b"x=y", b"1=2")])
    assert form.labels == rb"a=b\,\ c,x\=y=1\=2 value="


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"__name__": "#a"},
        {"__name__": "a\nb"},
        {"__name__": "a", "x": "b\\"},
        {"__name__": "a", "time": "b"},
        {"__name__": "a", "\\ ": '"'},
    ],
)
def test_what_no_line_holds_is_refused(labels: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        InfluxEncoder().form([(name.encode(), value.encode()) for name, value in labels.items()])
