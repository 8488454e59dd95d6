"""Answering a query straight from a data folder that no server holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from streamgauge.commands.table import printable
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.dispatch import execute
from streamgauge.query.requests import Job, Query
from streamgauge.store.offline import open_folder


def answer_from(folder: Path, query: Query) -> dict[str, Any]:
    """The envelope that a server would answer with. What is damaged is told on stderr."""
    answer: dict[str, Any] = json.loads(b"".join(pieces_from(folder, query)))
    return answer


def pieces_from(folder: Path, query: Query) -> Iterator[bytes]:
    """The bytes that a server would answer with. What is damaged is told on stderr."""
    with open_folder(folder) as (snapshot, damage):
        for entry in damage:
            click.echo(f"warning: {printable(entry.path)}: {printable(entry.what)}", err=True)
        yield from execute(Job(query), snapshot.open({}), Budget(Limits())).body
