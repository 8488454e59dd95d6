"""What the HTTP routes are given: one object that knows the store, the workers and the configuration."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamgauge.auth.authenticator import Authenticator
from streamgauge.authentication import Authentication
from streamgauge.backup.manifest import encode_state
from streamgauge.clock import Clock
from streamgauge.derive.event_metrics import EventMetrics
from streamgauge.derive.host_sampler import HostSampler
from streamgauge.errors import ConfigError, Corrupt, NotReady, StreamgaugeError
from streamgauge.event_rules import parse_event_rules
from streamgauge.federation import Federation
from streamgauge.forward.deliveries import Deliveries, check_destinations
from streamgauge.forward.remote_write.manager import RemoteWriteManager
from streamgauge.ingest.bound import Bound
from streamgauge.ingest.bulk import BulkImport
from streamgauge.ingest.events import EventLimits, Events
from streamgauge.ingest.federation.receiver import PushReceiver
from streamgauge.ingest.influx import InfluxWrite, Written
from streamgauge.ingest.remote_write import RemoteWrite
from streamgauge.ingest.scrape.manager import ScrapeManager
from streamgauge.ingest.scrape.pool import ScrapePool
from streamgauge.ingest.timeseries import TimeSeries
from streamgauge.live.hub import Hub
from streamgauge.model.batch import Metadata
from streamgauge.model.host_history import HostSettings
from streamgauge.model.source import Matcher, MatchOp, Snapshot
from streamgauge.model.token import StoredToken
from streamgauge.query.budget import Limits
from streamgauge.query.pool import WorkerPool
from streamgauge.query.process import WorkerStarter
from streamgauge.query.requests import (
    CardinalityQuery,
    FederateQuery,
    HostSamplesQuery,
    Job,
    PushedSeries,
    SelectorsQuery,
)
from streamgauge.retention_rules import parse_rules
from streamgauge.serve.services import ConfigNumbers, HttpOptions, Replay, StoreNumbers, WriteReply
from streamgauge.settings import BY_NAME, Config, Settings, shown
from streamgauge.start import LISTENERS, check_addresses
from streamgauge.store.folder_snapshot import FolderSnapshots
from streamgauge.store.maintenance import Maintenance
from streamgauge.store.opening import Progress
from streamgauge.store.pins import Pins
from streamgauge.store.refusals import LABEL, METRIC
from streamgauge.store.report import report
from streamgauge.store.resolutions import Tier
from streamgauge.store.retention import NS
from streamgauge.store.store import Store
from streamgauge.store.token_file import token_problems
from streamgauge.wire.influx_lines import Precision

if TYPE_CHECKING:
    from streamgauge.auth.cluster_access import ClusterAccess
    from streamgauge.relays import Relays

LOG = logging.getLogger(__name__)

HOST_SAMPLE_SECONDS = 10.0
"""That a round of host samples may take, unless there are longer intervals between them."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What exists once the folder is open."""

    store: Store
    maintenance: Maintenance
    receiver: RemoteWrite
    bulk: BulkImport
    influx: InfluxWrite
    events: Events
    scrapes: ScrapeManager
    snapshots: FolderSnapshots
    pins: Pins
    tails: Hub
    event_metrics: EventMetrics
    remote_writes: RemoteWriteManager
    deliveries: Deliveries
    federation: Federation
    pushes: PushReceiver
    timeseries: TimeSeries
    hosts: HostSampler
    relays: Relays | None


def tiers_of(settings: Settings) -> tuple[Tier, ...]:
    """What of samples past retention is kept, as the store knows it."""
    return tuple(Tier(resolution, keep) for resolution, keep in settings.downsampling)


def event_limits(settings: Settings) -> EventLimits:
    return EventLimits(
        settings.event_max_bytes, settings.event_max_rate, settings.event_max_streams, settings.write_max_bytes
    )


