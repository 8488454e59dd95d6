"""Columns that are computed from payloads, whatever logging library or tracer wrote them.

docs/sql.md says the same in words, and a test holds it to this table. Of several members the first that is there
counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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


def promoted(column: str, value: Value, received: str) -> str:
    """SQL for one of the columns. `received` is when the event was received, in ns."""
    if column == "time":
        return _time(value, received)
    if column == "severity":
        return f"upper({_first(SEVERITY, value)})"
    if column == "message":
        text = value((), Use.TEXT)
        return f"COALESCE({_first(MESSAGE, value)}, CASE WHEN starts_with({text}, '\"') THEN ({text})::JSON->>'$' END)"
    if column == "duration_ns":
        found = [
            f"{value(path(prefix + name), Use.NUMBER)} * {ns}"
            for prefix in ("", "trace.")
            for name, ns in DURATIONS.items()
        ]
        return f"TRY_CAST(COALESCE({', '.join(found)}) AS BIGINT)"
    return _first(TEXTS[column], value)


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


def _time(value: Value, received: str) -> str:
    """A number is seconds, or by its size ms, us or ns since 1970; a text is read as a time, of UTC where it names no
    zone.

    What is neither, or before 1970 or after 2200, is not the event's time.
    """
    text = _first(TIME, value)
    number = f"TRY_CAST({text} AS DOUBLE)"
    micros = (
        f"CASE WHEN {number} IS NULL THEN epoch_us(TRY_CAST({text} AS TIMESTAMPTZ)) WHEN {number} < 1e11 THEN"
        f" {number} * 1e6 WHEN {number} < 1e14 THEN {number} * 1e3 WHEN {number} < 1e17 THEN {number}"
        f" ELSE {number} / 1e3 END"
    )
    own = f"CASE WHEN ({micros}) BETWEEN 0 AND {_LATEST_US} THEN ({micros})::BIGINT END"
    return f"make_timestamptz(COALESCE({own}, {received} // 1000))"
