r"""One line of the InfluxDB line protocol: what is a key, a field, a value, a time.

    measurement[,tag=value…] field=value[,field=value…] [time]

Specification: https://docs.influxdata.com/influxdb/v1/write_protocols/line_protocol_reference/ and, where it is silent,
what InfluxDB 1.x takes and refuses, in its words. A backslash stands before a comma, a space or an equals sign that is
part of a name, and is itself anywhere else; between double quotes it stands before a quote or a backslash. Line feeds
between quotes end no line. As InfluxDB 2 has it, and 1 has not, an integer may be unsigned (`5u`), and as other servers
take it, a carriage return before the line feed is left out.
"""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass

from streamgauge.errors import BadInput
from streamgauge.wire.exposition_text import Pairs

MAX_LINE_BYTES = 65_536
"""A longer line is left out: this one holds 1,500 fields of usual names."""
MAX_FIELDS = 4_096
"""Of a line: one of so many is read in some milliseconds, and fields of usual names are fewer in the longest line."""
MAX_TAGS = 1_024
"""Of a line, as it is spelled; no more than 256 labels are stored."""
MAX_STAMP_NS = (1 << 63) - 2
"""Either side of 1970, of what InfluxDB takes as a time."""

_KEY = re.compile(rb"(?:[^ ]|(?<=\\) )*+")
_COMMA = re.compile(rb"(?<!\\),")
_EQUALS = re.compile(rb"(?<!\\)=")
_FIELD = re.compile(rb'((?:[^,= ]|(?<=\\)[,= ])*+)=(?:("(?:[^"\\]|\\.)*+")|([^, ]*+))', re.DOTALL)
_ESCAPED = re.compile(rb"\\([,= ])")
_FLOAT = re.compile(rb"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(rb"(-?)0*([0-9]+)i")
_UNSIGNED = re.compile(rb"()0*([0-9]+)u")
_STAMP = re.compile(rb"-?[0-9]{1,40}")
_MAX_DIGITS = 400  # of a number: one with more is no measurement, and takes long to read
BOOLEANS = {
    **dict.fromkeys((b"t", b"T", b"true", b"True", b"TRUE"), 1.0),
    **dict.fromkeys((b"f", b"F", b"false", b"False", b"FALSE"), 0.0),
}
_NUMERIC = b"0123456789-."


class Precision(enum.Enum):
    """What a time counts, in nanoseconds."""

    NANOSECONDS = 1
    MICROSECONDS = 1_000
    MILLISECONDS = 1_000_000
    SECONDS = 1_000_000_000
    MINUTES = 60_000_000_000
    HOURS = 3_600_000_000_000


@dataclass(frozen=True, slots=True)
class Line:
    """key: measurement and tags as they are spelled, and names of fields likewise. Of a field that is text the value is
    None. time: ms, rounded down; None where the line has none."""

    key: bytes
    fields: list[tuple[bytes, float | None]]
    time: int | None


def read_line(line: bytes, precision: Precision) -> Line | None:
    """One line without its line feed; None for a comment or an empty one. The key of a good one is not looked into:
    `read_key` does that. Raises BadInput, in InfluxDB's words."""
    line = line.removesuffix(b"\r").lstrip(b" \t\x00")
    if not line or line.startswith(b"#"):
        return None
    found = _KEY.match(line)
    assert found is not None  # it matches nothing, too
    try:
        fields, at = _fields(line, found.end())
        return Line(found[0], fields, _time(line[at:].strip(b" "), precision))
    except BadInput:
        read_key(found[0])  # what is wrong with that is said rather
        raise


def _fields(line: bytes, at: int) -> tuple[list[tuple[bytes, float | None]], int]:
    """The fields from a space on, and where they end."""
    while line[at : at + 1] == b" ":
        at += 1
    if at == len(line):
        raise BadInput("missing fields")
    fields: list[tuple[bytes, float | None]] = []
    while True:
        found = _FIELD.match(line, at)
        if found is None:
            raise BadInput("invalid field format")
        if not found[1]:
            raise BadInput("missing field key")
        if len(fields) == MAX_FIELDS:
            raise BadInput(f"more than {MAX_FIELDS} fields")
        fields.append((found[1], None if found[2] else _value(found[3])))
        at = found.end()
        if at == len(line) or line.startswith(b" ", at):
            return fields, at
        if not line.startswith(b",", at):
            raise BadInput("invalid field format")
        at += 1


def _value(text: bytes) -> float:
    if not text:
        raise BadInput("missing field value")
    if text.startswith(b'"'):
        raise BadInput("unbalanced quotes")
    if (truth := BOOLEANS.get(text)) is not None:
        return truth
    if len(text) <= _MAX_DIGITS:
        if _FLOAT.fullmatch(text):
            if not math.isfinite(value := float(text)):
                raise BadInput("invalid float")
            return value
        if integer := _INTEGER.fullmatch(text) or _UNSIGNED.fullmatch(text):
            return float(_integer(integer, text.endswith(b"u")))
    raise BadInput("invalid number" if text[0] in _NUMERIC else "invalid boolean")


def _integer(found: re.Match[bytes], unsigned: bool) -> int:
    number = int(found[1] + found[2])
    if not (0 <= number < 1 << 64 if unsigned else -(1 << 63) <= number < 1 << 63):
        raise BadInput(f"unable to parse {'unsigned ' * unsigned}integer {number}: value out of range")
    return number


def _time(text: bytes, precision: Precision) -> int | None:
    if not text:
        return None
    if b" " in text:
        raise BadInput("point is invalid")
    if not _STAMP.fullmatch(text):
        raise BadInput("bad timestamp")
    nanoseconds = int(text) * precision.value
    if abs(nanoseconds) > MAX_STAMP_NS:
        raise BadInput(f"time outside range {-MAX_STAMP_NS} - {MAX_STAMP_NS}")
    return nanoseconds // Precision.MILLISECONDS.value


def read_key(key: bytes) -> tuple[bytes, Pairs]:
    """The measurement, and names and values of tags, in the order in which they are spelled. Raises BadInput."""
    measurement, *tags = _COMMA.split(key, MAX_TAGS + 1)
    if len(tags) > MAX_TAGS:
        raise BadInput(f"more than {MAX_TAGS} tags")
    if not measurement:
        raise BadInput("missing measurement")
    pairs = [_tag(tag) for tag in tags]
    if len({name for name, _ in pairs}) < len(pairs):
        raise BadInput("duplicate tags")
    return plain(measurement), pairs


def _tag(text: bytes) -> tuple[bytes, bytes]:
    name, *values = _EQUALS.split(text, 2)
    if not name:
        raise BadInput("missing tag key")
    if not values or not values[0]:
        raise BadInput("missing tag value")
    if len(values) > 1:
        raise BadInput("invalid tag format")
    return plain(name), plain(values[0])


def plain(text: bytes) -> bytes:
    """A name or the value of a tag without its backslashes."""
    return _ESCAPED.sub(rb"\1", text) if b"\\" in text else text
