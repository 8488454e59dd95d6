"""What one query may use: samples, bytes and seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from streamgauge.errors import QueryCanceled, QueryFailed, QueryTimeout


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one query. `samples` counts samples read plus points held at once, as Prometheus does."""

    samples: int = 50_000_000
    bytes: int = 2 << 30
    seconds: float = 120.0


class Budget:
    """One query's running account. Used in the worker, on one thread; `cancel` may be called from any."""

    def __init__(self, limits: Limits, monotonic: Callable[[], float] = time.monotonic, *, waited: float = 0.0) -> None:
        """`waited`: seconds that the query has already spent waiting for a worker."""
        self.limits = limits
        self.samples = 0
        self.bytes = 0
        self.peak_samples = 0
        self.total_samples = 0
        self._monotonic = monotonic
        self._deadline = monotonic() + limits.seconds - waited
        self._canceled = False

    def charge(self, samples: int, size: int) -> None:
        """Account for `samples` more samples held in `size` bytes, before they are allocated."""
        self.samples += samples
        self.bytes += size
        self.total_samples += samples
        self.peak_samples = max(self.peak_samples, self.samples)
        if self.samples > self.limits.samples:
            raise QueryFailed(
                f"query needs more than {self.limits.samples} samples (--query-max-samples); "
                "narrow its range, its selectors or its step"
            )
        if self.bytes > self.limits.bytes:
            raise QueryFailed(
                f"query needs more than {self.limits.bytes} bytes of memory (--query-max-bytes); narrow it"
            )
        self.check()

    def check_answer(self, size: int) -> None:
        """Refuse an answer of `size` bytes of text that is too long: nobody waits for it who knows what it is."""
        if size > self.limits.bytes:
            raise QueryFailed(
                f"the answer has more than {self.limits.bytes} bytes (--query-max-bytes); narrow the selectors, or set "
                "a limit"
            )

    def release(self, samples: int, size: int) -> None:
        """Give back what an intermediate result held."""
        self.samples -= samples
        self.bytes -= size

    def cancel(self) -> None:
        """Make the next `check` raise."""
        self._canceled = True

    def check(self) -> None:
        """Raise QueryTimeout when the time is used up, QueryCanceled after `cancel`. Cheap: call it between steps of
        work."""
        if self._canceled:
            raise QueryCanceled("query was canceled")
        if self._monotonic() > self._deadline:
            raise QueryTimeout(f"query timed out after {self.limits.seconds:g} s (--query-timeout)")
