"""Columns that are computed from payloads, whatever logging library or tracer wrote them.

docs/sql.md says the same in words, and a test holds it to this table. Of several members the first that is there
counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from streamgauge.model.event_source import Fixed, LeafType
from streamgauge.query.sql.event_columns import PartColumns
from streamgauge.query.sql.relations import Path, Use

Value = Callable[[Path, Use], str]
"""SQL for the value at a path of the payload, as what it is wanted."""

TIME = ("time", "timestamp", "ts", "@timestamp")
KIND = ("type", "kind")
SEVERITY = ("level", "severity", "severity_text", "severityText", "levelname", "log.level")
MESSAGE = ("message", "msg", "body", "text", "event")
TEXTS: Mapping[str, Sequence[str]] = {
    "kind": KIND,
    "trace_id": ("trace.traceId", "trace.trace_id", "trace.id", "traceId", "trace_id", "traceID"),
    "span_id": ("trace.spanId", "trace.span_id", "span.id", "spanId", "span_id", "spanID"),
    "parent_span_id": ("trace.parentSpanId", "trace.parent_span_id", "parentSpanId", "parent_span_id"),
    "name": ("name", "trace.name", "span.name"),
}
DURATIONS: Mapping[str, int] = {
    "duration_ns": 1,
    "durationNs": 1,
    "duration_us": 1_000,
    "duration_ms": 1_000_000,
    "durationMs": 1_000_000,
    "duration_s": 1_000_000_000,
}
"""Members and how many ns their unit has; of the payload, then of its `trace`."""
SPAN_KINDS = ("trace", "span")
METRIC_KIND = "metric"
_LATEST_US = 7_258_118_400_000_000
"""The year 2200."""


def path(dotted: str) -> Path:
    return tuple(dotted.split("."))


def promoted(column: str, columns: PartColumns) -> str:
    """SQL for one of the columns."""
    if column == "time":
        return _time(columns)
    if column == "severity":
        return f"upper({_first(SEVERITY, columns.value)})"
    if column == "message":
        return f"COALESCE({_first(MESSAGE, columns.value)}, {columns.text_itself()})"
    if column == "duration_ns":
        found = [
            f"{columns.value(path(prefix + name), Use.NUMBER)} * {ns}"
            for prefix in ("", "trace.")
            for name, ns in DURATIONS.items()
        ]
        return f"TRY_CAST(COALESCE({', '.join(found)}) AS BIGINT)"
    return _first(TEXTS[column], columns.value)


def only(view: str, value: Value) -> str:
    """SQL for whether an event is in a view; "" when all are."""
    if view not in ("spans", "logs"):
        return ""
    kind = _first(KIND, value)
    spans = ", ".join(f"'{each}'" for each in SPAN_KINDS)
    if view == "spans":
        return f"{kind} IN ({spans})"
    return f"COALESCE({kind}, '') NOT IN ({spans}, '{METRIC_KIND}')"


def _first(names: Sequence[str], value: Value) -> str:
    return f"COALESCE({', '.join(value(path(name), Use.TEXT) for name in names)})"


def _time(columns: PartColumns) -> str:
    """A number is seconds, or by its size ms, us or ns since 1970; a text is read as a time, of UTC where it names no
    zone.

    What is neither, or before 1970 or after 2200, is not the event's time.
    """
    names = [path(name) for name in TIME]
    at = next((number for number, each in enumerate(names) if columns.leaf_type(each) is not None), len(names))
    before, after = (_texts(some, columns) for some in (names[:at], names[at + 1 :]))
    if at == len(names):
        micros = _micros(columns.once(before))
    else:
        found, quick, left = _quick(names[at], columns)
        also = "" if before == _NOTHING else f" OR {before} IS NOT NULL"
        text = columns.once(f"CASE WHEN {found} IS NULL{also} THEN COALESCE({before}, {left}, {after}) END")
        micros = f"CASE WHEN {text} IS NULL THEN {quick} ELSE {_micros(text)} END"
    micros = columns.once(micros)
    own = f"CASE WHEN {micros} BETWEEN 0 AND {_LATEST_US} THEN {micros}::BIGINT END"
    return f"make_timestamptz(COALESCE({own}, {columns.fixed(Fixed.RECEIVED)} // 1000))"


_NOTHING = "NULL::VARCHAR"


def _texts(names: Sequence[Path], columns: PartColumns) -> str:
    found = [value for value in (columns.value(name, Use.TEXT) for name in names) if value != _NOTHING]
    return f"COALESCE({', '.join(found)})" if found else _NOTHING


def _quick(name: Path, columns: PartColumns) -> tuple[str, str, str]:
    """Of a column of times: what is not null where it tells the time, what the time then is as `_micros` has it, and
    the texts of other values."""
    kind = columns.leaf_type(name)
    if kind is LeafType.TEXT:
        instant = columns.instant(name)
        return instant, instant, columns.not_instant(name)
    number = columns.value(name, Use.NUMBER)
    if kind is LeafType.BOOL:
        return columns.value(name, Use.BOOL), number, _NOTHING
    return number, _scaled(number), _NOTHING


def _micros(text: str) -> str:
    """Us since 1970 as a double. To try a number first takes as long as to read a time: what begins as times do is
    none."""
    number = f"TRY_CAST({text} AS DOUBLE)"
    time = f"epoch_us(TRY_CAST({text} AS TIMESTAMPTZ))"
    return (
        f"CASE WHEN {text} LIKE '____-__-__%' THEN {time} WHEN {number} IS NULL THEN {time} ELSE {_scaled(number)} END"
    )


def _scaled(number: str) -> str:
    return (
        f"CASE WHEN {number} < 1e11 THEN {number} * 1e6 WHEN {number} < 1e14 THEN {number} * 1e3"
        f" WHEN {number} < 1e17 THEN {number} ELSE {number} / 1e3 END"
    )
