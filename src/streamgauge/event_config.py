"""The shape of the sections of the configuration file that are about events, which prometheus.yml does not have."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, model_validator

from streamgauge.derive.rule import DEFAULT_BUCKETS, EventMetric, Kind
from streamgauge.errors import BadInput, ConfigError
from streamgauge.forward.destination import EventDestination, JsonFilesTarget, PostgresTarget, SqliteTarget
from streamgauge.live.filters import EventFilter, event_filter
from streamgauge.model.event_source import Path as Members

if TYPE_CHECKING:
    from streamgauge.prometheus_config import PrometheusConfig

MAX_FILE_BYTES = 100_000_000
"""Of a file of JSON lines, compressed, unless it is configured: some gigabytes of text, which is read in seconds."""
MAX_BUCKETS = 100
"""Of a histogram. Each is a series for each set of labels."""
MAX_RULE_LABELS = 16
"""Of a rule. Each is looked up in every event that counts."""
_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_KINDS = ("sqlite", "postgres", "json_files")

_Place = tuple[str | int, ...]
Complain = Callable[[_Place, str], ConfigError]
"""Makes the error that names the line of a place in the file."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SqliteSection(_Section):
    file: str


class PostgresSection(_Section):
    conninfo: str
    password_file: str | None = None

    @model_validator(mode="after")
    def _no_password(self) -> PostgresSection:
        if re.search(r"password\s*=|://[^/@\s]*:[^/@\s]*@", self.conninfo):
            raise ValueError("conninfo holds a password; put it into a file and name that in password_file")
        return self


class JsonFilesSection(_Section):
    folder: str
    max_file_bytes: int = MAX_FILE_BYTES

    @model_validator(mode="after")
    def _positive(self) -> JsonFilesSection:
        if self.max_file_bytes < 1:
            raise ValueError("max_file_bytes must be above 0")
        return self


class EventDestinationSection(_Section):
    name: str
    sqlite: SqliteSection | None = None
    postgres: PostgresSection | None = None
    json_files: JsonFilesSection | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> EventDestinationSection:
        if not _NAME.fullmatch(self.name):
            raise ValueError("name: write at most 64 letters, digits, underscores and hyphens")
        if sum(getattr(self, kind) is not None for kind in _KINDS) != 1:
            raise ValueError(f"give one of {', '.join(_KINDS)}")
        return self


class EventMetricSection(_Section):
    name: str
    type: str
    value: str | None = None
    buckets: list[float] | None = None
    where: list[str] | None = None
    labels: dict[str, str] | None = None


def destinations(parsed: PrometheusConfig, folder: Path, complain: Complain) -> tuple[EventDestination, ...]:
    """Those that are configured; paths are relative to `folder`. Raises ConfigError for a name that is there twice."""
    found: list[EventDestination] = []
    sections: Sequence[EventDestinationSection] = parsed.event_destinations or ()
    for number, section in enumerate(sections):
        if any(section.name == other.name for other in found):
            raise complain(("event_destinations", number, "name"), f'there are two destinations "{section.name}"')
        found.append(EventDestination(section.name, _target(section, folder)))
    return tuple(found)


def _target(section: EventDestinationSection, folder: Path) -> SqliteTarget | PostgresTarget | JsonFilesTarget:
    if section.sqlite is not None:
        return SqliteTarget(folder / section.sqlite.file)
    if section.json_files is not None:
        return JsonFilesTarget(folder / section.json_files.folder, section.json_files.max_file_bytes)
    assert section.postgres is not None
    file = section.postgres.password_file
    return PostgresTarget(section.postgres.conninfo, None if file is None else folder / file)


def event_metrics(parsed: PrometheusConfig, complain: Complain) -> tuple[EventMetric, ...]:
    """The rules that make metrics of events. Raises ConfigError."""
    found: list[EventMetric] = []
    taken: dict[str, str] = {}
    sections: Sequence[EventMetricSection] = parsed.event_metrics or ()
    for number, section in enumerate(sections):
        reader = _RuleReader(section, ("event_metrics", number), complain)
        rule = reader.rule()
        for name in rule.written_names:
            if name in taken:
                raise reader.error(("name",), f'"{name}" is written by the rule "{taken[name]}" already')
        taken |= dict.fromkeys(rule.written_names, rule.name)
        found.append(rule)
    return tuple(found)


