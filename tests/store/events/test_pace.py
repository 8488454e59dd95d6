"""Payloads are divided when that takes less time than the events took to come."""

from __future__ import annotations

from streamgauge.store.events.pace import Pace


def test_the_first_flush_divides() -> None:
    assert Pace().has_time(1_000_000, 0.0)


def test_one_flush_after_the_other_has_no_time() -> None:
    pace = Pace()
    assert pace.has_time(100, 10.0)
    pace.took(100, 11.0)
    assert not pace.has_time(100, 11.1)


def test_there_is_time_where_events_come_slowly() -> None:
    pace = Pace()
    assert pace.has_time(100, 10.0)
    pace.took(100, 11.0)
    assert pace.has_time(100, 12.0)
    assert not pace.has_time(200, 13.0)
    assert pace.has_time(100, 15.0)


def test_a_flush_that_was_slow_for_another_reason_does_not_count_for_ever() -> None:
    pace = Pace()
    assert pace.has_time(100, 0.0)
    pace.took(100, 60.0)
    flushes = (60.0 + 20 * number for number in range(1, 100))
    assert any(pace.has_time(100, now) for now in flushes)
