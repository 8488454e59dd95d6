"""promql('expression', start, end, step): what PromQL makes of samples, as a table of labels, time and value."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from streamgauge.durations import parse_duration
from streamgauge.errors import BadInput
from streamgauge.model.frame import LabelFrame, empty_frame
from streamgauge.model.source import Source
from streamgauge.query.budget import Budget
from streamgauge.query.promql.engine import evaluate
from streamgauge.query.promql.steps import Grid
from streamgauge.query.result import Matrix, RangeVector, Result, Scalar, Vector
from streamgauge.query.sql import tree
from streamgauge.query.sql.database import Session
from streamgauge.query.sql.metrics import as_times, label_maps
from streamgauge.query.sql.resolve import TableCall
from streamgauge.query.sql.syntax import Tree, written

MAX_POINTS = 11_000
"""Steps of one series, as of a range query over HTTP."""
_USAGE = "promql takes ('expression'), ('expression', time) or ('expression', start, end, step)"


class PromqlTables:
    def __init__(self, session: Session, source: Source, budget: Budget, lookback: int) -> None:
        """lookback: ms."""
        self._session = session
        self._source = source
        self._budget = budget
        self._lookback = lookback

    def make(self, call: TableCall) -> None:
        """Put the table into the session's database. Raises BadInput, QueryFailed and the budget's errors."""
        if len(call.arguments) not in (1, 2, 4):
            raise BadInput(_USAGE)
        expression = tree.literal(call.arguments[0])
        if expression is None or expression[0] != "STRING":
            raise BadInput(f"{_USAGE}; the expression is a string")
        times = [self._number(argument, "epoch_ms({}::TIMESTAMPTZ)") for argument in call.arguments[1:3]]
        instant = len(call.arguments) < 4
        grid = Grid.instant(times[0] if times else self._now()) if instant else self._grid(times, call.arguments[3])
        result = evaluate(
            expression[1],
            self._source,
            grid,
            self._budget,
            lookback=self._lookback,
            end=None if instant else times[1],
            instant=instant,
        ).result
        table = self._table(result)
        self._session.add_rows(call.name, table.schema, lambda: iter(table.to_batches(max_chunksize=1 << 16)))

    def _grid(self, times: list[int], argument: Tree) -> Grid:
        start, end = times
        if end < start:
            raise BadInput("promql: the end is before the start")
        step = self._step(argument)
        if step <= 0:
            raise BadInput("promql: a step is at least 1 ms")
        if (end - start) // step > MAX_POINTS:
            raise BadInput(f"promql: more than {MAX_POINTS:,} points a series; increase the step or narrow the range")
        return Grid(start, step, (end - start) // step + 1)

    def _step(self, argument: Tree) -> int:
        """ms, of an interval, of seconds, or of a duration such as '1m'."""
        found = tree.literal(argument)
        if found is not None and found[0] == "STRING":
            return parse_duration(found[1])
        if found is not None:
            return round(float(found[1]) * 1000)
        return self._number(argument, "epoch_ms({}::INTERVAL)")

    def _now(self) -> int:
        return self._number(tree.call("now"), "epoch_ms({})")

    def _number(self, argument: Tree, form: str) -> int:
        sql = form.format(f"({written(self._session, tree.select(argument))})")
        numbers = self._session.numbers([sql])
        if numbers is None:
            raise BadInput(f"{_USAGE}; times are TIMESTAMPTZ, and a step is an INTERVAL, seconds or '1m'")
        return numbers[0]

    def _table(self, result: Result) -> pa.Table:
        match result:
            case Scalar():
                return _table(empty_frame(1), np.array([0]), np.array([result.time]), np.array([result.value]))
            case Vector():
                rows = np.arange(len(result.labels))
                return _table(result.labels, rows, np.full(len(rows), result.time), result.values)
            case Matrix():
                self._budget.charge(0, 32 * int(np.count_nonzero(result.present)))
                rows, steps = np.nonzero(result.present)
                return _table(result.labels, rows, result.times[steps], result.values[result.present])
            case RangeVector():
                samples = result.samples
                rows = np.repeat(np.arange(len(samples)), np.diff(samples.offsets))
                return _table(result.labels, rows, samples.times, samples.values)
        raise BadInput("promql: an expression that is a string makes no table")


def _table(labels: LabelFrame, rows: np.ndarray, times: np.ndarray, values: np.ndarray) -> pa.Table:
    return pa.table({"labels": label_maps(labels).take(pa.array(rows)), "time": as_times(times), "value": values})
