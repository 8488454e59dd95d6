"""Where an export comes from: a server, or a data folder that none holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import click

from streamgauge.commands.client import ServerUnreachable, ask, asking
from streamgauge.commands.server import Server
from streamgauge.commands.sql import TYPES
from streamgauge.commands.table import printable
from streamgauge.errors import StreamgaugeError
from streamgauge.model.source import Snapshot
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.dispatch import execute
from streamgauge.query.requests import Job, SqlFormat, SqlQuery
from streamgauge.store.offline import open_folder
from streamgauge.store.retention import NS

_PIECE_BYTES = 1 << 18
_LIMITS = "(--query-"
"""In what is said of a query that is beyond a limit: which setting it is."""


class TooMuch(StreamgaugeError):
    """One query cannot answer it; two of which each asks for half may."""


class ExportPlace(Protocol):
    def moments(self, events: bool) -> Sequence[int]:
        """First and last times of blocks, ms: what is in none may be of any time."""

    def rows(self, query: str, parameters: Mapping[str, str | int], form: str) -> Iterator[bytes]:
        """The answer to a SELECT in a format. Raises TooMuch, at any moment, and what the query fails with."""


class ServerPlace:
    """Implements ExportPlace."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def moments(self, events: bool) -> Sequence[int]:
        data = ask(self._server, "/api/v1/status/inspect?limit=1")["data"]
        blocks = data["event_blocks" if events else "blocks"]
        return [block[end] for block in blocks for end in ("min_time", "max_time")]

    def rows(self, query: str, parameters: Mapping[str, str | int], form: str) -> Iterator[bytes]:
        body = json.dumps({"query": query, "params": dict(parameters)}).encode()
        headers = {"Content-Type": "application/json", "Accept": TYPES[form]}
        received = 0
        try:
            with asking(self._server, "/api/v1/sql", body, headers) as response:
                while piece := response.read(_PIECE_BYTES):
                    received += len(piece)
                    yield piece
        except StreamgaugeError as error:
            broke_off = isinstance(error, ServerUnreachable) and received
            if broke_off or _LIMITS in error.message:
                raise TooMuch(error.message) from error
            raise


class FolderPlace:
    """Implements ExportPlace: one state of the folder for all queries."""

    def __init__(self, snapshot: Snapshot, moments: tuple[Sequence[int], Sequence[int]]) -> None:
        """moments: of samples, and of events."""
        self._snapshot = snapshot
        self._moments = moments
        self._kept: MutableMapping[str, object] = {}

    def moments(self, events: bool) -> Sequence[int]:
        return self._moments[events]

    def rows(self, query: str, parameters: Mapping[str, str | int], form: str) -> Iterator[bytes]:
        job = Job(SqlQuery(query, SqlFormat(form), tuple(parameters.items())))
        try:
            yield from execute(job, self._snapshot.open(self._kept), Budget(Limits()), kept=self._kept).body
        except StreamgaugeError as error:
            if _LIMITS in error.message:
                raise TooMuch(error.message) from error
            raise


@contextmanager
def export_place(place: Server | Path) -> Iterator[ExportPlace]:
    """What damage a folder has is told on stderr. Raises what opening it does."""
    if isinstance(place, Server):
        yield ServerPlace(place)
        return
    with open_folder(place) as (snapshot, damage):
        for entry in damage:
            click.echo(f"warning: {printable(entry.path)}: {printable(entry.what)}", err=True)
        samples = [time for meta in snapshot.blocks for time in (meta.min_time, meta.max_time)]
        blocks = snapshot.events.blocks
        events = [time // NS for meta in blocks for time in (meta.min_time, meta.max_time)]
        yield FolderPlace(snapshot, (samples, events))
