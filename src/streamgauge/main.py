"""The server: wires the parts together, starts them in order and stops them in the other."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from streamgauge.authentication import Authentication
from streamgauge.clock import Clock
from streamgauge.errors import ConfigError, DeliveryFailed
from streamgauge.event_rules import conditions, parse_event_rules
from streamgauge.forward.deliveries import check_destinations
from streamgauge.forward.live.target import LiveTarget
from streamgauge.ingest.host import HostMetrics
from streamgauge.ingest.self_monitoring import SelfMonitoring
from streamgauge.listeners import Listeners
from streamgauge.loop_lag import watch_loop_lag
from streamgauge.query.process import WorkerStarter
from streamgauge.readings import worker_readings
from streamgauge.retention_rules import parse_rules
from streamgauge.service_manager import ServiceManager
from streamgauge.services import ServerServices, tiers_of
from streamgauge.settings import Config, Settings, local_url
from streamgauge.stats import Stats
from streamgauge.store import shm
from streamgauge.store.helper import HelperProcess
from streamgauge.store.lock import FolderLock
from streamgauge.store.opening import open_store
from streamgauge.store.store import StoreSettings
from streamgauge.wiring import Start, Wiring, background

LOG = logging.getLogger(__name__)

GRACE_SECONDS = 30.0
"""How long requests that have begun may go on after SIGTERM."""

HEAD_BYTES = 24
"""Of shared memory for a sample in memory: its 20, and what is being sorted exists twice."""


class Server:
    """One run of the server."""

    def __init__(
        self,
        clock: Clock,
        settings: Settings,
        config: Config,
        reread: Callable[[], tuple[Config, Settings]],
        starter: WorkerStarter,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._config = config
        self._data = Path(settings.data)
        self._manager = ServiceManager(os.environ, clock)
        self._stats = Stats()
        self._authentication = Authentication(self._data, clock, self._stats)
        self._services = ServerServices(
            clock, settings, config, reread, self._stats.exposition, self._authentication, starter
        )
        self._stopping = asyncio.Event()
        self._hurry: asyncio.Task[None] | None = None  # kept, as the loop alone would let a task be collected
        self._reload: asyncio.Task[None] | None = None

    async def run(self, lock: FolderLock) -> None:
        """Until a signal asks to stop. Every part stops before those that it needs. `lock`: of the folder."""
        check_destinations(self._config.destinations)
        _check_live(self._config.live_targets)
        self._services.key = self._authentication.authorities.folder_key = lock.key
        async with AsyncExitStack() as stack:
            self._authentication.load()
            self._authentication.apply(self._config.auth)
            stack.callback(self._authentication.close)
            http = Listeners(
                self._settings, self._config, self._services, self._authentication, self._stats, self._clock
            )
            stack.push_async_callback(http.stop, 0.0)
            await http.start(lock)
            self._handle_signals(http)
            if (sentence := shortage(self._settings.head_samples, shm.room())) is not None:
                LOG.warning("%s", sentence)
            await self._open(stack, http)
            stack.push_async_callback(http.stop, GRACE_SECONDS)
            stack.callback(self._services.tails.close)  # first: they would last for ever
            start = await stack.enter_async_context(background())
            http.watch(start)
            start(watch_loop_lag(self._clock, self._stats))
            start(self._services.recover_pushes())
            self._start_scraping(start)
            self._start_sampling(start, local_url(http.address).removeprefix("http://"))
            # What exists now stays: a full collection of it would hold up the event loop by 0.2 s with 10,000 clients.
            gc.collect()
            gc.freeze()
            LOG.info("ready; %d samples read back from the log", self._services.store.head.rows)
            self._manager.ready(f"listening on {http.address}")
            await self._stopping.wait()
            self._manager.stopping("requests that have begun may finish")
            LOG.info("stopping: requests that have begun may finish; a second signal hurries")
        LOG.info("stopped; everything is on disk")

    async def _reload_and_tell(self) -> None:
        """Read the configuration anew, as the service manager asked for by SIGHUP, and tell it how that went."""
        self._manager.reloading()
        try:
            await self._services.reload()
        except ConfigError as error:  # it has been logged
            self._manager.reloaded(f"the configuration was not reloaded: {error.message}")
        else:
            self._manager.reloaded("the configuration was reloaded")

    async def _open(self, stack: AsyncExitStack, http: Listeners) -> None:
        """Open the store and start the query workers, side by side."""
        services = self._services
        settings = StoreSettings(
            retention=self._settings.retention,
            event_retention=self._settings.event_retention,
            event_rules=parse_event_rules(self._settings.event_retention_rules, self._settings.event_retention),
            tiers=tiers_of(self._settings),
            retention_bytes=self._settings.retention_size,
            rules=parse_rules(self._settings.retention_rules, self._settings.retention),
            head_samples=self._settings.head_samples,
            index_bytes=self._settings.index_max_bytes,
            min_free_bytes=self._settings.min_free_bytes,
            limits=self._settings.series_limits,
        )
        flusher, compacter = HelperProcess(), HelperProcess()
        stack.push_async_callback(flusher.stop)
        stack.push_async_callback(compacter.stop)
        workers = asyncio.ensure_future(services.workers.start(all_of_them=False))
        stack.push_async_callback(services.workers.close)
        store, maintenance = await stack.enter_async_context(
            open_store(self._data, settings, self._clock, flusher, compacter, services.progress)
        )
        await workers
        maintenance.events.conditions = conditions()
        wiring = Wiring(
            store,
            maintenance,
            self._settings,
            self._config,
            services,
            self._authentication,
            self._stats,
            self._clock,
            stack,
        )
        services.opened = await wiring.open(http.app)
        self._stats.watch(lambda: worker_readings(services.workers))

    def _start_scraping(self, start: Start) -> None:
        scrapes = self._services.scrapes
        self._stats.watch(scrapes.readings)
        scrapes.apply(self._config.jobs)
        start(scrapes.run())

    def _start_sampling(self, start: Start, address: str) -> None:
        if not self._settings.self_monitoring:
            return
        store = self._services.store
        start(HostMetrics(store, self._stats, self._clock).run())
        start(SelfMonitoring(store, self._stats, self._clock, address).run())

    def _handle_signals(self, http: Listeners) -> None:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            if self._stopping.is_set():
                self._hurry = loop.create_task(http.stop(0.0))
            self._stopping.set()

        def reload() -> None:
            self._reload = loop.create_task(self._reload_and_tell())

        if sys.platform == "win32":
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGBREAK):  # the last is what programs can send
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
            return
        loop.add_signal_handler(signal.SIGINT, stop)
        loop.add_signal_handler(signal.SIGTERM, stop)
        loop.add_signal_handler(signal.SIGHUP, reload)


def shortage(head_samples: int, room: int | None) -> str | None:
    """What to say when shared memory is too small for the samples kept in memory; None when it is not.

    Said at the start: otherwise it would show when they have gathered, hours later."""
    need = head_samples * HEAD_BYTES
    if room is None or room >= need:
        return None
    return (
        f"/dev/shm has room for {room >> 20} MiB, and {head_samples} samples in memory take up to {need >> 20} MiB: "
        "when it is full, writes are refused. Enlarge it (in a container: --shm-size), or lower --head-samples"
    )


def _check_live(targets: Sequence[LiveTarget]) -> None:
    """Raises ConfigError for one whose client is not installed."""
    if targets:
        from streamgauge.forward.live.open import check_packages  # most servers publish nothing

        try:
            check_packages(targets)
        except DeliveryFailed as error:
            raise ConfigError(error.message) from None
