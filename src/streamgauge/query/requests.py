"""What can be asked of a query worker, and the shape of its answers. All of it is picklable."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from streamgauge.model.host_history import HostSource
from streamgauge.model.source import Meter, Selection, Selector, Snapshot, Source
from streamgauge.model.view import EVERYTHING, View
from streamgauge.query.budget import Limits

DEFAULT_LOOKBACK_MS = 300_000


@dataclass(frozen=True, slots=True)
class InstantQuery:
    query: str
    time: int  # ms
    lookback: int = DEFAULT_LOOKBACK_MS  # ms
    limit: int = 0  # series at most, 0 = all


@dataclass(frozen=True, slots=True)
class RangeQuery:
    query: str
    start: int  # ms, inclusive
    end: int  # ms, inclusive
    step: int  # ms, > 0
    lookback: int = DEFAULT_LOOKBACK_MS  # ms
    limit: int = 0


@dataclass(frozen=True, slots=True)
class SeriesQuery:
    """/api/v1/series. `matches` are series selectors as text."""

    matches: tuple[str, ...]
    start: int
    end: int
    limit: int = 0


@dataclass(frozen=True, slots=True)
class LabelNamesQuery:
    matches: tuple[str, ...]
    start: int
    end: int
    limit: int = 0


@dataclass(frozen=True, slots=True)
class LabelValuesQuery:
    label: str
    matches: tuple[str, ...]
    start: int
    end: int
    limit: int = 0


@dataclass(frozen=True, slots=True)
class FormatQuery:
    query: str


@dataclass(frozen=True, slots=True)
class ParseQuery:
    query: str


@dataclass(frozen=True, slots=True)
class SelectorsQuery:
    """The matchers of series selectors, each as [name, operator, value]: for whoever selects elsewhere than in a
    worker, where text is not parsed."""

    matches: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PushedSeries:
    """How /federate gives series that have the label `label`: of them clusters push seldom, and late. ttl: how old a
    value may be, ms. timestamps: whether it has one; without, it lives for whoever scrapes it until it is gone here."""

    label: str
    ttl: int
    timestamps: bool = False


@dataclass(frozen=True, slots=True)
class FederateQuery:
    """/federate: the latest sample of each matching series, as exposition text. `types` is metric name to type.
    pushed: what is different about pushed series; None where none are pushed."""

    matches: tuple[str, ...]
    time: int  # ms
    lookback: int = DEFAULT_LOOKBACK_MS
    types: tuple[tuple[str, str], ...] = ()
    external_labels: tuple[tuple[str, str], ...] = ()
    utf8: bool = False  # whether names that are no identifiers are quoted; else they are escaped
    pushed: PushedSeries | None = None


@dataclass(frozen=True, slots=True)
class CardinalityQuery:
    """/api/v1/status/tsdb: the head's top label names, values and metrics by number of series."""

    limit: int = 10


class GroupBy(enum.Enum):
    """What is counted for: the values of chosen labels together; each label, by its distinct values; or each label with
    each of its values."""

    VALUES = "values"
    LABEL = "label"
    PAIR = "pair"


class Order(enum.Enum):
    """By which number the largest are chosen."""

    SERIES = "series"
    ACTIVE = "active"
    CREATED = "created"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class GrowthQuery:
    """/api/v1/status/cardinality: how many series there are at `end`, and how they came and went since `start`.

    A series is active when it has a sample in the `idle` ms before `end`. `names` are the labels of GroupBy.VALUES.
    """

    matches: tuple[str, ...]
    start: int  # ms
    end: int  # ms, inclusive, later than start
    idle: int  # ms
    by: GroupBy = GroupBy.VALUES
    names: tuple[str, ...] = ("__name__",)
    order: Order = Order.SERIES
    buckets: int = 24
    limit: int = 10


