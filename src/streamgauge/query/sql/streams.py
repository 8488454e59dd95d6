"""The view of streams."""

from __future__ import annotations

from streamgauge.model.event_source import EventSource
from streamgauge.query.sql.database import Session
from streamgauge.query.sql.json_values import as_sql
from streamgauge.query.sql.relations import Use, View

_SQL = {
    "stream_id": "stream_id",
    "start_datetime": "make_timestamptz(started // 1000)",
    "transport": "transport",
    "headers": "headers::JSON",
}


def add_streams(session: Session, events: EventSource, view: View) -> None:
    """Put the view into the session's database."""
    streams = events.streams()
    rows = f"{view.name}_rows"
    session.add_rows(rows, streams.schema, lambda: iter(streams.to_batches()))
    shown = [f"{sql} AS {name}" for name, sql in _SQL.items()]
    for (column, path, use), name in view.paths.items():
        text = Use.TEXT if use is Use.NATURAL else Use.NUMBER if use is Use.NUMERIC else use
        shown.append(f"{as_sql(column, path, text)} AS {name}")
    session.add_view(view.name, f"SELECT {', '.join(shown)} FROM {rows}")
