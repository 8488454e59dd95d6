from __future__ import annotations

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamgauge.model.arrays import stale_marker
from streamgauge.model.frame import LabelFrame
from streamgauge.wire.exposition import encode, number


def text(
    labels: list[dict[str, str]],
    values: list[float],
    types: dict[str, str] | None = None,
    external: dict[str, str] | None = None,
    quoted: bool = False,
) -> str:
    times = np.arange(len(labels), dtype=np.int64) + 1000
    frame = LabelFrame.of(labels)
    return b"".join(encode(frame, times, np.array(values), types or {}, external or {}, quoted)).decode()


def test_metrics_stand_together_each_after_its_type() -> None:
    found = text(
        [{"__name__": "b", "x": "1"}, {"__name__": "a"}, {"__name__": "b", "y": "2"}],
        [1.0, 2.5, float("inf")],
        {"b": "counter", "a": "histogram"},
    )
    assert found == '# TYPE a untyped\na 2.5 1001\n# TYPE b counter\nb{x="1"} 1 1000\nb{y="2"} +Inf 1002\n'


def test_external_labels_are_added_where_they_are_missing() -> None:
    found = text([{"__name__": "m", "zone": "own"}, {"__name__": "m"}], [1.0, 2.0], external={"zone": "eu", "dc": "1"})
    assert 'm{zone="own",dc="1"} 1 1000\n' in found
    assert 'm{zone="eu",dc="1"} 2 1001\n' in found


def test_stale_markers_and_nameless_series_are_left_out() -> None:
    values = [1.0, stale_marker()[0], 3.0]
    frame = LabelFrame.of([{"__name__": "a"}, {"__name__": "b"}, {"job": "x"}])
    column = np.array(values)
    column[1:2] = stale_marker()
    found = b"".join(encode(frame, np.zeros(3, np.int64), column, {}, {}))
    assert found == b"# TYPE a untyped\na 1 0\n"
    assert list(encode(LabelFrame.of([{"job": "x"}]), np.zeros(1, np.int64), np.ones(1), {}, {})) == []


def test_labels_read_back_as_they_were() -> None:
    value = 'back\\slash "quote"\nnew line ü'
    (family,) = text_string_to_metric_families(text([{"__name__": "m", "l": value}], [4.0]))
    assert family.samples[0].labels == {"l": value}


def test_names_outside_the_old_alphabet() -> None:
    labels = [{"__name__": "http.requests", "host.name": "a"}]
    assert 'http_requests{host_name="a"} 1 1000' in text(labels, [1.0])
    assert '{"http.requests","host.name"="a"} 1 1000' in text(labels, [1.0], quoted=True)


@pytest.mark.parametrize("value", [0.1, 1e300, 5e-324, -0.0, 123456789.0, 1e16, float("nan"), float("-inf")])
def test_a_number_reads_back_as_itself(value: float) -> None:
    assert np.array([float(number(value))]).tobytes() == np.array([value]).tobytes()


def test_many_rows_come_in_several_chunks() -> None:
    frame = LabelFrame.of([{"__name__": "m", "i": str(i)} for i in range(10_000)])
    chunks = list(encode(frame, np.zeros(10_000, np.int64), np.ones(10_000), {}, {}))
    assert len(chunks) > 2
    assert b"".join(chunks).count(b"\n") == 10_001
