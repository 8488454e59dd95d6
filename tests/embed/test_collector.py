"""From counters to samples."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from streamgauge.client import HostCounters
from streamgauge.embed import Collector, Sample
from streamgauge.embed.collector import quantile


class Kept:
    """Takes samples, and says when the first has come."""

    def __init__(self) -> None:
        self.samples: list[tuple[str, Sample]] = []
        self.come = threading.Event()

    def record_all(self, samples: Sequence[tuple[str, Sample]], /) -> bool:
        self.samples += samples
        self.come.set()
        return True


class Stand:
    def __init__(self, counters: HostCounters | None = None) -> None:
        self.kept, self.now = Kept(), 1000.0
        self.counters = counters or HostCounters(bounds=(0.1, 0.2))
        self.collector = Collector(self.kept, self.counters, clock=self.time, monotonic=self.time)

    def time(self) -> float:
        return self.now

    def sample(self) -> list[tuple[str, Sample]]:
        before = len(self.kept.samples)
        self.now += 60
        self.collector.sample()
        return self.kept.samples[before:]


def test_samples_are_of_what_was_counted_since_the_last_one() -> None:
    stand = Stand(HostCounters(bounds=(0.1, 0.2), backends=lambda host: 3))
    stand.counters.observe(b"a", 200, 0.05)
    assert stand.sample() == [("a", Sample(1060, active_backends=3))], "the first has no rate"
    for status in (200, 200, 404, 500):
        stand.counters.observe(b"a", status, 0.15)
    stand.counters.observe(b"b", 200, 0.05)
    (_, found), (_, new) = stand.sample()
    assert found == Sample(1120, pytest.approx(4 / 60), pytest.approx(199.0), 25.0, 3)
    assert new == Sample(1120, active_backends=3)
    assert stand.sample()[0] == ("a", Sample(1180, active_backends=3)), "nothing was asked"


def test_counters_that_go_down_are_no_negative_rate() -> None:
    stand = Stand()
    for _ in range(5):
        stand.counters.observe(b"a", 500, 0.05)
    stand.sample()
    stand.counters._begin()
    stand.counters.observe(b"a", 200, 0.05)
    assert stand.sample() == [("a", Sample(1120, active_backends=1))]


def test_it_samples_at_once_and_stops_when_told() -> None:
    counters, kept = HostCounters(), Kept()
    counters.observe(b"a", 200, 0.05)
    with Collector(kept, counters, interval=3600) as collector:
        assert kept.come.wait(60)
        with pytest.raises(RuntimeError, match="started before"):
            collector.start()
    collector.stop()
    assert [host for host, _ in kept.samples] == ["a"]


def test_counters_that_fail_do_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    asked = threading.Event()

    def broken(host: str) -> int:
        asked.set()
        raise ValueError("no backends")

    counters = HostCounters(backends=broken)
    counters.observe(b"a", 200, 0.05)
    collector = Collector(Kept(), counters, interval=0.001)
    collector.start()
    assert asked.wait(60)
    asked.clear()
    assert asked.wait(60), "it has tried again"
    collector.stop()
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("buckets", "q", "value"),
    [
        ((0, 0, 0), 0.99, 0.0),
        ((100, 0, 0), 0.5, 0.05),
        ((0, 0, 7), 0.5, 0.2),
        ((50, 50, 0), 0.99, 0.198),
        ((1, 0, 0), 1.0, 0.1),
    ],
)
def test_quantiles_are_interpolated(buckets: tuple[int, ...], q: float, value: float) -> None:
    assert quantile((0.1, 0.2), buckets, q) == pytest.approx(value)
