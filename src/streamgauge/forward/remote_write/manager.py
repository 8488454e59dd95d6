"""All destinations of samples: starts and stops them as the configuration says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from streamgauge.clock import Clock
from streamgauge.forward.remote_write.numbers import Numbers
from streamgauge.forward.remote_write.target import RemoteWriteTarget
from streamgauge.http.client import Resolver
from streamgauge.model.listener import Listener
from streamgauge.model.sample_feed import SampleFeed
from streamgauge.stats import Reading, Stats

if TYPE_CHECKING:
    from streamgauge.forward.remote_write.destination import Destination

LOG = logging.getLogger(__name__)


class RemoteWriteManager:
    """listen: has a listener told of each commit, until what it returns is called. position: the file that says how far
    the destination of a name is."""

    def __init__(
        self,
        feed: SampleFeed,
        listen: Callable[[Listener], Callable[[], None]],
        position: Callable[[str], Path],
        clock: Clock,
        stats: Stats,
    ) -> None:
        self._feed = feed
        self._listen = listen
        self._position = position
        self._clock = clock
        self._numbers = Numbers(stats)
        self._resolver = Resolver()
        self._wanted: Sequence[RemoteWriteTarget] = ()
        self._news = asyncio.Event()
        self.destinations: dict[str, Destination] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    def apply(self, targets: Sequence[RemoteWriteTarget]) -> None:
        """Send to these, and to no others. Those that have not changed go on."""
        self._wanted = targets
        self._news.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._news.wait()
                    self._news.clear()
                    await self._change(group)
        finally:
            self._resolver.close()

    async def _change(self, group: asyncio.TaskGroup) -> None:
        wanted = {target.name: target for target in self._wanted}
        for name, destination in list(self.destinations.items()):
            if wanted.get(name) != destination.target:
                task = self._running.pop(name)
                task.cancel()
                await asyncio.wait([task])  # it notes how far it is
                del self.destinations[name]
        for name, target in wanted.items():
            if name not in self.destinations:
                from streamgauge.forward.remote_write.destination import Destination  # most servers have none

                position = self._position(name)
                destination = Destination(target, self._feed, position, self._resolver, self._clock, self._numbers)
                self.destinations[name] = destination
                self._running[name] = group.create_task(self._run(destination))

    async def _run(self, destination: Destination) -> None:
        stop = self._listen(destination)
        try:
            await destination.run()
        finally:
            stop()

    def readings(self) -> Iterator[Reading]:
        """What is so at the moment, for /metrics."""
        now = self.destinations
        for name, text, values in (
            ("samples_pending", "Samples that are stored and not sent yet.", {n: d.pending for n, d in now.items()}),
            (
                "samples_in_memory",
                "Samples that wait in memory to be sent, or are on their way; the others wait on the disk.",
                {n: d.in_memory for n, d in now.items()},
            ),
            ("shards", "Requests that may be on their way at a time.", {n: d.shards for n, d in now.items()}),
            (
                "shards_max",
                "The most requests that may be on their way at a time.",
                {n: d.target.queue.max_shards for n, d in now.items()},
            ),
            (
                "highest_timestamp_seconds",
                "The latest time of a sample stored since the destination was started.",
                {n: d.highest_in / 1000 for n, d in now.items()},
            ),
            (
                "highest_sent_timestamp_seconds",
                "The latest time of a sample that the destination has taken since it was started.",
                {n: d.highest_sent / 1000 for n, d in now.items()},
            ),
        ):
            labelled: dict[tuple[str, ...], float] = {(name,): float(value) for name, value in values.items()}
            yield Reading(f"streamgauge_remote_write_{name}", "gauge", text, labelled, ("remote",))
