"""What a writer says of its troubles: to standard error or to a function, and not each time."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

BETWEEN_SECONDS = 60.0
"""Between two reports of one kind: a server that is down for a night is not a thousand lines."""


class Reports:
    """Passes on the first of each kind, and then one a minute that says how many there were."""

    def __init__(self, tell: Callable[[str], object] | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell or _print
        self._clock = clock
        self._lock = threading.Lock()
        self._silent: dict[str, tuple[float, int]] = {}  # by kind: until when, and how many were kept back

    def __call__(self, kind: str, message: str) -> None:
        """Never raises, whatever the receiving function does."""
        with self._lock:
            until, kept = self._silent.get(kind, (float("-inf"), 0))
            now = self._clock()
            if now < until:
                self._silent[kind] = until, kept + 1
                return
            self._silent[kind] = now + BETWEEN_SECONDS, 0
        more = f" ({kept} more of this kind since the last report)" if kept else ""
        try:
            self._tell(message + more)
        except Exception:
            _print(message)


def _print(message: str) -> None:
    try:
        print(f"streamgauge.client: {message}", file=sys.stderr)
    except Exception:  # a closed or missing standard error leaves nobody to tell
        return
