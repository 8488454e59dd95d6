"""OpenMetrics 1.0, line by line: the grammar.

Specification: https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md, and for quoted names
https://prometheus.io/docs/instrumenting/escaping_schemes/. Unlike the text format it has one spelling: single spaces,
no blank lines, no comments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from streamgauge.errors import BadInput
from streamgauge.wire.exposition_text import NAME, Note, Pairs, is_number, read_value, shown, unescape

MAX_EXEMPLAR_CHARACTERS = 128
"""Of the names and values of an exemplar's labels."""
KINDS = (b"unknown", b"counter", b"gauge", b"histogram", b"gaugehistogram", b"summary", b"info", b"stateset")

_NAME = re.compile(rb"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(rb'(?:([a-zA-Z_][a-zA-Z0-9_]*)|"((?:[^\\"]|\\.)*)")(?:="((?:[^\\"]|\\.)*)")?')
_WORD = re.compile(rb"[^ ]+")
_META = re.compile(rb'# (HELP|TYPE|UNIT) (?:([a-zA-Z_:][a-zA-Z0-9_:]*)|"((?:[^\\"]|\\.)*)") (.*)', re.DOTALL)
_MAX_STAMP = float(1 << 62)


@dataclass(frozen=True, slots=True)
class SampleLine:
    """pairs: __name__ first. stamp: ms, None where there is none; seconds: the same as it was written. line[:value_at]
    spells the series. end: where the sample ends, and its exemplar, if it has one, begins."""

    pairs: Pairs
    value: bytes
    value_at: int
    seconds: float | None
    end: int
    exemplar: bool

    @property
    def stamp(self) -> int | None:
        if self.seconds is None:
            return None
        return int(max(-_MAX_STAMP, min(_MAX_STAMP, self.seconds * 1000)))


def read_note(line: bytes) -> Note:
    """The metadata in a line that begins with #. Raises BadInput: no other comments are allowed."""
    found = _META.fullmatch(line)
    if found is None:
        raise BadInput(f"expected # TYPE, # HELP or # UNIT, a metric name and a text: {shown(line)}")
    what, plain, quoted, text = found.groups()
    if what == b"TYPE" and text not in KINDS:
        raise BadInput(f"there is no metric type {shown(text)}: {shown(line)}")
    return Note(what, plain if plain is not None else unescape(quoted), unescape(text) if what == b"HELP" else text)


def read_sample(line: bytes) -> SampleLine:
    """Raises BadInput, saying what was expected."""
    pairs: Pairs = []
    at = 0
    if named := _NAME.match(line):
        pairs.append((NAME, named[0]))
        at = named.end()
    if line.startswith(b"{", at):
        at = _labels(line, at + 1, pairs, names=True)
    if not pairs or pairs[0][0] != NAME:
        raise BadInput(f"expected a metric name: {shown(line)}")
    value_at, at = _word(line, at, "a value")
    value = line[value_at:at]
    read_value(value)
    seconds = None
    if at < len(line) and not line.startswith(b" # {", at):
        start, at = _word(line, at, "a timestamp, an exemplar, or nothing")
        seconds = _seconds(line[start:at])
    end = at
    if at < len(line):
        if not line.startswith(b" # {", at):
            raise BadInput(f"expected an exemplar, or nothing, at the end: {shown(line)}")
        _check_exemplar(line, at + len(b" # {"))
    return SampleLine(pairs, value, value_at, seconds, end, end < len(line))


def _word(line: bytes, at: int, what: str) -> tuple[int, int]:
    """Start and end of the word behind one space."""
    found = _WORD.match(line, at + 1)
    if found is None or not line.startswith(b" ", at):
        raise BadInput(f"expected {what} behind one space: {shown(line)}")
    return found.span()


def _labels(line: bytes, at: int, pairs: Pairs, names: bool = False) -> int:
    """Add what stands between braces to `pairs`; where it ends. names: a quoted metric name may stand among them."""
    first = True
    while not line.startswith(b"}", at) or not first:
        found = _LABEL.match(line, at)
        if found is None:
            raise BadInput(f'expected name="value": {shown(line)}')
        plain, quoted, value = found.groups()
        if value is not None:
            pairs.append((plain if plain is not None else unescape(quoted), unescape(value)))
        elif quoted is not None and names and (not pairs or pairs[0][0] != NAME):
            pairs.insert(0, (NAME, unescape(quoted)))
        else:
            raise BadInput(f'expected ="value" behind a label name: {shown(line)}')
        at = found.end()
        first = False
        if line.startswith(b",", at):
            at += 1
        elif line.startswith(b"}", at):
            break
        else:
            raise BadInput(f"expected a comma or a closing brace behind a label: {shown(line)}")
    return at + 1


def _seconds(word: bytes) -> float:
    if not is_number(word):
        raise BadInput(f"{shown(word)} is no timestamp in seconds")
    return float(word)


def _check_exemplar(line: bytes, at: int) -> None:
    pairs: Pairs = []
    at = _labels(line, at, pairs)
    try:
        size = sum(len(name.decode()) + len(value.decode()) for name, value in pairs)
    except UnicodeDecodeError:
        raise BadInput(f"an exemplar's label is not UTF-8: {shown(line)}") from None
    if size > MAX_EXEMPLAR_CHARACTERS:
        raise BadInput(
            f"an exemplar's labels have {size} characters; the limit is {MAX_EXEMPLAR_CHARACTERS}: {shown(line)}"
        )
    start, at = _word(line, at, "an exemplar's value")
    read_value(line[start:at])
    if at < len(line):
        start, at = _word(line, at, "an exemplar's timestamp")
        _seconds(line[start:at])
    if at < len(line):
        raise BadInput(f"expected nothing behind an exemplar: {shown(line)}")
