"""Which format a file has, and what reads it."""

from __future__ import annotations

import re
from pathlib import Path

from streamgauge.commands.importer.reference import MAGIC
from streamgauge.commands.importer.stream import STDIN, Stream
from streamgauge.errors import BadInput, TooLarge
from streamgauge.wire import snappy
from streamgauge.wire.imported import Reader
from streamgauge.wire.json_lines import JsonLines
from streamgauge.wire.sample_lines import Form, SampleLines
from streamgauge.wire.write_bodies import MAX_BODY_BYTES, MAX_LENGTH_BYTES, WriteBodies, length_at

AUTO, JSON_LINES, REMOTE_WRITE, EVENTS_SQLITE = "auto", "jsonl", "remote-write", "events-sqlite"
FORMATS = (
    AUTO,
    Form.OPENMETRICS.value,
    Form.PROMETHEUS.value,
    JSON_LINES,
    REMOTE_WRITE,
    Form.DUMP.value,
    EVENTS_SQLITE,
)

_LOOK_BYTES = 256 << 10
_TAIL_BYTES = 16
_EARLIEST_MS = 1e11
"""A timestamp below it is in seconds: as ms it would lie before 1973, and as seconds after the year 5000."""

_JSON = re.compile(rb'\s*\{\s*"(?:metric|values|timestamps)"\s*:')
_OBJECT = re.compile(rb'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:')
_DUMP = re.compile(rb'\{[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\.)*"[,}]')
_STAMPED = re.compile(
    rb"^[^#\n][^\n]*[ \t](?:[+-]?[0-9.eE+-]+|NaN|[+-]?Inf)[ \t]+"
    rb"(-?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)[ \t]*(?:# \{[^\n]*)?$",
    re.MULTILINE,
)


def format_of(stream: Stream) -> str:
    """The format of a file by how it begins, or ends. Raises BadInput when it cannot be told."""
    head = stream.peek(_LOOK_BYTES)
    if not head:
        return Form.OPENMETRICS.value
    if head.startswith(MAGIC):
        return EVENTS_SQLITE
    if _JSON.match(head):
        return JSON_LINES
    if _OBJECT.match(head):
        raise BadInput(
            f"{stream.name} holds JSON that is no samples; if these are events, send them to the server: "
            "curl --data-binary @FILE http://127.0.0.1:4318/"
        )
    if _DUMP.match(head):
        return Form.DUMP.value
    if _is_request(head):
        return REMOTE_WRITE
    if b"\0" in head:
        raise BadInput(f"{stream.name} is none of the formats that can be imported: {', '.join(FORMATS[1:])}")
    if head.rstrip().endswith(b"# EOF") or _tail(stream.name).rstrip().endswith(b"# EOF"):
        return Form.OPENMETRICS.value
    stamp = _STAMPED.search(head[: head.rfind(b"\n") + 1] or head)
    if stamp is None:
        return Form.PROMETHEUS.value
    seconds = b"." in stamp[1] or abs(float(stamp[1])) < _EARLIEST_MS
    return Form.OPENMETRICS.value if seconds else Form.PROMETHEUS.value


def reader_of(form: str, time: int | None) -> Reader:
    """What reads a format. time: ms, of samples without one of their own."""
    if form == JSON_LINES:
        return JsonLines()
    if form == REMOTE_WRITE:
        return WriteBodies()
    return SampleLines(Form(form), time)


def _is_request(head: bytes) -> bool:
    """Whether a length stands here, and behind it what may be a snappy block of that fits."""
    try:
        found = length_at(head, 0)
        if found is None or found[0] == 0:
            return False
        length, start = found
        content = snappy.decompressed_length(head[start : start + MAX_LENGTH_BYTES])
        if len(head) >= start + length:
            snappy.decompress(head[start : start + length], MAX_BODY_BYTES)
            return content > 0
    except (BadInput, TooLarge):
        return False
    return len(head) == _LOOK_BYTES and length <= content + content // 6 + 64


def _tail(name: str) -> bytes:
    if name == STDIN or not Path(name).is_file():
        return b""
    with open(name, "rb") as file:
        file.seek(max(0, Path(name).stat().st_size - _TAIL_BYTES))
        return file.read()
