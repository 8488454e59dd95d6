"""What the HTTP routes need of the rest of the server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from streamgauge.auth.authenticator import Authenticator
from streamgauge.clock import Clock
from streamgauge.ingest.bound import Bound
from streamgauge.ingest.events import Events
from streamgauge.ingest.federation.receiver import PushReceiver
from streamgauge.ingest.influx import Written
from streamgauge.ingest.relay.settings import RelaySettings
from streamgauge.ingest.scrape.pool import ScrapePool
from streamgauge.ingest.timeseries import TimeSeries
from streamgauge.live.hub import Hub
from streamgauge.live.tags import TagHub
from streamgauge.model.batch import Metadata
from streamgauge.model.source import Matcher
from streamgauge.model.token import StoredToken
from streamgauge.query.budget import Limits
from streamgauge.query.requests import DEFAULT_LOOKBACK_MS, PushedSeries, Workers
from streamgauge.wire.influx_lines import Precision

if TYPE_CHECKING:
    from streamgauge.auth.cluster_access import ClusterAccess


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """What does not change while the server runs."""

    limits: Limits = field(default_factory=Limits)  # of one query
    lookback: int = DEFAULT_LOOKBACK_MS  # ms
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    external_labels: tuple[tuple[str, str], ...] = ()  # added by /federate and remote read
    pushed: PushedSeries | None = None  # how /federate gives what clusters push
    internal_listener: bool = False  # whether health, metrics and federation have a listener of their own
    admin_api: bool = False  # whether endpoints that are marked `admin` are answered
    relay: RelaySettings | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """How far the start has come. `current` of `total` is in whatever unit the store counts; equal when done."""

    current: int
    total: int
    done: bool


@dataclass(frozen=True, slots=True)
class StoreNumbers:
    """The store at a glance. Times are ms."""

    head_series: int
    samples_appended: int  # since the start
    damaged: int  # files set aside because they could not be read
    retention: int  # ms, 0 = for ever
    retention_bytes: int = 0  # 0 = no limit
    last_event: int = 0  # when the newest event was stored, 0 = there is none


@dataclass(frozen=True, slots=True)
class ConfigNumbers:
    reloaded: bool  # whether the last reload succeeded
    loaded_at: int  # ms, of the configuration in force


class WriteReply(Protocol):
    """The answer to a write, as the receiver of a wire format gives it: with a content-type if it has a body."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> str: ...


class RelayControl(Protocol):
    """The relays that are connected."""

    @property
    def live_tags(self) -> TagHub:
        """Who follows their values."""

    def override(self, seconds: float, intervals: Mapping[str, float]) -> int:
        """Have them collect at other intervals for a while, in seconds; how many that concerns."""

    def flush(self) -> int:
        """Have them forget their values; how many they are."""

    def lets_in(self, token: str) -> bool:
        """Whether it is the token that callers of the stats API must show now."""


