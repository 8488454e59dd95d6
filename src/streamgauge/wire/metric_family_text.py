"""Metric families as Prometheus text, version 0.0.4.

The format spells a summary or a histogram as several lines; here they become one metric again: those of the same
labels, but for `quantile` or `le`, and the same timestamp. Lines of a name without a TYPE line give an untyped family.
Families are in order of their first line.

Specification: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field

from streamgauge.errors import BadInput
from streamgauge.model.text_format import PLAIN_LABEL, PLAIN_METRIC, escaped
from streamgauge.wire.exposition_text import (
    Note,
    SampleLine,
    read_note,
    read_sample,
    read_stamp,
    read_value,
    sample_float,
    shown,
)
from streamgauge.wire.metric_family import (
    Histogram,
    Labels,
    Metric,
    MetricFamily,
    MetricType,
    Summary,
    at_once,
    samples_of,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

PAUSE_LINES = 128
"""Lines that are read before other tasks get their turn: about a millisecond."""

_TYPES = {
    b"counter": MetricType.COUNTER,
    b"gauge": MetricType.GAUGE,
    b"summary": MetricType.SUMMARY,
    b"untyped": MetricType.UNTYPED,
    b"histogram": MetricType.HISTOGRAM,
}
_WORDS: dict[int, str] = {kind: word.decode() for word, kind in _TYPES.items()}
_WORDS[MetricType.GAUGE_HISTOGRAM] = "histogram"
_SUFFIXES = {
    MetricType.SUMMARY: (b"_count", b"_sum"),
    MetricType.HISTOGRAM: (b"_count", b"_sum", b"_bucket"),
}
_MAX_COUNT = 1 << 64


def decode(body: bytes) -> Generator[None, None, list[MetricFamily]]:
    """The families of a body; yields now and then, so that other tasks get their turn.

    Raises BadInput, naming the line, for what is no such text, and for a name or a text that a metric cannot have.
    """
    families: dict[bytes, _Family] = {}
    for number, line in enumerate(body.split(b"\n"), 1):
        try:
            _read_line(line, families)
        except BadInput as error:
            raise BadInput(f"line {number}: {error.message}") from None
        if number % PAUSE_LINES == 0:
            yield
    return [family.whole() for family in families.values()]


def decode_now(body: bytes) -> list[MetricFamily]:
    """`decode` at once, where nobody else waits for a turn."""
    return at_once(decode(body))


@dataclass(slots=True)
class _Parts:
    """What is known so far of a summary or a histogram. `at`: its place among the family's metrics."""

    at: int
    count: int = 0
    sum: float = 0.0
    inner: list[tuple[float, float]] = field(default_factory=list)


@dataclass(slots=True)
class _Family:
    name: bytes
    said: MetricType | None = None  # by a TYPE line
    help: str = ""
    metrics: list[Metric] = field(default_factory=list)
    parts: dict[tuple[Labels, int | None], _Parts] = field(default_factory=dict)

    @property
    def kind(self) -> MetricType:
        return MetricType.UNTYPED if self.said is None else self.said

    def whole(self) -> MetricFamily:
        for (labels, stamp), parts in self.parts.items():
            value: Summary | Histogram
            if self.kind is MetricType.SUMMARY:
                value = Summary(parts.count, parts.sum, tuple(parts.inner))
            else:
                value = Histogram(parts.count, parts.sum, tuple((bound, int(count)) for bound, count in parts.inner))
            self.metrics[parts.at] = Metric(labels, self.kind, value, stamp)
        return MetricFamily(self.name.decode(), self.kind, tuple(self.metrics), self.help)

    def parts_of(self, labels: Labels, stamp: int | None) -> _Parts:
        parts = self.parts.get((labels, stamp))
        if parts is None:
            parts = self.parts[labels, stamp] = _Parts(len(self.metrics))
            self.metrics.append(Metric(labels, self.kind, None, stamp))  # its place, until all its lines are read
        return parts


