"""Answering a query straight from a data folder that no server holds."""

from __future__ import annotations

import json
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
    with open_folder(folder) as (snapshot, damage):
        for entry in damage:
            click.echo(f"warning: {printable(entry.path)}: {printable(entry.what)}", err=True)
        answer: dict[str, Any] = json.loads(b"".join(execute(Job(query), snapshot.open({}), Budget(Limits())).body))
    return answer
