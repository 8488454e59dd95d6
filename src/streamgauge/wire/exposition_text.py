"""The Prometheus text format, read line by line: what is a series, a value, a timestamp, a piece of metadata.

Specification: https://prometheus.io/docs/instrumenting/exposition_formats/ and, for quoted names,
https://prometheus.io/docs/instrumenting/escaping_schemes/. Where it is silent, what Prometheus 3 takes is taken:
spaces and tabs anywhere between tokens, a comma after the last label, comments and TYPE lines in any place.

`text_scrape.py` uses this for lines that it sees for the first time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from streamgauge.errors import BadInput
from streamgauge.model.batch import Metadata

NAME = b"__name__"
Pairs = list[tuple[bytes, bytes]]
Unescape = Callable[[bytes], bytes]

MAX_READ_LABELS = 2048
"""Of one series, as it is spelled: relabelling may drop most of them, and no more than 256 are stored. Reading as many
takes some milliseconds."""

TYPES = frozenset((b"counter", b"gauge", b"histogram", b"summary", b"untyped"))
FLOAT_LABELS = {b"histogram": b"le", b"summary": b"quantile"}
"""Labels whose value is a number, by the metric's type: `1` and `1.0` are the same bucket."""

_METRIC = re.compile(rb"[ \t]*([a-zA-Z_:][a-zA-Z0-9_:]*)")
_LABEL = re.compile(
    rb'[ \t]*(?:([a-zA-Z_][a-zA-Z0-9_]*)|"((?:[^\\"]|\\.)*)")[ \t]*(?:=[ \t]*"((?:[^\\"]|\\.)*)"[ \t]*)?'
)
_SIMPLE_LABEL = rb'([a-zA-Z_][a-zA-Z0-9_]*)="([^"\\]*)",?'
_SIMPLE_LABELS = re.compile(rb"(?:%b){0,%d}\}" % (_SIMPLE_LABEL, MAX_READ_LABELS))
_SIMPLE_PAIR = re.compile(_SIMPLE_LABEL)
_TAIL = re.compile(rb"[ \t]*([^{ \t]+)[ \t]*(?:([0-9]+)[ \t]*)?")
_META = re.compile(rb'[ \t]*#[ \t]+(HELP|TYPE)[ \t]+(?:([a-zA-Z_:][a-zA-Z0-9_:]*)|"((?:[^\\"]|\\.)*)")(.*)', re.DOTALL)
_META_START = re.compile(rb"[ \t]*#[ \t]+(HELP|TYPE)[ \t]")
_ESCAPE = re.compile(rb'\\([\\n"])')
_HELP_ESCAPE = re.compile(rb"\\([\\n])")
_UNESCAPED = {b"n": b"\n"}
_NUMBER = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INFINITY = re.compile(rb"[+-]?inf(?:inity)?", re.IGNORECASE)
_MAX_STAMP = (1 << 63) - 1
_STAMP_DIGITS = 19  # of the largest; int() takes its time with many, and raises beyond 4300
_SHOWN = 80  # bytes of a line in a message


@dataclass(frozen=True, slots=True)
class SampleLine:
    """A line that gives a sample. line[:value_at] spells the series, whatever value follows."""

    pairs: Pairs  # __name__ first
    value: bytes
    timestamp: bytes | None
    value_at: int


@dataclass(frozen=True, slots=True)
class Note:
    """A HELP, TYPE or UNIT line; `what` is which of them."""

    what: bytes
    metric: bytes
    text: bytes


def metadata_of(metric: str, texts: Mapping[bytes, bytes]) -> Metadata:
    """What is known of a metric, from the texts of its notes by what they are. What is no UTF-8 is replaced."""
    kind = texts.get(b"TYPE", b"untyped").decode(errors="replace")
    told, unit = (texts.get(what, b"").decode(errors="replace") for what in (b"HELP", b"UNIT"))
    return Metadata(metric, "unknown" if kind == "untyped" else kind, told, unit)


def read_sample(line: bytes) -> SampleLine:
    """Raises BadInput, saying what was expected."""
    pairs, at = read_series(line)
    if not pairs or pairs[0][0] != NAME:
        raise BadInput(f"a metric name was expected: {shown(line)}")
    tail = _TAIL.fullmatch(line, at)
    if tail is None:
        if _TAIL.match(line, at):
            raise BadInput(f"a timestamp in ms, or nothing, was expected after the value: {shown(line)}")
        raise BadInput(f"a value was expected after the series: {shown(line)}")
    return SampleLine(pairs, tail[1], tail[2], tail.start(1))


def read_series(line: bytes, text_of: Unescape | None = None) -> tuple[Pairs, int]:
    """The labels of the series that a line begins with, and where it ends. No labels where it begins with none.

    text_of: what stands between quotes, as text; by the rules of the text format where not given. Raises BadInput.
    """
    at = 0
    pairs: Pairs = []
    if named := _METRIC.match(line):
        pairs.append((NAME, named[1]))
        at = named.end()
    brace = _skip(line, at)
    if line.startswith(b"{", brace):
        at = _labels(line, brace + 1, pairs, text_of or unescape)
    return pairs, at