def _read_line(line: bytes, families: dict[bytes, _Family]) -> None:
    start = line.lstrip(b" \t")
    if start.startswith(b"#"):
        note = read_note(line)
        if note is not None:
            _take_note(note, _family(note.metric, families))
    elif start:
        _take_sample(read_sample(line), families)


def _take_note(note: Note, family: _Family) -> None:
    if note.what == b"HELP":
        family.help = note.text.decode(errors="replace")
        return
    kind = _TYPES[note.text]
    if family.said not in (None, kind) or (family.said is None and family.metrics):
        raise BadInput(f"the type of {shown(note.metric)} is given after samples of it, or again and another")
    family.said = kind


def _take_sample(line: SampleLine, families: dict[bytes, _Family]) -> None:
    name = line.pairs[0][1]
    value = read_value(line.value)
    stamp = None if line.timestamp is None else read_stamp(line.timestamp)
    owner, suffix = _owner(name, families)
    number = {MetricType.SUMMARY: b"quantile", MetricType.HISTOGRAM: b"le"}.get(owner.kind)
    if number is None:
        owner.metrics.append(Metric(_labels(line), owner.kind, value, stamp))
        return
    parts = owner.parts_of(_labels(line, number), stamp)
    inner = next((text for key, text in line.pairs if key == number), None)
    if suffix == b"_sum":
        parts.sum = value
    elif suffix == b"_count":
        parts.count = _count(value)
    elif inner is not None and suffix == (b"" if owner.kind is MetricType.SUMMARY else b"_bucket"):
        bound = read_value(inner)
        parts.inner.append((bound, value if owner.kind is MetricType.SUMMARY else _count(value)))
    else:
        raise BadInput(f"{shown(name)} is no part of the {_WORDS[owner.kind]} of that name")


def _owner(name: bytes, families: dict[bytes, _Family]) -> tuple[_Family, bytes]:
    """The family that a line of that name belongs to, and what its name has behind that of the family."""
    if name not in families:
        for suffix in (b"_count", b"_sum", b"_bucket"):
            family = families.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
            if family is not None and suffix in _SUFFIXES.get(family.kind, ()):
                return family, suffix
    return _family(name, families), b""


def _family(name: bytes, families: dict[bytes, _Family]) -> _Family:
    family = families.get(name)
    if family is None:
        if not PLAIN_METRIC.fullmatch(name.decode(errors="replace")):
            raise BadInput(f"no metric can have the name {shown(name)}")
        family = families[name] = _Family(name)
    return family


def _labels(line: SampleLine, without: bytes = b"") -> Labels:
    pairs: list[tuple[str, str | None]] = []
    for name, value in line.pairs[1:]:
        if name == without:
            continue
        text = name.decode(errors="replace")
        if not PLAIN_LABEL.fullmatch(text):
            raise BadInput(f"no label can have the name {shown(name)}")
        try:
            pairs.append((text, value.decode()))
        except UnicodeDecodeError:
            raise BadInput(f"the value of label {shown(name)} is not UTF-8") from None
    return tuple(pairs)


def _count(value: float) -> int:
    if not 0 <= value < _MAX_COUNT:
        raise BadInput(f"{sample_float(value)} is no count")
    return int(value)


def encode(families: Iterable[MetricFamily]) -> Iterator[bytes]:
    """The text, a piece for each family. Raises BadInput for a metric without a value."""
    for family in families:
        name = family.name
        kind = "untyped" if family.type is None else _WORDS.get(family.type, "untyped")
        lines = [f"# HELP {name} {_escaped_help(family.help)}\n"] if family.help else []
        lines.append(f"# TYPE {name} {kind}\n")
        for sample in samples_of(family):
            pairs = ",".join(f'{key}="{escaped(value or "")}"' for key, value in sample.labels)
            braces = f"{{{pairs}}}" if pairs else ""
            stamp = "" if sample.timestamp is None else f" {sample.timestamp}"
            lines.append(f"{sample.name}{braces} {sample_float(sample.value)}{stamp}\n")
        yield "".join(lines).encode()


def _escaped_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