class SeriesFormat(Protocol):
    """How series go out with all their samples. Picklable: who asks chooses it, the worker uses it."""

    @property
    def content_type(self) -> str: ...

    def encode(self, query: int, selection: Selection) -> Iterator[bytes]:
        """What was found for the selector number `query`. Called for each of them, in their order."""


@dataclass(frozen=True, slots=True)
class RawQuery:
    """Series with all their samples, stale markers among them: what remote read asks for."""

    selectors: tuple[Selector, ...]
    format: SeriesFormat
    external_labels: tuple[tuple[str, str], ...] = ()


class History(Protocol):
    """What somebody else makes of what is stored. Picklable, like SeriesFormat."""

    @property
    def content_type(self) -> str: ...

    @property
    def text(self) -> str:
        """What it is, for the list of running queries."""

    def read(self, source: Source, meter: Meter) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """The past, in a form of somebody's own. fails_in_text: whether an error is a line of text, as at paths without the
    API's envelope."""

    history: History
    fails_in_text: bool = False


@dataclass(frozen=True, slots=True)
class HostSamplesQuery:
    """A sample of each host that the sources have counters of, over the time from `since` to `now`. by: labels that
    samples keep, besides the host."""

    sources: tuple[HostSource, ...]
    since: int  # ms
    now: int  # ms, later
    by: tuple[str, ...] = ()
    lookback: int = DEFAULT_LOOKBACK_MS


class SqlFormat(enum.Enum):
    """How the rows of an answer go out."""

    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    ARROW = "arrow"
    PARQUET = "parquet"


SqlValue = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class SqlQuery:
    """/api/v1/sql: one SELECT. `parameters` are the values of $1, $2, … and ?, or of names such as $level."""

    query: str
    format: SqlFormat = SqlFormat.JSON
    parameters: tuple[tuple[str, SqlValue], ...] = ()
    lookback: int = DEFAULT_LOOKBACK_MS  # ms, of promql(…)


Query = (
    InstantQuery
    | RangeQuery
    | SeriesQuery
    | LabelNamesQuery
    | LabelValuesQuery
    | FormatQuery
    | ParseQuery
    | SelectorsQuery
    | FederateQuery
    | CardinalityQuery
    | GrowthQuery
    | RawQuery
    | SqlQuery
    | HistoryQuery
    | HostSamplesQuery
)


@dataclass(frozen=True, slots=True)
class Job:
    """One question to a worker. `encoding` is the content coding of the answer: identity, gzip, zstd or snappy."""

    query: Query
    limits: Limits = field(default_factory=Limits)
    encoding: str = "identity"
    stats: bool = False
    view: View = EVERYTHING
    sender: str = ""  # who asks, for the list of running queries


class Chunks(Protocol):
    """The bytes of an answer. Async generators are such, too."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None:
        """Give the answer up, at any time, also before the first chunk was asked for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it goes to the client. `chunks` raises when the worker dies in the middle: the connection must
    then be aborted, never ended as if whole. Closing `chunks` early cancels the query."""

    status: int
    content_type: str
    encoding: str
    chunks: Chunks
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class RunningQuery:
    """One line of the list of running queries. `started` is in ms since the epoch."""

    id: int
    text: str
    started: int
    state: str  # "waiting" or "running"
    worker: int | None  # process id
    sender: str = ""
    view: View = EVERYTHING


TakeSnapshot = Callable[[], tuple[Snapshot, Callable[[], None]]]
"""Takes a snapshot under a lease; the second item ends the lease and is called exactly once."""


class Workers(Protocol):
    """Runs jobs in processes of their own. Everything here is called on the event loop."""

    async def run(self, job: Job, taken: Callable[[], None] | None = None) -> Answer:
        """Answer a job. Errors of the query come as an Answer with the API's error envelope; Overloaded is raised when
        too many wait. Cancelling the call, or closing the answer early, stops the query.

        taken: is called in the step in which the query's snapshot is taken."""

    def running(self) -> list[RunningQuery]: ...

    def cancel(self, query_id: int) -> bool:
        """Stop a query. False when there is no such query."""