def _skip(line: bytes, at: int) -> int:
    while line[at : at + 1] in (b" ", b"\t"):
        at += 1
    return at


def _labels(line: bytes, at: int, pairs: Pairs, text_of: Unescape) -> int:
    """Add what stands between braces to `pairs`; where it ends, after the closing brace."""
    simple = _SIMPLE_LABELS.match(line, at)
    if simple is not None:
        pairs += _SIMPLE_PAIR.findall(line, at, simple.end())
        return simple.end()
    while True:
        at = _skip(line, at)
        if line.startswith(b"}", at):
            return at + 1
        found = _LABEL.match(line, at)
        if found is None:
            raise BadInput(f"a label name was expected: {shown(line)}")
        plain, quoted, value = found.groups()
        if len(pairs) > MAX_READ_LABELS:
            raise BadInput(f"a series has more than {MAX_READ_LABELS} labels: {shown(line)}")
        at = found.end()
        comma = line.startswith(b",", at)
        if value is not None:
            pairs.append((plain if plain is not None else text_of(quoted), text_of(value)))
        elif quoted is not None and (comma or line.startswith(b"}", at)):
            if pairs and pairs[0][0] == NAME:
                raise BadInput(f"the metric name is given twice: {shown(line)}")
            pairs.insert(0, (NAME, text_of(quoted)))
        else:
            raise BadInput(f'="value" was expected after the label name: {shown(line)}')
        at += comma


def read_note(line: bytes) -> Note | None:
    """The metadata in a line that begins with #; None for any other comment. Raises BadInput."""
    found = _META.fullmatch(line)
    if found is None:
        if _META_START.match(line):
            raise BadInput(f"a metric name was expected after HELP or TYPE: {shown(line)}")
        return None
    what, plain, quoted, text = found.groups()
    metric = plain if plain is not None else unescape(quoted)
    text = text[1:]
    if what == b"TYPE" and text not in TYPES:
        raise BadInput(f"there is no metric type {shown(text)}: {shown(line)}")
    return Note(what, metric, _HELP_ESCAPE.sub(_unescaped, text) if what == b"HELP" else text)


def read_value(text: bytes) -> float:
    """A number, NaN or an infinity. Raises BadInput for all else, and for what Python takes and Prometheus does not."""
    if _NUMBER.fullmatch(text) or _INFINITY.fullmatch(text) or text.lower() == b"nan":
        return float(text)
    raise BadInput(f"{shown(text)} is no value")


def read_stamp(text: bytes) -> int:
    """A timestamp in ms, digits only. Raises BadInput."""
    digits = text.lstrip(b"0")
    if not text.isdigit() or len(digits) > _STAMP_DIGITS or (stamp := int(digits or b"0")) > _MAX_STAMP:
        raise BadInput(f"{text[:32].decode(errors='backslashreplace')} is no timestamp in ms")
    return stamp


def is_number(text: bytes) -> bool:
    """Whether it is a finite number as `read_value` takes it."""
    return _NUMBER.fullmatch(text) is not None


def normal_float(value: bytes) -> bytes:
    """The value of an `le` or `quantile` label as Prometheus 3 and OpenMetrics write it; what is no number stays."""
    try:
        number = read_value(value)
    except BadInput:
        return value
    return label_float(number).encode()


def normal_pairs(pairs: Pairs, number: bytes | None) -> Pairs:
    """The labels with the value of `number`, the name of a label, in its normal form."""
    if number is None:
        return pairs
    return [(name, normal_float(value) if name == number else value) for name, value in pairs]


def label_float(number: float) -> str:
    """A number in the normal form that it has as the value of a label."""
    if number != number:
        return "NaN"
    if number in (float("inf"), float("-inf")):
        return "+Inf" if number > 0 else "-Inf"
    return go_float(number)


def sample_float(number: float) -> str:
    """A number as Go writes the value of a sample: as that of a label, but for the .0 behind a whole one."""
    return label_float(number).removesuffix(".0")


def go_float(number: float) -> str:
    """A finite number as Go writes its shortest form: with an exponent below 1e-4 and from 1e6 on, and .0 behind a
    whole number."""
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    assert isinstance(exponent, int)
    power = len(digits) + exponent - 1
    if number == 0 or -4 <= power < 6:
        return f"{number or 0.0:.{max(-exponent, 1)}f}"
    mantissa = "".join(map(str, digits))
    fraction = f".{mantissa[1:]}" if len(mantissa) > 1 else ""
    return f"{'-' * sign}{mantissa[0]}{fraction}e{'-' if power < 0 else '+'}{abs(power):02d}"


def unescape(text: bytes) -> bytes:
    return _ESCAPE.sub(_unescaped, text) if b"\\" in text else text


def _unescaped(match: re.Match[bytes]) -> bytes:
    return _UNESCAPED.get(match[1], match[1])


def shown(text: bytes) -> str:
    """The beginning of some bytes as they stand in a message."""
    return f'"{text[:_SHOWN].decode(errors="backslashreplace")}{"…" if len(text) > _SHOWN else ""}"'
