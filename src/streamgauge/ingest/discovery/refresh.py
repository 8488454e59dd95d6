"""Asking again and again, for discoveries that have to."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from streamgauge.clock import Clock
from streamgauge.errors import StreamgaugeError
from streamgauge.ingest.discovery.groups import Found, Group
from streamgauge.stats import Stats

LOG = logging.getLogger(__name__)

Ask = Callable[[], Awaitable[Sequence[Group]]]
"""Raises a StreamgaugeError when it cannot tell: what was found before then stays."""


class Refresh:
    """Asks every `interval` ms and hands over what is new. kind, name: of the discovery, for metrics and the log."""

    def __init__(self, ask: Ask, interval: int, kind: str, name: str, clock: Clock, stats: Stats) -> None:
        self._ask = ask
        self._seconds = interval / 1000
        self._kind, self._name = kind, name
        self._clock = clock
        self._stats = stats
        self._failing = False

    async def run(self, found: Found) -> None:
        """Until cancelled."""
        last: Sequence[Group] | None = None
        while True:
            try:
                groups = await self._ask()
            except StreamgaugeError as error:
                self._failed(error.message)
            except Exception as error:  # a mistake of ours with what one discovery gave must not end the others
                LOG.exception("a mistake in streamgauge")
                self._failed(f"a mistake in streamgauge: {error!r}")
            else:
                self._recovered()
                if groups != last:
                    last = groups
                    found(groups)
            await self._clock.sleep(self._seconds)

    def _failed(self, message: str) -> None:
        self._stats.discovery_failures.labels(self._kind).inc()
        if not self._failing:
            LOG.warning("%s discovery, %s: %s; the targets found before stay", self._kind, self._name, message)
        self._failing = True

    def _recovered(self) -> None:
        if self._failing:
            LOG.info("%s discovery, %s: works again", self._kind, self._name)
        self._failing = False
