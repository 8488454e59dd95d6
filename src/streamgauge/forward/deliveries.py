"""All destinations of events: starts and stops them as the configuration says."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from streamgauge.clock import Clock
from streamgauge.errors import ConfigError, DeliveryFailed
from streamgauge.forward.destination import EventDestination
from streamgauge.model.event_feed import EventFeed
from streamgauge.model.listener import Listener
from streamgauge.stats import Stats


def check_destinations(destinations: Sequence[EventDestination]) -> None:
    """Raises ConfigError for one that cannot be used at all."""
    if not destinations:
        return
    from streamgauge.forward.open import check_target

    for destination in destinations:
        try:
            check_target(destination.target)
        except DeliveryFailed as error:
            raise ConfigError(f"event_destinations: {destination.name}: {error.message}") from None


class Deliveries:
    """listen: has a listener told of each commit, until what it returns is called. cursor: the file that says how far
    the destination of a name is."""

    def __init__(
        self,
        feed: EventFeed,
        listen: Callable[[Listener], Callable[[], None]],
        cursor: Callable[[str], Path],
        clock: Clock,
        stats: Stats,
    ) -> None:
        self._feed = feed
        self._listen = listen
        self._cursor = cursor
        self._clock = clock
        self._stats = stats
        self._wanted: Sequence[EventDestination] = ()
        self._news = asyncio.Event()
        self._running: dict[EventDestination, asyncio.Task[None]] = {}
        self._in_use: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # the file of a name, by one at a time

    def apply(self, destinations: Sequence[EventDestination]) -> None:
        """Deliver to these, and to no others. Those that have not changed go on; one that has goes on from where it was
        under its name, once what is being written to it is."""
        self._wanted = destinations
        self._news.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._news.wait()
                self._news.clear()
                self._change(group)

    def _change(self, group: asyncio.TaskGroup) -> None:
        for destination in [each for each in self._running if each not in self._wanted]:
            self._running.pop(destination).cancel()
        for destination in self._wanted:
            if destination not in self._running:
                self._running[destination] = group.create_task(self._deliver(destination))

    async def _deliver(self, destination: EventDestination) -> None:
        from streamgauge.forward.delivery import Delivery  # most servers have none
        from streamgauge.forward.open import open_outlet

        async with self._in_use[destination.name]:
            outlet = partial(open_outlet, destination.target)
            cursor = self._cursor(destination.name)
            delivery = Delivery(destination.name, self._feed, outlet, cursor, self._clock, self._stats)
            stop = self._listen(delivery)
            try:
                await delivery.run()
            finally:
                stop()
