"""How long to wait before the next try."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retry:
    """Pauses between tries, in seconds: the first, doubled each time up to the longest."""

    first: float = 0.1
    longest: float = 30.0


class Backoff:
    """Pauses that double, each drawn between its half and its whole, so that many clients do not come back at once."""

    def __init__(self, retry: Retry, draw: Callable[[float, float], float] = random.uniform) -> None:
        self._retry = retry
        self._draw = draw
        self._next = retry.first

    def pause(self, at_least: float = 0.0) -> float:
        """Seconds to wait now; `at_least` is what the server asked for."""
        pause = self._draw(self._next / 2, self._next)
        self._next = min(self._next * 2, self._retry.longest)
        return max(pause, min(at_least, self._retry.longest * 10))

    def reset(self) -> None:
        """Something worked."""
        self._next = self._retry.first
