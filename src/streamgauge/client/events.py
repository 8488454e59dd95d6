"""What events of logs, spans and errors have in common."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

from streamgauge.client.encoding import text_of
from streamgauge.client.tracing import CURRENT

ErrorInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class EventWriter(Protocol):
    """Where events go: a `Writer`, or what a test has in its place."""

    def write(self, event: object, /) -> bool: ...


def describe_error(error: BaseException, trace: TracebackType | None = None) -> dict[str, str]:
    """An exception as members of an event. Never fails."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    described = {"type": name, "message": text_of(error)}
    try:
        described["traceback"] = "".join(traceback.format_exception(kind, error, trace or error.__traceback__))
    except Exception:  # of an exception that cannot say what it is
        return described
    return described


def with_fields(event: dict[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Add what a program says of its own. The event's own members stay: others of that name go into `extra`."""
    hidden = {}
    for name, value in fields.items():
        if name in event:
            hidden[name] = value
        else:
            event[name] = value
    if hidden:
        event["extra"] = hidden
    return event


def with_trace(event: dict[str, Any]) -> dict[str, Any]:
    """Add the identifiers of the span that the running code is in."""
    current = CURRENT.get()
    if current is not None:
        event["trace"] = {"traceId": current.trace_id, "spanId": current.span_id}
    return event
