"""How often each cluster may push.

A bucket of tokens, one of which comes back each interval, is kept as a single number: the time at which it will be full
again (the generic cell rate algorithm, ITU-T I.371). A bucket that is full is no different from none, so it is dropped.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from streamgauge.clock import Clock

MAX_BUCKETS = 100_000
"""Clusters whose buckets are not full, at 200 bytes each. Beyond them the one that was used longest ago is forgotten:
an amnesty for one cluster, and no memory without bound."""


class Rate:
    """One push each `interval` ms of a cluster, `burst` of which may come at once. An interval of 0 sets no limit.

    The clock is the monotonic one, so that nobody is locked out when the wall clock is set back.
    """

    def __init__(self, clock: Clock, interval: int, burst: int, buckets: int = MAX_BUCKETS) -> None:
        self._clock = clock
        self._interval = interval / 1000
        self._slack = self._interval * (max(burst, 1) - 1)
        self._limit = buckets
        self._full_at: OrderedDict[str, float] = OrderedDict()  # by cluster; last used last

    def __len__(self) -> int:
        """Buckets that are not full, and some that have become so."""
        return len(self._full_at)

    def wait(self, cluster: str) -> int:
        """Seconds after which a push of the cluster is welcome, rounded up; 0 for at once."""
        full_at = self._full_at.get(cluster)
        if full_at is None:
            return 0
        return max(0, math.ceil(full_at - self._slack - self._clock.monotonic()))

    def spend(self, cluster: str) -> bool:
        """Take a token. False where there is none, and then nothing changes."""
        return self.reserve(cluster, 0.0) is not None

    def reserve(self, cluster: str, patience: float) -> float | None:
        """Take the next token, and how many seconds it is until there is one. None where that is longer than
        `patience`, and then nothing changes."""
        if not self._interval:
            return 0.0
        now = self._clock.monotonic()
        full_at = max(now, self._full_at.get(cluster, now))
        delay = full_at - self._slack - now
        if delay > patience:
            return None
        self._full_at[cluster] = full_at + self._interval
        self._full_at.move_to_end(cluster)
        self._drop(now)
        return max(0.0, delay)

    def give_back(self, cluster: str) -> None:
        """The token was taken for a push that was not stored, and not for a fault of its sender's."""
        if cluster in self._full_at:
            self._full_at[cluster] -= self._interval

    def _drop(self, now: float) -> None:
        """Look at the two that were used longest ago: more than are added, so that those which are full do not stay."""
        for _ in range(2):
            oldest, full_at = next(iter(self._full_at.items()))
            if len(self._full_at) > self._limit or full_at <= now:
                del self._full_at[oldest]
            else:
                self._full_at.move_to_end(oldest)
