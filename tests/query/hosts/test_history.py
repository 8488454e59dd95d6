"""The past of hosts, as it is answered."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from streamgauge.errors import BadInput
from streamgauge.model.arrays import stale_marker
from streamgauge.model.host_history import METRICS, RANGES, HostSample, range_of
from streamgauge.model.source import NoMeter
from streamgauge.query.hosts.history import HostHistoryQuery, HostNamesQuery
from streamgauge.testing.source import MemorySource, Series

MINUTE = 60_000
NOW = 1_700_000_040_000 // MINUTE * MINUTE


def series(minutes: list[int], host: str = "h", rate: float = 0.0, **labels: str) -> list[Series]:
    """Samples so many minutes ago, whose rate is their minute unless it is given."""
    times = [NOW - minute * MINUTE for minute in minutes]
    values = {
        "requests_sec": [rate or float(minute) for minute in minutes],
        "p99_ms": [10.0 * minute for minute in minutes],
        "error_rate": [0.5] * len(minutes),
        "active_backends": [3.0] * len(minutes),
    }
    return [({"__name__": METRICS[name], "host": host, **labels}, times, list(values[name])) for name in METRICS]


def ask(source: MemorySource, range_: str = "1h", host: str = "h") -> Any:
    chosen = RANGES[range_]
    query = HostHistoryQuery(host, chosen.label, NOW - chosen.length, NOW, chosen.resolution)
    return json.loads(b"".join(query.read(source, NoMeter())))


def test_the_answer_has_the_form_that_dashboards_know() -> None:
    assert ask(MemorySource.of(series([2, 1]))) == {
        "host": "h",
        "range": "1 hour",
        "samples": [
            {"ts": NOW // 1000 - 120, "requests_sec": 2, "p99_ms": 20, "error_rate": 0.5, "active_backends": 3},
            {"ts": NOW // 1000 - 60, "requests_sec": 1, "p99_ms": 10, "error_rate": 0.5, "active_backends": 3},
        ],
    }


def test_a_host_without_samples_has_an_empty_list() -> None:
    assert ask(MemorySource.of([])) == {"host": "h", "range": "1 hour", "samples": []}
    assert ask(MemorySource.of(series([1])), host="other")["samples"] == []


@pytest.mark.parametrize(("name", "count"), [("30m", 30), ("1h", 60), ("6h", 73), ("24h", 97), ("7d", 85)])
def test_the_first_sample_of_each_stretch_is_given(name: str, count: int) -> None:
    minutes = list(range(7 * 1440, -1, -1))
    found = [sample["ts"] for sample in ask(MemorySource.of(series(minutes)), name)["samples"]]
    seconds = RANGES[name].resolution // 1000
    assert len(found) in (count - 1, count)
    assert found == sorted(found)
    assert found[0] > NOW // 1000 - RANGES[name].length // 1000
    assert all(ts % seconds == 0 for ts in found[1:])
    assert len({ts // seconds for ts in found}) == len(found)


def test_what_is_missing_is_nothing_and_markers_are_no_samples() -> None:
    requests = series([2, 1])[0]
    gone = (
        {"__name__": METRICS["p99_ms"], "host": "h"},
        [NOW - 2 * MINUTE, NOW - MINUTE],
        np.append(7.0, stale_marker(1)),
    )
    found = ask(MemorySource.of([requests, gone]))["samples"]
    assert [(each["requests_sec"], each["p99_ms"]) for each in found] == [(2, 7), (1, 0)]


def test_numbers_that_nobody_measured_are_nothing() -> None:
    given = series([3, 2, 1], rate=1e308, team="a") + series([3, 2, 1], rate=2.0, team="b")
    given[3][2][:] = [1e300, float("inf"), float("nan")]  # type: ignore[index]
    found = ask(MemorySource.of(given))["samples"]
    assert [(each["requests_sec"], each["active_backends"]) for each in found] == [(2, 3)] * 3


def test_series_of_one_host_are_put_together() -> None:
    several = series([1], rate=30.0, team="a") + series([1], rate=10.0, team="b")
    several[2][2][0], several[6][2][0], several[1][2][0] = 10.0, 50.0, 99.0
    (found,) = ask(MemorySource.of(several))["samples"]
    assert found == {
        "ts": NOW // 1000 - 60,
        "requests_sec": 40,
        "p99_ms": 99,
        "error_rate": 20,
        "active_backends": 6,
    }


def test_series_that_followed_each_other_are_not_added_up() -> None:
    """A host went from team a to team b in the middle of a quarter of an hour."""
    moved = series(list(range(60, 23, -1)), rate=10.0, team="a") + series(list(range(23, 0, -1)), rate=10.0, team="b")
    for range_ in ("1h", "24h", "7d"):
        found = ask(MemorySource.of(moved), range_)["samples"]
        assert {(each["requests_sec"], each["active_backends"]) for each in found} == {(10, 3)}


def test_series_of_programs_that_sample_at_moments_of_their_own_are_put_together() -> None:
    own = [
        (labels, [time + 50_000 for time in times], values)
        for labels, times, values in series(list(range(60, 0, -1)), rate=7.0, team="b")
    ]
    both = series(list(range(60, 0, -1)), rate=10.0, team="a") + own
    for range_ in ("1h", "24h"):
        found = ask(MemorySource.of(both), range_)["samples"]
        assert {each["requests_sec"] for each in found[1:]} == {17}


def test_names_are_of_hosts_that_have_samples_in_the_time() -> None:
    source = MemorySource.of(series([1], "b") + series([2], "a") + series([100], "old"))
    query = HostNamesQuery(NOW - 60 * MINUTE, NOW)
    assert json.loads(b"".join(query.read(source, NoMeter()))) == {"hosts": ["a", "b"]}
    assert HostNamesQuery(NOW, NOW + 1).names(source, NoMeter()) == []


def test_ranges_have_the_names_that_the_reference_has() -> None:
    assert [(name, each.resolution // MINUTE, each.label) for name, each in list(RANGES.items())[:4]] == [
        ("30m", 1, "30 minutes"),
        ("1h", 1, "1 hour"),
        ("6h", 5, "6 hours"),
        ("24h", 15, "24 hours"),
    ]
    with pytest.raises(BadInput, match="invalid range; use 30m, 1h, 6h, or 24h"):
        range_of("2h")
    assert HostSample(1) == HostSample(1, 0.0, 0.0, 0.0, 0)
