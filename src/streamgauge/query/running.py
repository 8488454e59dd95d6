"""What the pool knows of a query and of a worker, and answers that are errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from streamgauge.errors import Busy, StreamgaugeError
from streamgauge.query.encode import JSON, error_body
from streamgauge.query.process import WorkerProcess
from streamgauge.query.raw import selector_text
from streamgauge.query.requests import (
    Answer,
    CardinalityQuery,
    FederateQuery,
    FormatQuery,
    GrowthQuery,
    HistoryQuery,
    HostSamplesQuery,
    InstantQuery,
    Job,
    LabelNamesQuery,
    LabelValuesQuery,
    ParseQuery,
    Query,
    RangeQuery,
    RawQuery,
    RunningQuery,
    SelectorsQuery,
    SeriesQuery,
    SqlQuery,
)
from streamgauge.query.spool import AnswerStream

_SMALL = (InstantQuery, SeriesQuery, LabelNamesQuery, LabelValuesQuery, FormatQuery, ParseQuery, SelectorsQuery)
_TEXT_LENGTH = 1000
"""Whoever asks may send a megabyte; the list and the log show who it was, not all of it."""


@dataclass(eq=False, slots=True)
class PoolQuery:
    """One query between its admission and its end."""

    id: int
    job: Job
    started: int  # ms since the epoch
    admitted: float  # monotonic
    head: asyncio.Future[tuple[str, str]]  # content type and encoding, once the answer begins
    stream: AnswerStream
    taken: Callable[[], None] | None = None  # called with its snapshot
    worker: PoolWorker | None = None  # None while it waits
    end_lease: Callable[[], None] | None = None
    stopped: StreamgaugeError | None = None  # why it was told to stop
    tasks: list[asyncio.Task[None]] = field(default_factory=list)  # that end with the query

    @property
    def small(self) -> bool:
        return isinstance(self.job.query, _SMALL)

    @property
    def text(self) -> str:
        return describe(self.job.query)

    def described(self) -> RunningQuery:
        process = self.worker.process if self.worker is not None else None
        state = "waiting" if process is None else "running"
        pid = process.pid if process is not None else None
        return RunningQuery(self.id, self.text, self.started, state, pid, self.job.sender, self.job.view)

    def begin(self, content_type: str, encoding: str) -> None:
        if not self.head.done():
            self.head.set_result((content_type, encoding))

    def refuse(self, error: StreamgaugeError) -> None:
        """Whoever waits for the answer, or reads it, gets the error."""
        if not self.head.done():
            self.head.set_exception(error)
        self.stream.fail(error)


@dataclass(eq=False, slots=True)
class PoolWorker:
    """One worker between the decision to start it and its burial."""

    reserved: bool  # for small queries
    process: WorkerProcess | None = None  # None while it starts
    query: PoolQuery | None = None
    leaving: bool = False  # takes no more queries
    retired: bool = False  # was asked to end
    killed: bool = False
    settled: asyncio.Event = field(default_factory=asyncio.Event)  # it is ready, or could not start
    life: asyncio.Task[None] | None = None
    idle_timer: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        return self.process is not None and self.query is None and not self.leaving

    def stop_idling(self) -> None:
        if self.idle_timer is not None:
            self.idle_timer.cancel()
            self.idle_timer = None

    def retire(self) -> None:
        """Let an idle worker end."""
        self.leaving = self.retired = True
        if self.process is not None:
            self.process.channel.close()


def describe(query: Query) -> str:
    """A query in the words of the list of running queries and of the log."""
    text = _words(query)
    return text if len(text) <= _TEXT_LENGTH else f"{text[:_TEXT_LENGTH]}…"


def _words(query: Query) -> str:
    match query:
        case InstantQuery() | RangeQuery() | FormatQuery() | ParseQuery() | SqlQuery():
            return query.query
        case SeriesQuery():
            return " ".join(("series", *query.matches))
        case LabelNamesQuery():
            return " ".join(("label names", *query.matches))
        case LabelValuesQuery():
            return " ".join((f"values of label {query.label}", *query.matches))
        case FederateQuery():
            return " ".join(("federate", *query.matches))
        case SelectorsQuery():
            return " ".join(("selectors", *query.matches))
        case HistoryQuery():
            return query.history.text
        case HostSamplesQuery():
            return " ".join(("sample of hosts from", *(source.name for source in query.sources)))
        case CardinalityQuery():
            return "cardinality"
        case GrowthQuery():
            return " ".join(("growth of series", *query.matches))
        case RawQuery():
            return " ".join(("read", *map(selector_text, query.selectors)))


def failure(job: Job, error: StreamgaugeError) -> Answer:
    """The answer that says why there is none: the API's envelope, or a line of text where the path has none."""
    if _fails_in_text(job.query):
        content_type, body = "text/plain; charset=utf-8", f"{error.message}\n".encode()
    else:
        content_type, body = JSON, error_body(error)
    retry_after = error.retry_after if isinstance(error, Busy) else None
    return Answer(error.status, content_type, "identity", _once(body), retry_after)


def _fails_in_text(query: Query) -> bool:
    return isinstance(query, FederateQuery | RawQuery) or (isinstance(query, HistoryQuery) and query.fails_in_text)


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
