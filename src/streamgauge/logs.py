"""Log lines: text for people, JSON for programs, and text for systemd's journal. All carry the same fields, but for the
time, which the journal keeps itself."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import Literal, TextIO

Form = Literal["text", "json", "journal"]

_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}


_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))
"""Of sd-daemon(3), which are those of syslog, by the least level that has them."""


class _Formatter(logging.Formatter):
    def __init__(self, form: Form) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        moment = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"
        message = record.getMessage()
        extra = {key: value for key, value in record.__dict__.items() if key not in _PLAIN}
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        source = record.name.removeprefix("streamgauge.")
        if self._form == "json":
            line = {"time": moment, "level": record.levelname.lower(), "logger": source, "message": message, **extra}
            if trace:
                line["trace"] = trace
            return json.dumps(line, ensure_ascii=False, default=str)
        fields = "".join(f" {key}={value}" for key, value in extra.items())
        if self._form == "journal":
            lines = [_plain(f"{source}: {message}{fields}"), *trace.splitlines()]
            return "\n".join(journal_priority(record.levelno) + line for line in lines)
        text = f"{moment} {record.levelname:<7} {source}: {message}{fields}"
        return f"{_plain(text)}\n{trace}" if trace else _plain(text)


def journal_priority(level: int) -> str:
    """What tells the journal, at the begin of a line, how severe the line is."""
    return f"<{next(priority for least, priority in _PRIORITIES if level >= least)}>"


def is_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether a stream leads to systemd's journal: it says in the environment which device and inode it gave us, so
    that a stream which was redirected afterwards is told from its own (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no file at all
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _plain(text: str) -> str:
    """On one line and without control characters: a message that quotes a client's input must not be able to forge
    another line, or to command a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def configure(level: str, form: Form, stream: TextIO | None = None) -> None:
    """Send the package's log lines, and those of its libraries from warning up, to `stream` (default: stderr)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Formatter(form))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("streamgauge").setLevel(level.upper())
