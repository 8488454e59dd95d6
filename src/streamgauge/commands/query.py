"""`streamgauge query`."""

from __future__ import annotations

import datetime
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import click

from streamgauge.commands.client import DEFAULT_SERVER, ask, named, server_of
from streamgauge.commands.show import show
from streamgauge.commands.table import printable
from streamgauge.durations import parse_duration
from streamgauge.errors import BadInput
from streamgauge.settings import BY_NAME
from streamgauge.store.folder import require_data_folder

DEFAULT_POINTS = 200
HOUR_MS = 3_600_000
_MAX_MS = 1 << 53
"""Of a time, either side of 1970: more than any calendar needs, and exact as a float of seconds."""


def run_query(
    expression: str,
    form: str | None,
    moment: str | None,
    server: str | None,
    data: str | None,
    start: str | None,
    end: str | None,
    step: str | None,
) -> None:
    """Evaluate and print. Warnings and infos go to stderr."""
    if form is None:
        form = "table" if sys.stdout.isatty() else "json"
    parameters = _parameters(form, moment, start, end, step)
    answer = _answer(expression, parameters, server, data)
    for note in [*answer.get("warnings", []), *answer.get("infos", [])]:
        click.echo(printable(note), err=True)
    if form == "json":
        click.echo(json.dumps(answer["data"], ensure_ascii=False))
    else:
        show(answer["data"], form, expression, float(parameters.get("step", 0)))


def _parameters(form: str, moment: str | None, start: str | None, end: str | None, step: str | None) -> dict[str, str]:
    """Those of the query API, in seconds."""
    now = time.time_ns() // 1_000_000
    if start is None and end is None and step is None and form != "graph":
        return {"time": _seconds(moment_of(moment, now) if moment else now)}
    if moment is not None:
        raise click.UsageError("--time asks for one moment; --start, --end, --step and graph ask for a range")
    last = moment_of(end, now) if end else now
    first = moment_of(start, now) if start else last - HOUR_MS
    if last < first:
        raise click.UsageError("--end is before --start")
    width = _step(step) if step else max(1000, -(-(last - first) // DEFAULT_POINTS // 1000) * 1000)
    return {"start": _seconds(first), "end": _seconds(last), "step": _seconds(width)}


def _answer(expression: str, parameters: dict[str, str], server: str | None, data: str | None) -> dict[str, Any]:
    """From whom the flags name, else whom the environment names, else a folder or a server in the usual place."""
    server, data = named(server, data)
    if server is None and data is None and Path(BY_NAME["data"].default).is_dir():
        data = BY_NAME["data"].default
    if data is not None:
        folder = Path(data)
        require_data_folder(folder)
        server = server_of(folder)
        if server is None:
            return _from_folder(folder, expression, parameters)
    path = "/api/v1/query_range" if "step" in parameters else "/api/v1/query"
    answer: dict[str, Any] = ask(server or DEFAULT_SERVER, path, {"query": expression, **parameters})
    return answer


def _from_folder(folder: Path, expression: str, parameters: dict[str, str]) -> dict[str, Any]:
    from streamgauge.query.budget import Budget, Limits
    from streamgauge.query.dispatch import execute
    from streamgauge.query.requests import InstantQuery, Job, RangeQuery
    from streamgauge.store.offline import open_folder

    moments = {name: round(float(value) * 1000) for name, value in parameters.items()}
    query = RangeQuery(expression, **moments) if "step" in moments else InstantQuery(expression, **moments)
    with open_folder(folder) as (snapshot, damage):
        for entry in damage:
            click.echo(f"warning: {printable(entry.path)}: {printable(entry.what)}", err=True)
        answer: dict[str, Any] = json.loads(b"".join(execute(Job(query), snapshot.open({}), Budget(Limits())).body))
    return answer


def moment_of(text: str, now: int) -> int:
    """ms of Unix seconds, RFC 3339, `now`, or a duration before now such as -5m."""
    if text == "now":
        return now
    if text.startswith("-") and text[1:2].isdigit() and text[-1:].isalpha():
        return now - parse_duration(text[1:])
    try:
        return _milliseconds(text)
    except ValueError:
        pass
    try:
        moment = datetime.datetime.fromisoformat(text)
        return round((moment if moment.tzinfo else moment.astimezone()).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise BadInput(f'"{text}" is not a time; write Unix seconds, 2026-01-31T12:00:00Z or -5m') from None


def _step(text: str) -> int:
    try:
        width = _milliseconds(text)
    except ValueError:
        width = parse_duration(text)
    if width <= 0:
        raise BadInput("--step must be longer than 0")
    return width


def _milliseconds(text: str) -> int:
    """Of seconds as a number. Raises ValueError, also for one that no time can have."""
    seconds = float(text)
    if not math.isfinite(seconds) or abs(seconds) > _MAX_MS / 1000:
        raise ValueError(text)
    return round(seconds * 1000)


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f}"