class _RuleReader:
    """Makes a rule of its section. What it raises names the section's line."""

    def __init__(self, section: EventMetricSection, at: _Place, complain: Complain) -> None:
        self._section = section
        self._at = at
        self._complain = complain

    def error(self, key: _Place, message: str) -> ConfigError:
        path = (*self._at, *key)
        return self._complain(path, f"{'.'.join(map(str, path))}: {message}")

    def rule(self) -> EventMetric:
        section = self._section
        if not _METRIC.fullmatch(section.name):
            raise self.error(("name",), f'"{section.name}" is no metric name; write for example http_errors_total')
        kind = self._kind()
        value = self._value(kind)
        buckets = self._buckets(kind)
        return EventMetric(
            section.name, kind, value, buckets, self._where(), tuple(self._labels(kind)), self._help(kind)
        )

    def _kind(self) -> Kind:
        try:
            return Kind(self._section.type)
        except ValueError:
            raise self.error(
                ("type",), f'"{self._section.type}" is none of {", ".join(kind.value for kind in Kind)}'
            ) from None

    def _value(self, kind: Kind) -> Members:
        text = self._section.value
        if kind is Kind.COUNT:
            if text is not None:
                raise self.error(("value",), "a count has none; write type: sum to add up")
            return ()
        if text is None:
            raise self.error(
                (), f"value is missing: where the number is that a {kind.value} is of, such as http.seconds"
            )
        return self._path(("value",), text)

    def _path(self, key: _Place, text: str) -> Members:
        path = tuple(text.split("."))
        if not all(path):
            raise self.error(key, f'"{text}" is no path; write for example http.status')
        return path

    def _buckets(self, kind: Kind) -> tuple[float, ...]:
        given = self._section.buckets
        if kind is not Kind.HISTOGRAM:
            if given is not None:
                raise self.error(("buckets",), f"a {kind.value} has none; write type: histogram")
            return ()
        if given is None:
            return DEFAULT_BUCKETS
        bounds = tuple(given[:-1] if given and given[-1] == math.inf else given)
        if not 1 <= len(bounds) <= MAX_BUCKETS:
            raise self.error(("buckets",), f"write 1 to {MAX_BUCKETS} upper bounds; an infinite one is always added")
        if not all(map(math.isfinite, bounds)) or any(low >= high for low, high in pairwise(bounds)):
            raise self.error(("buckets",), "must be ascending numbers")
        return bounds

    def _where(self) -> EventFilter:
        texts = self._section.where or []
        for number, text in enumerate(texts):
            try:
                event_filter((), (text,), ())
            except BadInput as error:
                raise self.error(("where", number), error.message) from None
        try:
            return event_filter((), texts, ())
        except BadInput as error:
            raise self.error(("where",), error.message) from None

    def _labels(self, kind: Kind) -> Iterator[tuple[str, Members]]:
        given = self._section.labels or {}
        if len(given) > MAX_RULE_LABELS:
            raise self.error(("labels",), f"there may be at most {MAX_RULE_LABELS}")
        reserved = {"job", "instance", *(("le",) if kind is Kind.HISTOGRAM else ())}
        for name, text in sorted(given.items()):
            if not _LABEL.fullmatch(name) or name.startswith("__"):
                raise self.error(("labels", name), f'"{name}" is no label name; write letters, digits and underscores')
            if name in reserved:
                raise self.error(("labels", name), f'the label "{name}" is set by the server; give it another name')
            yield name, self._path(("labels", name), text)

    def _help(self, kind: Kind) -> str:
        what = "Events" if kind is Kind.COUNT else f"{self._section.value} of events"
        where = self._section.where
        return what + (f" with {', '.join(where)}." if where else ".")
