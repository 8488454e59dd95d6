"""When a writer tries again, and how often it speaks of it."""

from __future__ import annotations

from streamgauge.client import Retry
from streamgauge.client.backoff import Backoff
from streamgauge.client.reports import BETWEEN_SECONDS, Reports


def test_pauses_double_up_to_the_longest_and_begin_again() -> None:
    backoff = Backoff(Retry(first=1, longest=5), lambda low, high: high)
    assert [backoff.pause() for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert backoff.pause() == 1


def test_pauses_are_drawn_from_the_upper_half() -> None:
    ranges = []
    backoff = Backoff(Retry(first=1, longest=5), lambda low, high: ranges.append((low, high)) or low)  # type: ignore[func-returns-value]
    assert [backoff.pause(), backoff.pause()] == [0.5, 1]
    assert ranges == [(0.5, 1), (1, 2)]


def test_what_the_server_asks_for_is_kept_within_reason() -> None:
    backoff = Backoff(Retry(first=1, longest=5), lambda low, high: high)
    assert backoff.pause(at_least=20) == 20
    assert backoff.pause(at_least=1e9) == 50


def test_a_trouble_is_told_once_a_minute_with_the_number_of_the_rest() -> None:
    told: list[str] = []
    now = [0.0]
    reports = Reports(told.append, lambda: now[0])
    for _ in range(5):
        reports("down", "it is down")
    reports("full", "it is full")
    assert told == ["it is down", "it is full"]
    now[0] = BETWEEN_SECONDS
    reports("down", "it is down")
    assert told[2:] == ["it is down (4 more of this kind since the last report)"]
