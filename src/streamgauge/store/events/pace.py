"""Whether there is time to divide the payloads of a flush into columns, or compaction has to do it later."""

from __future__ import annotations

import math

_BUSY = 0.8
"""Part of the time that dividing may take. One flush after the other is all of it: then those wait who send events,
though the disk could take more."""
_TRUSTED = 0.98
"""How long dividing took, maybe while everything was slow, counts so much less with each flush."""


class Pace:
    """Compares how long dividing takes with how long events took to come. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._begun = -math.inf
        self._seconds_each = 0.0

    def has_time(self, events: int, now: float) -> bool:
        """Asked once when a flush of so many events begins. They came since the last one began."""
        since, self._begun = now - self._begun, now
        self._seconds_each *= _TRUSTED
        return events * self._seconds_each <= _BUSY * since

    def took(self, events: int, now: float) -> None:
        """A flush that divided them has ended."""
        self._seconds_each = (now - self._begun) / max(events, 1)
