"""The shape of the sections of the configuration file that are about events, which prometheus.yml does not have."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, model_validator

from streamgauge.errors import ConfigError
from streamgauge.forward.destination import EventDestination, JsonFilesTarget, PostgresTarget, SqliteTarget

if TYPE_CHECKING:
    from streamgauge.prometheus_config import PrometheusConfig

MAX_FILE_BYTES = 100_000_000
"""Of a file of JSON lines, compressed, unless it is configured: some gigabytes of text, which is read in seconds."""
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_KINDS = ("sqlite", "postgres", "json_files")


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


def destinations(
    parsed: PrometheusConfig, folder: Path, complain: Callable[[tuple[str | int, ...], str], ConfigError]
) -> tuple[EventDestination, ...]:
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
