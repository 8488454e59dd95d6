"""How late the event loop gets to what is due: what every request waits for, whatever it asks."""

from __future__ import annotations

import logging

from streamgauge.clock import Clock
from streamgauge.stats import Stats

LOG = logging.getLogger(__name__)

PROBE_SECONDS = 0.05
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0, 5.0)
_WORTH_A_LINE = 1.0
"""Seconds. So long a stall is felt by every client, and mostly means that the machine is out of memory or of cores."""


async def watch_loop_lag(clock: Clock, stats: Stats) -> None:
    """Sleep again and again, and count by how much each sleep was too long. Does not end."""
    histogram = stats.histogram(
        "event_loop_lag",
        "By how much the event loop was late for something that was due, probed 20 times a second.",
        buckets=_BUCKETS,
    )
    while True:
        due = clock.monotonic() + PROBE_SECONDS
        await clock.sleep(PROBE_SECONDS)
        lag = max(clock.monotonic() - due, 0.0)
        histogram.observe(lag)
        if lag >= _WORTH_A_LINE:
            LOG.warning(
                "the event loop stood still for %.1f s, and all requests with it; nothing is lost. "
                "Is the machine short of memory or of cores?",
                lag,
            )
