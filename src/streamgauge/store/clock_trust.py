"""Whether the wall clock may decide what is too old: a wrong date must not cost the data."""

from __future__ import annotations

import logging

from streamgauge.clock import Clock

LOG = logging.getLogger(__name__)

CLOCK_JUMP_MS = 600_000
"""More than NTP corrects: a jump has to last before it is believed."""
TRUST_SECONDS = 3600.0


class ClockTrust:
    """Watches one clock, from look to look."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wall_ms = clock.now_ms()
        self._monotonic = self._distrust_until = clock.monotonic()

    def distrust(self) -> None:
        """What the clock says is not to be believed, for an hour."""
        self._distrust_until = self._clock.monotonic() + TRUST_SECONDS

    def trusts(self, now: int) -> bool:
        """Whether `now`, what the clock says (ms), is to be believed. False for an hour after it jumped ahead."""
        monotonic = self._clock.monotonic()
        drift = (now - self._wall_ms) - (monotonic - self._monotonic) * 1000
        self._wall_ms, self._monotonic = now, monotonic
        if drift > CLOCK_JUMP_MS:
            LOG.warning("the clock jumped %d s ahead; retention waits an hour before it believes it", drift // 1000)
            self.distrust()
        return monotonic >= self._distrust_until
