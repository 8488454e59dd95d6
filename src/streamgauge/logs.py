"""Log lines: text for people, JSON for programs. Both carry the same fields."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO

_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}


class _Formatter(logging.Formatter):
    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        moment = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"
        message = record.getMessage()
        extra = {key: value for key, value in record.__dict__.items() if key not in _PLAIN}
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        source = record.name.removeprefix("streamgauge.")
        if self._as_json:
            line = {"time": moment, "level": record.levelname.lower(), "logger": source, "message": message, **extra}
            if trace:
                line["trace"] = trace
            return json.dumps(line, ensure_ascii=False, default=str)
        fields = "".join(f" {key}={value}" for key, value in extra.items())
        text = f"{moment} {record.levelname:<7} {source}: {message}{fields}"
        return f"{_plain(text)}\n{trace}" if trace else _plain(text)


def _plain(text: str) -> str:
    """On one line and without control characters: a message that quotes a client's input must not be able to forge
    another line, or to command a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def configure(level: str, form: str, stream: TextIO | None = None) -> None:
    """Send the package's log lines, and those of its libraries from warning up, to `stream` (default: stderr)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Formatter(form == "json"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("streamgauge").setLevel(level.upper())
