"""One `remote_write` section: where samples are sent, and how. Compared on a reload."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from streamgauge.http.options import ClientCredentials, HttpOptions
from streamgauge.relabel import Rule


class Protocol(enum.StrEnum):
    V1 = "prometheus.WriteRequest"
    V2 = "io.prometheus.write.v2.Request"


@dataclass(frozen=True, slots=True)
class InfluxDatabase:
    """That a destination has which is an InfluxDB: where it is missing, `statement` makes it at `url`."""

    url: str
    statement: str


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """Times in ms. capacity: samples that wait in memory for each of `max_shards`; more wait on the disk.
    sample_age_limit: of what is sent, 0 for none."""

    capacity: int = 10_000
    max_shards: int = 50
    min_shards: int = 1
    max_samples_per_send: int = 2000
    batch_send_deadline: int = 5000
    min_backoff: int = 30
    max_backoff: int = 5000
    retry_on_429: bool = True
    sample_age_limit: int = 0


@dataclass(frozen=True, slots=True)
class MetadataPolicy:
    """interval: ms, 0 where none is sent. max_per_send: metrics of a request."""

    interval: int = 60_000
    max_per_send: int = 2000


@dataclass(frozen=True, slots=True)
class RemoteWriteTarget:
    """name: of the position in the data folder, and in metrics. timeout: ms. external: labels that series get which do
    not have them."""

    name: str
    url: str
    timeout: int = 30_000
    protocol: Protocol = Protocol.V1
    http: HttpOptions = field(default_factory=HttpOptions)
    oauth2: ClientCredentials | None = None
    relabel: tuple[Rule, ...] = ()
    external: tuple[tuple[str, str], ...] = ()
    queue: QueuePolicy = field(default_factory=QueuePolicy)
    metadata: MetadataPolicy = field(default_factory=MetadataPolicy)
    influx: InfluxDatabase | None = None  # gets lines as InfluxDB takes them, in place of remote write
