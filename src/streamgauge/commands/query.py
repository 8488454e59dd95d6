"""`streamgauge query`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from streamgauge.commands.client import ask
from streamgauge.commands.place import place_of
from streamgauge.commands.server import Access, Server
from streamgauge.commands.show import show
from streamgauge.commands.table import printable
from streamgauge.commands.times import milliseconds, seconds
from streamgauge.commands.times import moment as as_moment
from streamgauge.durations import parse_duration
from streamgauge.errors import BadInput

DEFAULT_POINTS = 200
HOUR_MS = 3_600_000


def run_query(
    expression: str,
    form: str | None,
    moment: str | None,
    server: str | None,
    data: str | None,
    start: str | None,
    end: str | None,
    step: str | None,
    access: Access,
) -> None:
    """Evaluate and print. Warnings and infos go to stderr."""
    if form is None:
        form = "table" if sys.stdout.isatty() else "json"
    parameters = _parameters(form, moment, start, end, step)
    answer = _answer(expression, parameters, place_of(server, data, access=access))
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
        return {"time": seconds(as_moment(moment, now) if moment else now)}
    if moment is not None:
        raise click.UsageError("--time asks for one moment; --start, --end, --step and graph ask for a range")
    last = as_moment(end, now) if end else now
    first = as_moment(start, now) if start else last - HOUR_MS
    if last < first:
        raise click.UsageError("--end is before --start")
    width = _step(step) if step else max(1000, -(-(last - first) // DEFAULT_POINTS // 1000) * 1000)
    return {"start": seconds(first), "end": seconds(last), "step": seconds(width)}


def _answer(expression: str, parameters: dict[str, str], place: Server | Path) -> dict[str, Any]:
    if isinstance(place, Path):
        return _from_folder(place, expression, parameters)
    path = "/api/v1/query_range" if "step" in parameters else "/api/v1/query"
    answer: dict[str, Any] = ask(place, path, {"query": expression, **parameters})
    return answer


def _from_folder(folder: Path, expression: str, parameters: dict[str, str]) -> dict[str, Any]:
    from streamgauge.commands.offline import answer_from
    from streamgauge.query.requests import InstantQuery, RangeQuery

    moments = {name: round(float(value) * 1000) for name, value in parameters.items()}
    query = RangeQuery(expression, **moments) if "step" in moments else InstantQuery(expression, **moments)
    return answer_from(folder, query)


def _step(text: str) -> int:
    try:
        width = milliseconds(text)
    except ValueError:
        width = parse_duration(text)
    if width <= 0:
        raise BadInput("--step must be longer than 0")
    return width
