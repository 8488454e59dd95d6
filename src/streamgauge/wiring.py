"""What works on an open store: each part is made of its settings, started, and stopped before what it needs."""

from __future__ import annotations

import contextlib
import socket
from asyncio import TaskGroup
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamgauge.authentication import Authentication
from streamgauge.clock import Clock
from streamgauge.derive.event_metrics import EventMetrics
from streamgauge.derive.host_sampler import HostSampler
from streamgauge.federation import Federation
from streamgauge.forward.deliveries import Deliveries
from streamgauge.forward.remote_write.manager import RemoteWriteManager
from streamgauge.ingest.admission import InFlight, Limits
from streamgauge.ingest.bulk import BulkImport
from streamgauge.ingest.discovery.all import Discoveries
from streamgauge.ingest.events import Events
from streamgauge.ingest.federation.receiver import PushReceiver
from streamgauge.ingest.influx import InfluxWrite
from streamgauge.ingest.remote_write import RemoteWrite
from streamgauge.ingest.scrape.manager import ScrapeManager
from streamgauge.ingest.timeseries import TimeSeries
from streamgauge.ingest.turns import Turns
from streamgauge.live.hub import Hub, TailLimits
from streamgauge.readings import event_readings, pin_readings, store_readings
from streamgauge.services import Opened, ServerServices, event_limits
from streamgauge.settings import Config, Settings
from streamgauge.stats import Stats
from streamgauge.store.events.feed import StoreFeed
from streamgauge.store.feed import StoreSampleFeed
from streamgauge.store.folder_snapshot import FolderSnapshots
from streamgauge.store.maintenance import Maintenance
from streamgauge.store.names import destination_file, remote_write_file
from streamgauge.store.pins import Pins
from streamgauge.store.store import Store

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from streamgauge.relays import Relays

Start = Callable[[Coroutine[Any, Any, None]], None]
"""Starts a task."""


@contextlib.asynccontextmanager
async def background() -> AsyncIterator[Start]:
    """Starts tasks that run for as long as the `with`. One that fails ends the server."""
    async with TaskGroup() as group:
        started = []
        yield lambda work: started.append(group.create_task(work))
        for task in started:
            task.cancel()


