"""How long to wait before the next try."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Pauses in seconds that double up to the longest, each drawn between its half and its whole, so that many clients
    do not come back at once."""

    def __init__(self, first: float, longest: float, draw: Callable[[float, float], float]) -> None:
        self._first = self._next = first
        self._longest = longest
        self._draw = draw

    def pause(self) -> float:
        pause = self._draw(self._next / 2, self._next)
        self._next = min(2 * self._next, self._longest)
        return pause

    def reset(self) -> None:
        """Something worked."""
        self._next = self._first
