"""One job, in the worker: from the snapshot to the bytes of the answer."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.model.frame import LabelFrame
from streamgauge.model.source import Matcher, Samples, Source
from streamgauge.query.budget import Budget
from streamgauge.query.cardinality import cardinality
from streamgauge.query.encode import JSON, evaluation_data, json_data, series_data, strings_data, success
from streamgauge.query.federate import CONTENT_TYPE, UTF8_CONTENT_TYPE, federate
from streamgauge.query.growth import growth
from streamgauge.query.hosts.sampling import sampled
from streamgauge.query.promql.engine import evaluate
from streamgauge.query.promql.format import format_query, parse_tree
from streamgauge.query.promql.parser import parse_selector
from streamgauge.query.promql.steps import Grid
from streamgauge.query.raw import raw_series
from streamgauge.query.requests import (
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
    RangeQuery,
    RawQuery,
    SelectorsQuery,
    SeriesQuery,
    SqlQuery,
)
from streamgauge.query.restricted import restricted
from streamgauge.query.result import Matrix, RangeVector, Result, Vector
from streamgauge.query.text import strings, text_bytes

TRUNCATED = "results truncated due to limit"
ALL_TIME = (-(1 << 62), 1 << 62)
"""Far from where adding a range to a time overflows."""

_INDEX_BYTES = 8

Body = Iterator[bytes]


@dataclass(frozen=True, slots=True)
class Response:
    """An answer that could be given. Errors are raised, by the call or, rarely, while `body` is read."""

    content_type: str
    body: Body


def execute(
    job: Job,
    source: Source,
    budget: Budget,
    waited: float = 0.0,
    preparing: float = 0.0,
    kept: MutableMapping[str, object] | None = None,
) -> Response:
    """Answer a job. For its statistics, in seconds: how long it `waited` for a worker, and `preparing` its source took.

    kept: what this process keeps from one job to the next, as `Snapshot.open` has it.

    Raises any StreamgaugeError; MemoryError.
    """
    source = restricted(source, job.view)
    match job.query:
        case InstantQuery() | RangeQuery() as query:
            return _json(*_evaluated(query, source, budget, (waited, preparing) if job.stats else None))
        case SeriesQuery() as query:
            return _json(*_series(_matching(query, source, budget), query.limit, budget))
        case LabelNamesQuery() as query:
            return _json(*_strings(_label_names(_matching(query, source, budget)), query.limit, budget))
        case LabelValuesQuery() as query:
            frame = _matching(query, source, budget, [query.label])
            return _json(*_strings(_label_values(frame, query.label, budget), query.limit, budget))
        case FormatQuery(text):
            return _json(json_data(format_query(text)))
        case ParseQuery(text):
            return _json(json_data(parse_tree(text)))
        case SelectorsQuery(matches):
            return _json(json_data([[[m.name, m.op.value, m.value] for m in each] for each in _selectors(matches)]))
        case CardinalityQuery(limit):
            return _json(json_data(cardinality(source.series([], *ALL_TIME, budget), limit)))
        case GrowthQuery() as query:
            lives = source.lifetimes(_selectors(query.matches), budget)
            return _json(json_data(growth(lives, query, budget)))
        case FederateQuery() as query:
            return Response(UTF8_CONTENT_TYPE if query.utf8 else CONTENT_TYPE, _federated(query, source, budget))
        case RawQuery() as query:
            return Response(query.format.content_type, raw_series(query, source, budget))
        case HistoryQuery(history):
            return Response(history.content_type, history.read(source, budget))
        case HostSamplesQuery() as query:
            return Response(JSON, iter([sampled(query, source, budget)]))
        case SqlQuery() as query:
            return _sql(query, source, budget, {} if kept is None else kept)


def _json(data: Body, warnings: Sequence[str] = (), infos: Sequence[str] = ()) -> Response:
    return Response(JSON, success(data, warnings, infos))


# ---- queries ------------------------------------------------------------------------------------------------------


def _evaluated(
    query: InstantQuery | RangeQuery, source: Source, budget: Budget, before: tuple[float, float] | None
) -> tuple[Body, Sequence[str], Sequence[str]]:
    """The data, warnings and infos; with statistics unless `before`, the seconds before evaluation, is None."""
    begun = time.perf_counter()
    instant = isinstance(query, InstantQuery)
    grid = Grid.instant(query.time) if isinstance(query, InstantQuery) else _grid(query)
    end = query.time if isinstance(query, InstantQuery) else query.end
    evaluation = evaluate(query.query, source, grid, budget, lookback=query.lookback, end=end, instant=instant)
    evaluated = time.perf_counter()
    result, truncated = _limited(evaluation.result, query.limit)
    evaluation = replace(evaluation, result=result)
    warnings = (*evaluation.warnings, TRUNCATED) if truncated else evaluation.warnings
    stats = None if before is None else _statistics(budget, *before, evaluated - begun)
    return evaluation_data(evaluation, stats), warnings, evaluation.infos


def _grid(query: RangeQuery) -> Grid:
    return Grid(query.start, query.step, (query.end - query.start) // query.step + 1)


def _statistics(budget: Budget, waited: float, preparing: float, evaluating: float) -> Mapping[str, object]:
    """As Prometheus names them; seconds. Results are sorted as part of their evaluation here."""
    return {
        "timings": {
            "evalTotalTime": preparing + evaluating,
            "resultSortTime": 0.0,
            "queryPreparationTime": preparing,
            "innerEvalTime": evaluating,
            "execQueueTime": waited,
            "execTotalTime": waited + preparing + evaluating,
        },
        "samples": {"totalQueryableSamples": budget.total_samples, "peakSamples": budget.peak_samples},
    }


def _limited(result: Result, limit: int) -> tuple[Result, bool]:
    """At most `limit` series of a result, and whether that left any out."""
    if not isinstance(result, Vector | Matrix | RangeVector) or not 0 < limit < len(result.labels):
        return result, False
    labels = result.labels.take(np.arange(limit))
    if isinstance(result, RangeVector):
        offsets = result.samples.offsets[: limit + 1]
        samples = Samples(offsets, result.samples.times[: offsets[-1]], result.samples.values[: offsets[-1]])
        return RangeVector(labels, samples), True
    if isinstance(result, Matrix):
        return replace(result, labels=labels, values=result.values[:limit], present=result.present[:limit]), True
    return replace(result, labels=labels, values=result.values[:limit]), True


# ---- labels -------------------------------------------------------------------------------------------------------


def _matching(
    query: SeriesQuery | LabelNamesQuery | LabelValuesQuery,
    source: Source,
    budget: Budget,
    names: Collection[str] | None = None,
) -> LabelFrame:
    return source.series(_selectors(query.matches), query.start, query.end, budget, names)


def _selectors(texts: Sequence[str]) -> list[tuple[Matcher, ...]]:
    return [parse_selector(text) for text in texts]


def _series(frame: LabelFrame, limit: int, budget: Budget) -> tuple[Body, Sequence[str]]:
    if not 0 < limit < len(frame):
        return series_data(frame, budget), ()
    return series_data(frame.take(np.arange(limit)), budget), (TRUNCATED,)


def _label_names(frame: LabelFrame) -> pa.StringArray:
    return strings(sorted(name for name, column in frame.columns.items() if (column.codes >= 0).any()))


def _label_values(frame: LabelFrame, label: str, budget: Budget) -> pa.StringArray:
    column = frame.columns.get(label)
    if column is None:
        return strings(())
    budget.charge(0, 2 * (text_bytes(column.values) + _INDEX_BYTES * len(column.values)))  # chosen, and then sorted
    used = np.zeros(len(column.values) + 1, np.bool_)
    used[column.codes] = True  # ABSENT, -1, is the last
    values = column.values.take(np.nonzero(used[:-1])[0])
    return values.take(pc.sort_indices(values))


def _strings(values: pa.StringArray, limit: int, budget: Budget) -> tuple[Body, Sequence[str]]:
    if not 0 < limit < len(values):
        return strings_data(values, budget), ()
    return strings_data(values.slice(0, limit), budget), (TRUNCATED,)


# ---- SQL ----------------------------------------------------------------------------------------------------------


def _sql(query: SqlQuery, source: Source, budget: Budget, kept: MutableMapping[str, object]) -> Response:
    from streamgauge.query.sql.answers import CONTENT_TYPES  # DuckDB takes 45 MB, and is imported with the first query
    from streamgauge.query.sql.run import run_sql

    return Response(CONTENT_TYPES[query.format], run_sql(query, source, budget, kept))


# ---- federation ---------------------------------------------------------------------------------------------------


def _federated(query: FederateQuery, source: Source, budget: Budget) -> Body:
    return federate(
        source,
        _selectors(query.matches),
        query.time - query.lookback,
        query.time,
        budget,
        dict(query.types),
        dict(query.external_labels),
        query.utf8,
        query.pushed,
    )