class ServerServices:
    """Implements serve.services.Services. `opened` is set once the folder is open; until then what needs it is refused.

    reread: reads the configuration anew. metrics: the server's own metrics as text. starter: of the query workers.
    """

    def __init__(
        self,
        clock: Clock,
        settings: Settings,
        config: Config,
        reread: Callable[[], tuple[Config, Settings]],
        metrics: Callable[[], bytes],
        authentication: Authentication,
        starter: WorkerStarter | None = None,
    ) -> None:
        self._clock = clock
        self._started_at = clock.now_ms()
        self._settings = settings
        self._config = config
        self._reread = reread
        self._metrics = metrics
        self._config_numbers = ConfigNumbers(True, clock.now_ms())
        self._listening = {name: getattr(settings, name) for name in ("data", *LISTENERS)}
        self._authentication = authentication
        self.progress = Progress()
        self.opened: Opened | None = None
        self.key = ""  # of the folder's lock, once that is held
        self.reloaded: Callable[[Settings, Config], None] = lambda settings, config: None
        self._workers = WorkerPool(
            self._take_snapshot,
            clock=clock,
            concurrency=settings.query_concurrency,
            max_waiting=settings.query_queue,
            starter=starter,
            failed=self._query_failed,
        )

    @property
    def store(self) -> Store:
        """The open store. Raises NotReady before that."""
        return self._open().store

    def _open(self) -> Opened:
        if self.opened is None:
            raise NotReady("the server is starting: it reads what is on disk", retry_after=1)
        return self.opened

    def _take_snapshot(self) -> tuple[Snapshot, Callable[[], None]]:
        return self.store.snapshot()

    def _query_failed(self, error: StreamgaugeError) -> None:
        """A block that a query found damaged is taken out of service, so that the next query has the rest."""
        if isinstance(error, Corrupt) and self.opened is not None:
            self.opened.maintenance.damaged.suspect(error.message)

    # ---- serve.services.Services ------------------------------------------------------------------------------------

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def started_at(self) -> int:
        return self._started_at

    @property
    def workers(self) -> WorkerPool:
        return self._workers

    @property
    def authenticator(self) -> Authenticator:
        return self._authentication.authorities

    @property
    def cluster_access(self) -> ClusterAccess:
        return self._open().federation.access

    @property
    def pushes(self) -> PushReceiver:
        return self._open().pushes

    async def remote_write(
        self, headers: Mapping[str, str], body: AsyncIterator[bytes], bound: Bound = ()
    ) -> WriteReply:
        return await self._open().receiver.receive(headers, body, bound)

    def begin_remote_write(self, headers: Mapping[str, str], body: bytes, done: Callable[[WriteReply], None]) -> bool:
        return self._open().receiver.begin(headers, body, done)

    async def influx_write(
        self, headers: Mapping[str, str], body: AsyncIterator[bytes], precision: Precision, bound: Bound = ()
    ) -> Written:
        return await self._open().influx.receive(headers, body, precision, bound)

    async def bulk_import(
        self, headers: Mapping[str, str], body: AsyncIterator[bytes], bound: Bound = ()
    ) -> Mapping[str, object]:
        return (await self._open().bulk.receive(headers, body, bound)).as_json()

    @property
    def events(self) -> Events:
        return self._open().events

    @property
    def timeseries(self) -> TimeSeries:
        return self._open().timeseries

    @property
    def scrapes(self) -> ScrapeManager:
        return self._open().scrapes

    @property
    def tails(self) -> Hub:
        return self._open().tails

    @property
    def relays(self) -> Relays | None:
        return self._open().relays

    def scrape_pools(self) -> Mapping[str, ScrapePool]:
        return self._open().scrapes.pools

    def metadata(self) -> Sequence[Metadata]:
        return self.store.metadata()

    def replay(self) -> Replay:
        return Replay(self.progress.current, self.progress.total, self.opened is not None)

    def store_numbers(self) -> StoreNumbers:
        store = self.store
        return StoreNumbers(
            store.index.series,
            store.samples_appended,
            len(store.state.damage),
            store.settings.retention,
            store.settings.retention_bytes,
            store.events.last_stored // NS,
        )

    def config_numbers(self) -> ConfigNumbers:
        return self._config_numbers

    def config_yaml(self) -> str:
        return self._config.text

    def flags(self) -> Mapping[str, str]:
        return {name.replace("_", "-"): shown(self._settings, name) for name in BY_NAME}

    async def reload(self) -> None:
        try:
            config, settings = self._reread()
            check_addresses(replace(settings, **self._listening), config)
            check_destinations(config.destinations)
        except ConfigError as error:
            self._config_numbers = ConfigNumbers(False, self._config_numbers.loaded_at)
            LOG.error("the configuration was not reloaded, the old one stays: %s", error.message)
            raise
        self._authentication.apply(config.auth)
        for warning in config.warnings:
            LOG.warning("%s", warning)
        for setting in BY_NAME.values():
            if not setting.reloadable and getattr(settings, setting.name) != getattr(self._settings, setting.name):
                LOG.warning("%s has changed and takes effect at the next start", setting.name)
        if config.relay != self._config.relay:
            LOG.warning("relay has changed: where is listened, and how often is polled, change at the next start")
        self._settings, self._config = settings, config
        self._config_numbers = ConfigNumbers(True, self._clock.now_ms())
        if self.opened is not None:
            rules = parse_rules(settings.retention_rules, settings.retention)
            self.opened.store.keep_for(settings.retention, rules, settings.retention_size, tiers_of(settings))
            event_rules = parse_event_rules(settings.event_retention_rules, settings.event_retention)
            self.opened.store.keep_events_for(settings.event_retention, event_rules)
            self.opened.store.limit_series(settings.series_limits)
            self.opened.events.limits = event_limits(settings)
            if self.opened.relays is not None and config.relay is not None:
                self.opened.relays.apply(config.relay)
            self.opened.scrapes.apply(config.jobs)
            self.opened.event_metrics.apply(config.event_metrics)
            self.opened.hosts.apply(config.host_history)
            self.opened.remote_writes.apply(config.remote_writes)
            self.opened.deliveries.apply(config.destinations)
            self.opened.federation.apply(config.federation)
            self.opened.pushes.apply(self.opened.federation.pushes)
        self.reloaded(settings, config)
        LOG.info("the configuration was reloaded")

    async def recover_pushes(self) -> None:
        """Find again which pushed series were live when the server stopped, so that those which end are marked."""
        pushed = pushed_series(self._config)
        if pushed is None:
            return
        matches = (f'{{{pushed.label}!=""}}',)
        shown = PushedSeries(pushed.label, pushed.ttl, timestamps=True)
        query = FederateQuery(matches, self._clock.now_ms(), utf8=True, pushed=shown)
        try:
            answer = await self._workers.run(Job(query, http_options(self._settings, self._config).limits))
            async with aclosing(answer.chunks):
                found = await self._open().pushes.recover(answer.chunks)
        except StreamgaugeError as error:
            LOG.warning("pushed series that end now are not marked as stale: %s", error.message)
        else:
            if found:
                LOG.info("%d pushed series are live", found)

    async def sample_hosts(self, wanted: HostSettings, since: int, now: int) -> bytes:
        """What `query.hosts.sampling` finds of hosts between two times (ms)."""
        query = HostSamplesQuery(wanted.sources, since, now, wanted.by, self._settings.query_lookback)
        limits = self.query_limits()
        seconds = min(limits.seconds, max(wanted.interval / 1000, HOST_SAMPLE_SECONDS))
        return await self._workers.read(Job(query, replace(limits, seconds=seconds)))

    def query_limits(self) -> Limits:
        """Of one query, as they are now."""
        return http_options(self._settings, self._config).limits

    async def inspect(self, limit: int) -> Mapping[str, object]:
        opened = self._open()
        state = opened.store.state
        return report(
            state.blocks,
            opened.store.head.rows,
            opened.store.index.series,
            state.commit,
            state.flushed_through,
            state.damage,
            await self._cardinality(limit),
            state.tombstones,
            opened.store.events.state.blocks,
            opened.store.events.head.rows,
        )

    async def _cardinality(self, limit: int) -> dict[str, Any]:
        limits = http_options(self._settings, self._config).limits
        data: dict[str, Any] = json.loads(await self._workers.read(Job(CardinalityQuery(limit), limits)))["data"]
        return data

    def limits(self) -> Mapping[str, object]:
        index, refusals = self.store.index, self.store.refusals
        now = {METRIC: index.series_of, LABEL: index.values_of}
        return {
            **{name: shown(self._settings, name) for name in ("max_series_per_metric", "max_label_values")},
            "refused": [
                {
                    "limit": refusal.limit,
                    "name": refusal.name,
                    "now": now[refusal.limit](refusal.name.encode()) if refusal.limit in now else index.series,
                    "attempts": refusal.attempts,
                    "first": refusal.first / 1000,
                    "last": refusal.last / 1000,
                    "example": refusal.example,
                }
                for refusal in refusals.listed()
            ],
        }

    async def check(self) -> Mapping[str, object]:
        problems = await self._open().maintenance.check()
        return {"problems": [*await asyncio.to_thread(token_problems, Path(self._settings.data)), *problems]}

    @property
    def folder_key(self) -> str:
        return self.key

    async def create_token(
        self, name: str, scopes: Sequence[str], labels: Sequence[tuple[str, str]], expires: int | None
    ) -> tuple[str, StoredToken]:
        return await self._authentication.create(name, scopes, labels, expires)

    def tokens(self) -> Sequence[StoredToken]:
        return self._authentication.tokens()

    async def revoke_token(self, name: str) -> None:
        await self._authentication.revoke(name)

    async def pin(self) -> Mapping[str, object]:
        pin, state = await self._open().pins.take()
        return {"id": pin, "state": encode_state(state)}

    def renew_pin(self, pin: str) -> None:
        self._open().pins.renew(pin)

    def unpin(self, pin: str) -> None:
        self._open().pins.end(pin)

    async def folder_snapshot(self, skip_head: bool) -> str:
        return await self._open().snapshots.take(skip_head)

    async def delete_series(self, matches: Sequence[str], start: int, end: int) -> None:
        await self._open().maintenance.delete(await self.selectors(matches), start, end)

    async def selectors(self, matches: Sequence[str]) -> list[list[Matcher]]:
        """Selectors, parsed where a parser that fails takes no server with it."""
        limits = http_options(self._settings, self._config).limits
        answer = await self._workers.read(Job(SelectorsQuery(tuple(matches)), limits))
        return [[Matcher(name, MatchOp(op), value) for name, op, value in each] for each in json.loads(answer)["data"]]

    async def delete_events(self, condition: str) -> int:
        return await self._open().maintenance.events.delete(condition)

    async def clean_tombstones(self) -> None:
        await self._open().maintenance.clean_tombstones()

    def metrics_text(self) -> bytes:
        return self._metrics()


def pushed_series(config: Config) -> PushedSeries | None:
    """How /federate gives what clusters push; None where none push."""
    if config.federation is None:
        return None
    pushes = config.federation.pushes
    return PushedSeries(pushes.partition_label, pushes.ttl)


def http_options(settings: Settings, config: Config) -> HttpOptions:
    """What the routes are told of settings and configuration."""
    return HttpOptions(
        limits=Limits(settings.query_max_samples, settings.query_max_bytes, settings.query_timeout / 1000),
        lookback=settings.query_lookback,
        allow_hosts=settings.allow_host,
        allow_origins=settings.allow_origin,
        external_labels=tuple(config.external_labels.items()),
        pushed=pushed_series(config),
        admin_api=settings.enable_admin_api,
        relay=config.relay,
    )