class Wiring:
    """Of one store. stack: is unwound when the server stops."""

    def __init__(
        self,
        store: Store,
        maintenance: Maintenance,
        settings: Settings,
        config: Config,
        services: ServerServices,
        authentication: Authentication,
        stats: Stats,
        clock: Clock,
        stack: AsyncExitStack,
    ) -> None:
        self._store = store
        self._maintenance = maintenance
        self._settings = settings
        self._config = config
        self._services = services
        self._authentication = authentication
        self._stats = stats
        self._clock = clock
        self._stack = stack
        self._data = Path(settings.data)
        self._limits = Limits(settings.write_max_bytes, settings.write_max_decoded_bytes)
        self._inflight = InFlight(self._limits.inflight, stats)
        self._turns = Turns(clock)  # of all that decode

    async def open(self, app: ASGIApp) -> Opened:
        """Make and start all of it. app: what is served over HTTP."""
        store, stats, clock = self._store, self._stats, self._clock
        inflight, turns, limits = self._inflight, self._turns, self._limits
        metrics = self._event_metrics()
        start = await self._stack.enter_async_context(background())
        start(self._maintenance.run())
        start(metrics.run())
        federation = self._federation()
        opened = Opened(
            store=store,
            maintenance=self._maintenance,
            receiver=RemoteWrite(store, stats, clock, inflight, turns, limits),
            bulk=BulkImport(store, stats, clock, inflight, turns, limits),
            influx=InfluxWrite(store, stats, clock, inflight, turns, limits),
            timeseries=TimeSeries(store, stats, clock, inflight, turns, self._settings.grpc_missing_time == "now"),
            events=Events(store.events, stats, clock, inflight, turns, event_limits(self._settings)),
            event_metrics=metrics,
            deliveries=self._deliveries(start),
            remote_writes=self._remote_writes(start),
            scrapes=self._scrapes(),
            relays=await self._relays(start, app),
            snapshots=self._snapshots(),
            pins=self._pins(start),
            tails=self._tails(start),
            federation=federation,
            pushes=self._pushes(start, federation),
            hosts=self._hosts(start),
        )
        stats.watch(lambda: store_readings(store, self._maintenance))
        stats.watch(lambda: event_readings(store, self._maintenance))
        return opened

    def _event_metrics(self) -> EventMetrics:
        metrics = EventMetrics(self._store, self._stats, self._clock, socket.gethostname())
        metrics.apply(self._config.event_metrics)
        self._stack.callback(self._store.listen(metrics))
        self._stack.push_async_callback(metrics.finish)
        self._stats.watch(metrics.readings)
        return metrics

    def _deliveries(self, start: Start) -> Deliveries:
        """Hand events on to where the configuration says."""
        cursor = partial(destination_file, self._data)
        deliveries = Deliveries(StoreFeed(self._store), self._store.listen, cursor, self._clock, self._stats)
        deliveries.apply(self._config.destinations)
        start(deliveries.run())
        return deliveries

    def _remote_writes(self, start: Start) -> RemoteWriteManager:
        """Send samples on to where the configuration says."""
        position, feed = partial(remote_write_file, self._data), StoreSampleFeed(self._store)
        sending = RemoteWriteManager(feed, self._store.listen, position, self._clock, self._stats)
        sending.apply(self._config.remote_writes)
        self._stats.watch(sending.readings)
        start(sending.run())
        return sending

    def _scrapes(self) -> ScrapeManager:
        """It is started when the server is ready."""
        return ScrapeManager(
            self._store,
            self._stats,
            self._clock,
            self._turns,
            socket.gethostname(),
            self._settings.scrape_max_bytes,
            Discoveries(self._clock, self._stats).of,
        )

    async def _relays(self, start: Start, app: ASGIApp) -> Relays | None:
        if self._config.relay is None:
            return None
        from streamgauge.relays import open_relays  # most servers have no relays

        authorities = self._authentication.authorities
        return await open_relays(
            self._config.relay,
            self._config.live_targets,
            self._store,
            self._stats,
            self._clock,
            app,
            self._stack,
            start,
            lambda: authorities.open,
        )

    def _snapshots(self) -> FolderSnapshots:
        snapshots = FolderSnapshots(self._maintenance, self._data, self._clock)
        self._stack.push_async_callback(snapshots.close)
        return snapshots

    def _pins(self, start: Start) -> Pins:
        pins = Pins(self._maintenance, self._clock)
        self._stats.watch(lambda: pin_readings(pins))
        start(pins.run())
        return pins

    def _tails(self, start: Start) -> Hub:
        events = self._store.events
        limits = TailLimits(self._settings.max_tails, self._settings.tail_buffer_bytes)
        tails = Hub(self._clock, self._store.index.keys_of, lambda: events.last_stored, limits)
        self._stack.callback(self._store.listen(tails))
        self._stats.watch(tails.readings)
        start(tails.run())
        return tails

    def _federation(self) -> Federation:
        federation = Federation(self._data, self._clock, self._stats, self._settings.insecure)
        self._stack.callback(federation.close)
        federation.apply(self._config.federation)
        return federation

    def _pushes(self, start: Start, federation: Federation) -> PushReceiver:
        pushes = PushReceiver(
            self._store,
            self._stats,
            self._clock,
            self._inflight,
            self._turns,
            federation.pushes,
            self._limits,
            self._store.is_described,
        )
        self._stats.watch(pushes.readings)
        start(pushes.markers.run())
        return pushes

    def _hosts(self, start: Start) -> HostSampler:
        hosts = HostSampler(self._store, self._stats, self._clock, self._services.sample_hosts)
        hosts.apply(self._config.host_history)
        start(hosts.run())
        return hosts
