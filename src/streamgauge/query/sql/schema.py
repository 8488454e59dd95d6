"""The views that there are, and their columns in order; of each, whether it is JSON."""

from __future__ import annotations

from collections.abc import Mapping

_PROMOTED = ("time", "kind", "severity", "trace_id", "span_id", "parent_span_id", "name", "duration_ns")


def _columns(*names: str, json: str = "") -> Mapping[str, bool]:
    return {name: name == json for name in names}


_EVENT = ("stream_id", "stream_event_index", "insert_datetime")

SCHEMA: Mapping[str, Mapping[str, bool]] = {
    "events": _columns(*_EVENT, *_PROMOTED, "payload", json="payload"),
    "logs": _columns(*_EVENT, "time", "severity", "message", "trace_id", "span_id", "payload", json="payload"),
    "spans": _columns(
        *_EVENT, "time", "trace_id", "span_id", "parent_span_id", "name", "duration_ns", "payload", json="payload"
    ),
    "streams": _columns("stream_id", "start_datetime", "transport", "headers", json="headers"),
    "series": _columns("series_id", "name", "labels"),
    "samples": _columns("series_id", "time", "value"),
    "metrics": _columns("name", "labels", "time", "value"),
}
EVENTS = frozenset({"events", "logs", "spans"})
