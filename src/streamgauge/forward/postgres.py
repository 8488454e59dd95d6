"""Events into PostgreSQL with the reference server's schema. The driver is an extra, imported when it is configured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from streamgauge.errors import DeliveryFailed
from streamgauge.forward.destination import Event, PostgresTarget
from streamgauge.model.events import Stream

CONNECT_SECONDS = 10
STATEMENT_SECONDS = 60
"""Of one statement: a server that hangs is a failure, and tried again."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS streams (
    stream_id serial PRIMARY KEY,
    headers jsonb NOT NULL,
    start_datetime text NOT NULL
);
CREATE TABLE IF NOT EXISTS events (
    stream_event_index integer NOT NULL,
    insert_datetime timestamp NOT NULL,
    payload jsonb NOT NULL,
    stream_id integer NOT NULL REFERENCES streams (stream_id)
);
"""
_STREAM = "INSERT INTO streams (stream_id, headers, start_datetime) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
_EVENT = "INSERT INTO events (stream_event_index, insert_datetime, payload, stream_id) VALUES (%s, %s, %s, %s)"
_MOST = (1 << 31) - 1
"""That the schema's integers hold."""


def check_driver() -> None:
    """Raises DeliveryFailed when there is no driver."""
    _driver()


def _driver() -> Any:
    try:
        import psycopg  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise DeliveryFailed(
            "a destination of the kind postgres needs the package psycopg: pip install 'streamgauge[postgres]'"
        ) from None
    return psycopg


class PostgresOutlet:
    """Implements Outlet: what is given to `write` is one transaction."""

    def __init__(self, target: PostgresTarget) -> None:
        self._driver = _driver()
        password: dict[str, Any] = {}
        if target.password_file is not None:
            try:
                password["password"] = target.password_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise DeliveryFailed(f"{target.password_file} cannot be read: {error}") from None
        with self._translated():
            self._connection = self._driver.connect(
                target.conninfo,
                connect_timeout=CONNECT_SECONDS,
                options=f"-c statement_timeout={STATEMENT_SECONDS}s -c timezone=UTC",
                **password,
            )
        try:
            with self._translated():
                self._connection.execute(_SCHEMA)
                self._connection.commit()
        except BaseException:
            self._connection.close()
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            message = " ".join(str(error).split()) or type(error).__name__
            raise DeliveryFailed(f"PostgreSQL: {message}") from None

    def write(self, streams: Sequence[Stream], events: Sequence[Event]) -> int:
        known = [(stream.id, _text(stream.headers or "{}"), _moment(stream.started)) for stream in streams]
        rows = [
            (event.index, datetime.fromtimestamp(event.received / 1e9, UTC).replace(tzinfo=None), text, event.stream)
            for event in events
            if (text := _text(event.payload)) is not None and event.index <= _MOST and event.stream <= _MOST
        ]
        left_out = len(events) - len(rows)
        try:
            self._insert(known, rows)
        except self._driver.DataError:
            left_out += self._insert_each(known, rows)
        return left_out

    def _insert(self, streams: Sequence[Any], rows: Sequence[Any]) -> None:
        """In one transaction. Raises the driver's DataError for a row that cannot be stored."""
        try:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                cursor.executemany(_STREAM, streams)
                cursor.executemany(_EVENT, rows)
        except self._driver.DataError:
            raise
        except self._driver.Error as error:
            raise DeliveryFailed(f"PostgreSQL: {' '.join(str(error).split())}") from None

    def _insert_each(self, streams: Sequence[Any], rows: Sequence[Any]) -> int:
        """Rows one by one in one transaction, without those that PostgreSQL refuses; how many these are."""
        refused = 0
        with self._translated(), self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany(_STREAM, streams)
            for row in rows:
                try:
                    with self._connection.transaction():
                        cursor.execute(_EVENT, row)
                except self._driver.DataError:
                    refused += 1
        return refused

    def close(self) -> None:
        self._connection.close()


def _text(text: str) -> str | None:
    """None for what is no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return text


def _moment(time: int) -> str:
    return f"{datetime.fromtimestamp(time // 10**9, UTC):%Y-%m-%d %H:%M:%S}"