class Services(Protocol):
    """Everything is called on the event loop. Errors are StreamgaugeErrors."""

    @property
    def clock(self) -> Clock: ...

    @property
    def started_at(self) -> int:
        """When the server started, ms."""

    @property
    def workers(self) -> Workers: ...

    @property
    def authenticator(self) -> Authenticator:
        """Tells who sends a request."""

    @property
    def cluster_access(self) -> ClusterAccess:
        """Tells which clusters may push. Raises NotFound when none does, NotReady while the server starts."""

    @property
    def pushes(self) -> PushReceiver:
        """The receiver of what clusters push. Raises NotReady while the server starts."""

    async def remote_write(
        self, headers: Mapping[str, str], body: AsyncIterator[bytes], bound: Bound = ()
    ) -> WriteReply:
        """Store one remote-write request of somebody who is bound to these labels. Header names are in lower case."""

    def begin_remote_write(self, headers: Mapping[str, str], body: bytes, done: Callable[[WriteReply], None]) -> bool:
        """Begin to store a request of somebody who is not bound, where that can be begun at once. False: nothing has
        happened. `done` is called later, with the answer."""

    async def influx_write(
        self, headers: Mapping[str, str], body: AsyncIterator[bytes], precision: Precision, bound: Bound = ()
    ) -> Written:
        """Store one request in the InfluxDB line protocol. Otherwise as `remote_write`."""

    async def bulk_import(
        self, headers: Mapping[str, str], body: AsyncIterator[bytes], bound: Bound = ()
    ) -> Mapping[str, object]:
        """Store one request of samples in bulk; what became of it, as JSON types. Otherwise as `remote_write`."""

    @property
    def tails(self) -> Hub:
        """Who follows what is being stored."""

    @property
    def relays(self) -> RelayControl | None:
        """None where they are not configured. Raises NotReady while the server starts."""

    async def selectors(self, matches: Sequence[str]) -> list[list[Matcher]]:
        """The matchers of series selectors. Raises BadInput."""

    @property
    def timeseries(self) -> TimeSeries:
        """The receiver of rows that come over gRPC. Raises NotReady while the server starts."""

    @property
    def events(self) -> Events:
        """The receiver of events. Raises NotReady while the server starts."""

    def metadata(self) -> Sequence[Metadata]: ...

    def scrape_pools(self) -> Mapping[str, ScrapePool]:
        """The scrape jobs by name, with their targets."""

    def replay(self) -> Replay: ...

    def store_numbers(self) -> StoreNumbers: ...

    def config_numbers(self) -> ConfigNumbers: ...

    def config_yaml(self) -> str:
        """The configuration in force as YAML, secrets hidden."""

    def flags(self) -> Mapping[str, str]:
        """Every setting and its value, secrets hidden."""

    async def reload(self) -> None:
        """Load the configuration again. Raises ConfigError and keeps the old one."""

    async def inspect(self, limit: int) -> Mapping[str, object]:
        """What `streamgauge inspect` shows, as JSON types; `limit` entries of each list of its cardinality."""

    def limits(self) -> Mapping[str, object]:
        """The limits of numbers of series, and who was refused new ones because of them, as JSON types."""

    async def check(self) -> Mapping[str, object]:
        """What `streamgauge check` finds, as JSON types."""

    @property
    def folder_key(self) -> str:
        """What only those can know who may read the data folder; empty when nobody can."""

    async def create_token(
        self, name: str, scopes: Sequence[str], labels: Sequence[tuple[str, str]], expires: int | None
    ) -> tuple[str, StoredToken]:
        """Make a token that expires at a time (ms): its text, which nobody can tell later, and what is kept of it.
        Raises BadInput and StorageError."""

    def tokens(self) -> Sequence[StoredToken]:
        """Those that were made in this way and not revoked, expired ones among them."""

    async def revoke_token(self, name: str) -> None:
        """Raises NotFound and StorageError."""

    async def pin(self) -> Mapping[str, object]:
        """Keep all blocks there are from going away: the pin's `id`, and as `state` what is pinned, as JSON types."""

    def renew_pin(self, pin: str) -> None:
        """Raises NotFound when it has ended."""

    def unpin(self, pin: str) -> None:
        """End a pin; none of this id is no error."""

    async def folder_snapshot(self, skip_head: bool) -> str:
        """Make a snapshot of the data folder, with or without what is not in blocks yet; its name."""

    async def delete_series(self, matches: Sequence[str], start: int, end: int) -> None:
        """Delete the samples with start <= time <= end (ms) of the series that any of the selectors selects: what was
        acknowledged before is seen by nobody when this returns."""

    async def delete_events(self, condition: str) -> int:
        """Take the events off the disk that fulfil a condition, as SQL has it after WHERE; how many there were."""

    async def clean_tombstones(self) -> None:
        """Take everything off the disk that was deleted, but for what a query reads."""

    def metrics_text(self) -> bytes:
        """The server's own metrics in the Prometheus text format."""
