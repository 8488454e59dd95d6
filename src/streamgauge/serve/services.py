"""What the HTTP routes need of the rest of the server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from streamgauge.clock import Clock
from streamgauge.ingest.scrape.pool import ScrapePool
from streamgauge.model.batch import Metadata
from streamgauge.query.budget import Limits
from streamgauge.query.requests import DEFAULT_LOOKBACK_MS, Workers


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """What does not change while the server runs."""

    limits: Limits = field(default_factory=Limits)  # of one query
    lookback: int = DEFAULT_LOOKBACK_MS  # ms
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    external_labels: tuple[tuple[str, str], ...] = ()  # added by /federate and remote read
    admin_api: bool = False  # whether endpoints that are marked `admin` are answered


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


class Services(Protocol):
    """Everything is called on the event loop. Errors are StreamgaugeErrors."""

    @property
    def clock(self) -> Clock: ...

    @property
    def started_at(self) -> int:
        """When the server started, ms."""

    @property
    def workers(self) -> Workers: ...

    async def remote_write(self, headers: Mapping[str, str], body: AsyncIterator[bytes]) -> WriteReply:
        """Store one remote-write request. Header names are in lower case."""

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

    async def check(self) -> Mapping[str, object]:
        """What `streamgauge check` finds, as JSON types."""

    async def delete_series(self, matches: Sequence[str], start: int, end: int) -> None:
        """Delete the samples with start <= time <= end (ms) of the series that any of the selectors selects: what was
        acknowledged before is seen by nobody when this returns."""

    async def clean_tombstones(self) -> None:
        """Take everything off the disk that was deleted, but for what a query reads."""

    def metrics_text(self) -> bytes:
        """The server's own metrics in the Prometheus text format."""
