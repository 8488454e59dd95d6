"""Where events can be handed on to, as it is configured, and what each kind does with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from streamgauge.model.events import Stream


@dataclass(frozen=True, slots=True)
class SqliteTarget:
    file: Path


@dataclass(frozen=True, slots=True)
class PostgresTarget:
    """conninfo: as libpq takes it, without the password. password_file: None for what libpq finds by itself."""

    conninfo: str
    password_file: Path | None = None


@dataclass(frozen=True, slots=True)
class JsonFilesTarget:
    """max_bytes: of a compressed file, after which another is begun."""

    folder: Path
    max_bytes: int


@dataclass(frozen=True, slots=True)
class EventDestination:
    name: str
    target: SqliteTarget | PostgresTarget | JsonFilesTarget


@dataclass(frozen=True, slots=True)
class Event:
    stream: int
    index: int
    received: int  # ns
    payload: str  # JSON


class Outlet(Protocol):
    """One destination, open. Used by one thread at a time. Raises DeliveryFailed."""

    def write(self, streams: Sequence[Stream], events: Sequence[Event]) -> int:
        """Store events, and before them the streams that are not stored yet; when this returns they are as safe as the
        destination makes anything. Returns how many it cannot hold, and left out."""

    def close(self) -> None: ...
