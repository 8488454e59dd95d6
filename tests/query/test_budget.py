from __future__ import annotations

import pytest

from streamgauge.errors import QueryCanceled, QueryFailed, QueryTimeout
from streamgauge.query.budget import Budget, Limits


def test_what_is_released_may_be_used_again_and_the_peak_is_remembered() -> None:
    budget = Budget(Limits(samples=10, bytes=100))
    budget.charge(10, 80)
    budget.release(10, 80)
    budget.charge(5, 100)
    assert (budget.samples, budget.peak_samples, budget.total_samples) == (5, 10, 15)


def test_each_limit_has_its_error() -> None:
    with pytest.raises(QueryFailed, match="more than 10 samples"):
        Budget(Limits(samples=10)).charge(11, 0)
    with pytest.raises(QueryFailed, match="more than 100 bytes"):
        Budget(Limits(bytes=100)).charge(0, 101)


def test_waiting_counts_as_time() -> None:
    seconds = iter([0.0, 6.0, 6.1])
    budget = Budget(Limits(seconds=10), lambda: next(seconds), waited=4)
    budget.check()
    with pytest.raises(QueryTimeout, match="timed out after 10 s"):
        budget.check()


def test_a_canceled_query_stops_at_its_next_step() -> None:
    budget = Budget(Limits())
    budget.check()
    budget.cancel()
    with pytest.raises(QueryCanceled):
        budget.charge(1, 1)
