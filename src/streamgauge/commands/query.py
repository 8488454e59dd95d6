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

from streamgauge.commands.client import ask, whom_to_ask
from streamgauge.commands.show import show
from streamgauge.commands.table import printable
from streamgauge.durations import parse_duration
from streamgauge.errors import BadInput

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
        return {"time": seconds_text(parse_moment(moment, now) if moment else now)}
    if moment is not None:
        raise click.UsageError("--time asks for one moment; --start, --end, --step and graph ask for a range")
    last = parse_moment(end, now) if end else now
    first = parse_moment(start, now) if start else last - HOUR_MS
    if last < first:
        raise click.UsageError("--end is before --start")
    width = _step(step) if step else max(1000, -(-(last - first) // DEFAULT_POINTS // 1000) * 1000)
    return {"start": seconds_text(first), "end": seconds_text(last), "step": seconds_text(width)}


def _answer(expression: str, parameters: dict[str, str], server: str | None, data: str | None) -> dict[str, Any]:
    place = whom_to_ask(server, data)
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


def parse_moment(text: str, now: int) -> int:
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


def seconds_text(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f}"
