"""Log records as events: a handler for `logging`, and a processor for structlog."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from streamgauge.client.encoding import rfc3339, text_of
from streamgauge.client.events import EventWriter, describe_error, with_fields, with_trace
from streamgauge.client.writer import Writer

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Handler(logging.Handler):
    """Sends each record as an event, with what it was given as `extra` and with `fields`, which go with every event.

    `target` is a writer, or a URL for one of its own, which is closed with the handler.
    """

    def __init__(
        self, target: EventWriter | str, level: int | str = logging.NOTSET, fields: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(level)
        self._own: Writer | None = None
        self._writer: EventWriter
        if isinstance(target, str):
            self._writer = self._own = Writer(target)
        else:
            self._writer = target
        self._fields = dict(fields or {})

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event = record_event(record)
            self._writer.write(with_fields(event, self._fields) if self._fields else event)
        except Exception:  # of a record unlike any other
            self.handleError(record)

    def flush(self) -> None:
        """Nothing: `logging` calls this before it closes a handler, and closing delivers."""

    def close(self) -> None:
        if self._own is not None:
            self._own.close()
        super().close()


class StructlogProcessor:
    """Put it into structlog's list of processors, before the one that renders: each entry is sent as an event, and goes
    on unchanged."""

    def __init__(self, writer: EventWriter, clock: Callable[[], int] = time.time_ns) -> None:
        self._writer = writer
        self._clock = clock

    def __call__(self, logger: Any, method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        try:
            self._writer.write(self._event(logger, method, dict(entry)))
        except Exception:
            logging.getLogger(__name__).debug("an entry could not be made an event", exc_info=True)
        return entry

    def _event(self, logger: Any, method: str, entry: dict[str, Any]) -> dict[str, Any]:
        name = entry.pop("logger", None) or getattr(logger, "name", None)
        event: dict[str, Any] = {
            "type": "log",
            "time": entry.pop("timestamp", None) or rfc3339(self._clock()),
            "level": text_of(entry.pop("level", method)).upper(),
            "message": entry.pop("event", ""),
        }
        if name:
            event["logger"] = name
        error = _error_of(entry.pop("exc_info", None))
        if error is not None:
            event["exception"] = describe_error(error)
        with_trace(event)
        return with_fields(event, {key: value for key, value in entry.items() if not key.startswith("_")})


def record_event(record: logging.LogRecord) -> dict[str, Any]:
    """The event of a record."""
    event: dict[str, Any] = {
        "type": "log",
        "time": rfc3339(round(record.created * 1e6) * 1000),
        "level": record.levelname,
        "logger": record.name,
        "message": _message(record),
        "module": record.module,
        "function": record.funcName,
        "line": record.lineno,
        "process": record.process,
        "thread": record.threadName,
    }
    if record.exc_info and record.exc_info[1] is not None:
        event["exception"] = describe_error(record.exc_info[1], record.exc_info[2])
    elif record.exc_text:
        event["exception"] = {"traceback": record.exc_text}
    if record.stack_info:
        event["stack"] = record.stack_info
    with_trace(event)
    members = vars(record)
    extra = [name for name in members if name not in _STANDARD]
    return with_fields(event, {name: members[name] for name in extra}) if extra else event


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # the arguments do not fit the text
        return f"{text_of(record.msg)} {text_of(record.args)}"


def _error_of(info: object) -> BaseException | None:
    """What structlog knows as exc_info: true, an exception, or a tuple of one."""
    if isinstance(info, tuple):
        info = info[1] if len(info) == 3 else None
    elif info is True:
        info = sys.exc_info()[1]
    return info if isinstance(info, BaseException) else None
