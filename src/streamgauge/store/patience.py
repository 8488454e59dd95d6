"""Asking a disk again that did not give back what is on it: controllers are reset, and network file systems return."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from streamgauge.errors import Unreadable

LOG = logging.getLogger(__name__)

T = TypeVar("T")

PAUSES = (0.1, 0.5, 2.0)
"""Seconds between one try and the next. The kernel has tried for some time by itself."""
SECONDS_IN_ALL = 13.0
"""A disk that is gone for good must not hold up a start at each of a thousand blocks."""


class Patience:
    """`pause` waits so many seconds."""

    def __init__(self, pause: Callable[[float], None] = time.sleep) -> None:
        self._pause = pause
        self._left = SECONDS_IN_ALL

    def read(self, read: Callable[[], T]) -> T:
        """What `read` gives, at the first try or, for as long as patience lasts, at one of three more. Raises what it
        raises; Unreadable only in the end."""
        for seconds in PAUSES:
            try:
                return read()
            except Unreadable as error:
                if seconds > self._left:
                    raise
                LOG.warning("%s; it is tried again in %s s", error.message, seconds)
                self._left -= seconds
                self._pause(seconds)
        return read()
