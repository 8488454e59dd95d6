"""The latest sample of each matching series, in the text exposition format: what /federate answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.model.arrays import stale_mask
from streamgauge.model.frame import LabelFrame
from streamgauge.model.source import Matcher, MatchOp, Selection, Source
from streamgauge.model.text_format import PLAIN_METRIC, label_name, quoted
from streamgauge.query.budget import Budget
from streamgauge.query.labels import METRIC_NAME, LabelTexts, column_texts
from streamgauge.query.requests import PushedSeries
from streamgauge.query.text import concatenated, join, strings, text_bytes, value_texts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
UTF8_CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"

_NO_METRIC = r"^[0-9]|[^a-zA-Z0-9_:]"
_NO_LABEL = r"^[0-9]|[^a-zA-Z0-9_]"
"""What is not allowed in the names of version 0.0.4 of the format."""
_TYPES = frozenset({"counter", "gauge"})
"""Types that are passed on. The series of a histogram or a summary do not stand together in order of names."""
_CLOCKS_AHEAD = 10 * 60_000
"""How far the clocks of those who push may be ahead, ms."""
_LINES_AT_ONCE = 20_000
_LINE_BYTES = 64
"""Of a line, beside its name and labels: value, time, and where each text begins."""


def federate(
    source: Source,
    matcher_sets: Sequence[Sequence[Matcher]],
    start: int,
    end: int,
    budget: Budget,
    types: Mapping[str, str],
    external_labels: Mapping[str, str],
    utf8: bool = False,
    pushed: PushedSeries | None = None,
) -> Iterator[bytes]:
    """Lines ordered by metric name, a `# TYPE` line before each metric, times in ms.

    Of pushed series the range is another, and they may have no times.

    With `utf8` names stand in quotes where they need it; else each of their characters that version 0.0.4 of the format
    does not know becomes an underscore.

    A series without a name, or whose latest sample in [start, end] is a stale marker, is left out. External labels are
    added to the series that do not have them. `instance` is added empty where it is in neither, so that a scraper that
    honors labels does not put its own there.
    """
    defaults = {"instance": "", **external_labels}
    if not utf8:
        defaults = {re.sub(_NO_LABEL, "_", name): value for name, value in defaults.items()}
        types = {re.sub(_NO_METRIC, "_", metric): kind for metric, kind in types.items()}
    shape = _Shape(start, end, defaults, utf8)
    tables = []
    for matchers in matcher_sets:
        if pushed is None:
            tables.append(_selected(source, matchers, budget, shape))
            continue
        others = Matcher(pushed.label, MatchOp.EQUAL, "")
        theirs = _Shape(end - pushed.ttl, end + _CLOCKS_AHEAD, defaults, utf8, pushed.timestamps)
        tables.append(_selected(source, (*matchers, others), budget, shape))
        tables.append(_selected(source, (*matchers, replace(others, op=MatchOp.NOT_EQUAL)), budget, theirs))
    lines = _distinct(pa.concat_tables(tables).sort_by([("name", "ascending"), ("labels", "ascending")]))
    return _spelled(lines, types)


@dataclass(frozen=True, slots=True)
class _Shape:
    """In which range the latest samples are looked for, and how their lines look."""

    start: int
    end: int
    defaults: Mapping[str, str]
    utf8: bool
    timestamps: bool = True


def _selected(source: Source, matchers: Sequence[Matcher], budget: Budget, shape: _Shape) -> pa.Table:
    """The lines of one selector. Of what they cost the budget only the table stays charged."""
    samples, size = budget.samples, budget.bytes
    table = _latest(source.select(matchers, shape.start, shape.end, budget), shape, budget)
    budget.release(budget.samples - samples, budget.bytes - size - table.nbytes)
    return table


def _latest(selection: Selection, shape: _Shape, budget: Budget) -> pa.Table:
    """Columns name, labels, value and time, all text; a time has a space before it, or is empty."""
    samples = selection.samples
    last = samples.offsets[1:] - 1
    named = selection.labels.columns.get(METRIC_NAME)
    keep = ~stale_mask(samples.values[last]) & (named.codes >= 0 if named is not None else False)
    rows = np.nonzero(keep)[0]
    frame = selection.labels.take(rows)
    names = column_texts(frame.columns[METRIC_NAME]) if len(rows) else strings(())
    if not shape.utf8:
        names = pc.replace_substring_regex(names, _NO_METRIC, "_")
        frame = LabelFrame(len(frame), {re.sub(_NO_LABEL, "_", name): column for name, column in frame.columns.items()})
    labels = LabelTexts(frame.without([METRIC_NAME]), _label_name, _label_values, shape.defaults)
    budget.charge(0, 2 * (int(labels.sizes().sum()) + text_bytes(names)) + _LINE_BYTES * len(rows))  # also sorted
    times = cast(pa.StringArray, pc.cast(pa.array(samples.times[last[rows]]), pa.string()))
    return pa.table(
        {
            "name": names,
            "labels": labels.rows(0, len(rows)),
            "value": value_texts(samples.values[last[rows]]),
            "time": join(" ", times) if shape.timestamps else strings([""] * len(rows)),
        }
    )


def _distinct(lines: pa.Table) -> pa.Table:
    """Without the series that an earlier selector has selected, too."""
    if len(lines) < 2:
        return lines
    same: Any = pc.and_(
        *(pc.equal(lines[name].slice(1), lines[name].slice(0, len(lines) - 1)) for name in ("name", "labels"))
    )
    return lines.filter(pa.array(np.concatenate([[True], ~same.to_numpy()])))


def _spelled(lines: pa.Table, types: Mapping[str, str]) -> Iterator[bytes]:
    previous = None
    for batch in lines.combine_chunks().to_batches(max_chunksize=_LINES_AT_ONCE):
        names: Any = batch["name"].dictionary_encode()
        codes = names.indices.to_numpy()
        metrics = names.dictionary.to_pylist()
        begins = np.append(True, codes[1:] != codes[:-1])
        begins[0] = metrics[codes[0]] != previous
        previous = metrics[codes[-1]]
        headers = strings([*(_type_line(metric, types) for metric in metrics), ""])
        openings = strings(map(_opening, metrics))
        heads = headers.take(np.where(begins, codes, len(metrics)))
        labels, values, times = (cast(pa.StringArray, batch[name]) for name in ("labels", "value", "time"))
        yield concatenated(join(heads, openings.take(codes), labels, "} ", values, times, "\n"))


def _type_line(metric: str, types: Mapping[str, str]) -> str:
    name = metric if PLAIN_METRIC.fullmatch(metric) else quoted(metric)
    kind = types.get(metric, "")
    return f"# TYPE {name} {kind if kind in _TYPES else 'untyped'}\n"


def _opening(metric: str) -> str:
    """What stands before the labels; there always is one."""
    return f"{metric}{{" if PLAIN_METRIC.fullmatch(metric) else f"{{{quoted(metric)},"


def _label_name(name: str) -> str:
    return f"{label_name(name)}="


def _label_values(values: pa.StringArray) -> pa.StringArray:
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n")):
        values = pc.replace_substring(values, plain, escaped)
    return values
