"""The `host_history:` section of the configuration file: which hosts are sampled each minute, and from what."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from streamgauge.durations import parse_duration
from streamgauge.errors import BadInput, ConfigError
from streamgauge.model.host_history import MINUTE_MS, HostSettings, HostSource
from streamgauge.model.host_sources import SOURCES

MAX_SOURCES = 32
"""Each is up to four queries a minute."""
MAX_HOSTS = 10_000
"""Four series each. In a round of so many the loop works for a quarter of a second, in slices."""
SHORTEST_MS, LONGEST_MS = 1_000, 3_600_000
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_TAKEN = frozenset({"__name__", "host", "le"})
"""Labels that samples or their sources have for something else."""
_UNITS = {"s": 1000.0, "ms": 1.0, "us": 0.001, "ns": 0.000001}

Complain = Callable[[tuple[str | int, ...], str], ConfigError]


def _interval(value: object) -> int:
    try:
        interval = parse_duration(str(value))
    except BadInput as error:
        raise ValueError(error.message) from None
    if not SHORTEST_MS <= interval <= LONGEST_MS:
        raise ValueError("expected a duration from 1s to 1h")
    return interval


def _labels(value: object) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and _LABEL.fullmatch(name) for name in names):
        raise ValueError("expected the name of a label, or a list of them")
    return tuple(dict.fromkeys(names))


def _unit(value: object) -> float:
    """In ms."""
    if value not in _UNITS:
        raise ValueError(f"expected one of {', '.join(_UNITS)}")
    return _UNITS[str(value)]


Labels = Annotated[tuple[str, ...], BeforeValidator(_labels)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=False)


class SourceSection(_Section):
    name: Annotated[str, Field(min_length=1, max_length=64)]
    host: Labels
    requests: Annotated[str, Field(min_length=1)]
    errors: str = ""
    latency: str = ""
    unit: Annotated[float, BeforeValidator(_unit)] = Field(1000.0, alias="latency-unit")
    backends: str = ""


def _described(value: object) -> object:
    """A name as the entry of the table that it stands for."""
    if not isinstance(value, str):
        return value
    if value not in SOURCES:
        raise ValueError(f'"{value}" is none of {", ".join(SOURCES)}; describe one of your own')
    return SourceSection.model_construct(**asdict(SOURCES[value]))


class HostHistorySection(_Section):
    interval: Annotated[int, BeforeValidator(_interval)] = MINUTE_MS
    sources: Annotated[list[Annotated[SourceSection, BeforeValidator(_described)]], Field(min_length=1)] | None = None
    by: Labels = ()
    max_hosts: Annotated[int, Field(ge=1, le=MAX_HOSTS)] = Field(1000, alias="max-hosts")


def host_settings(section: HostHistorySection | None, complain: Complain) -> HostSettings | None:
    """None where nothing is sampled. Raises ConfigError."""
    if section is None:
        return None
    if taken := _TAKEN.intersection(section.by):
        raise complain(("host_history", "by"), f"host_history.by: {min(taken)} is no label that can be kept")
    sources = tuple(SOURCES.values()) if section.sources is None else tuple(map(_source, section.sources))
    if len(sources) > MAX_SOURCES:
        raise complain(("host_history", "sources"), f"host_history.sources: the limit is {MAX_SOURCES}")
    if len({source.name for source in sources}) < len(sources):
        raise complain(("host_history", "sources"), "host_history.sources: two have the same name")
    return HostSettings(section.interval, sources, section.by, section.max_hosts)


def _source(given: SourceSection) -> HostSource:
    return HostSource(given.name, given.host, given.requests, given.errors, given.latency, given.unit, given.backends)
