import asyncio
import logging

import pytest

from streamgauge.clock import ManualClock
from streamgauge.loop_lag import PROBE_SECONDS, watch_loop_lag
from streamgauge.stats import Stats


class StallingClock(ManualClock):
    """Its sleeps are too long by what `stalls` says, one after the other."""

    def __init__(self, stalls: list[float]) -> None:
        super().__init__()
        self.stalls = stalls

    async def sleep(self, seconds: float) -> None:
        if not self.stalls:
            raise asyncio.CancelledError
        await self.advance(seconds + self.stalls.pop(0))


async def watch(stalls: list[float]) -> dict[str, float]:
    stats = Stats()
    with pytest.raises(asyncio.CancelledError):
        await watch_loop_lag(StallingClock(stalls), stats)
    (family,) = (family for family in stats.families() if family.name == "streamgauge_event_loop_lag_seconds")
    return {dict(labels).get("le", name): value for name, labels, value in family.samples}


def test_stalls_are_counted_by_their_length() -> None:
    counts = asyncio.run(watch([0.0, 0.004, 0.004, 0.018, 0.3]))
    assert (counts["0.001"], counts["0.005"], counts["0.02"], counts["1.0"], counts["+Inf"]) == (1, 3, 4, 5, 5)
    assert counts["streamgauge_event_loop_lag_seconds_sum"] == pytest.approx(0.326)


def test_a_sleep_that_was_short_counts_as_no_lag() -> None:
    counts = asyncio.run(watch([-PROBE_SECONDS / 2]))
    assert counts["streamgauge_event_loop_lag_seconds_sum"] == 0


def test_a_long_stall_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        asyncio.run(watch([0.9, 1.5]))
    (message,) = caplog.messages
    assert message.startswith("the event loop stood still for 1.5 s")
