"""Answers of the query API for people: tables, CSV, and graphs in the terminal."""

from __future__ import annotations

import csv
import datetime
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import click

from streamgauge.commands.graph import MOST_SERIES, draw
from streamgauge.commands.table import printable, table

Row = tuple[dict[str, str], float, str]


def show(data: dict[str, Any], form: str, expression: str, step: float) -> None:
    """Print the `data` of an answer as table, csv or graph. `step` is that of a range query, in seconds."""
    if form == "csv":
        _csv(data)
    elif not data["result"]:
        click.echo("no data", err=True)
    elif form == "graph":
        _graph(data, expression, step)
    elif data["resultType"] == "matrix":
        _matrix(data)
    elif data["resultType"] == "vector":
        # The value first: names may be longer than a terminal is wide.
        rows = [(value, series_name(labels)) for labels, _, value in _rows(data)]
        _print(table(("value", "series"), rows, numbers=(0,)))
    else:
        click.echo(printable(data["result"][1]))


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        click.echo(line)


def _rows(data: dict[str, Any]) -> Iterator[Row]:
    """(labels, time in s, value as the API writes it), a series after the other."""
    if data["resultType"] in ("scalar", "string"):
        yield {}, *data["result"]
        return
    for series in data["result"]:
        for moment, value in series.get("values") or [series["value"]]:
            yield series["metric"], moment, value


def series_name(labels: dict[str, str]) -> str:
    """metric{label="value",…}, as in PromQL."""
    rest = ",".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in labels.items() if k != "__name__")
    return labels.get("__name__", "") + (f"{{{rest}}}" if rest or "__name__" not in labels else "")


def _matrix(data: dict[str, Any]) -> None:
    """Each series' name, and below it its values."""
    for series in data["result"]:
        click.echo(printable(series_name(series["metric"])))
        rows = [(_clock(moment), value) for moment, value in series["values"]]
        _print(f"  {line}" for line in list(table(("time", "value"), rows, numbers=(1,)))[1:])


def _csv(data: dict[str, Any]) -> None:
    rows = list(_rows(data))
    names = sorted({name for labels, _, _ in rows for name in labels})
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*names, "time", "value"])
    for labels, moment, value in rows:
        writer.writerow([*(labels.get(name, "") for name in names), f"{moment:.3f}", value])


def _graph(data: dict[str, Any], expression: str, step: float) -> None:
    drawn = []
    for series in data["result"]:
        points = [(moment, float(value)) for moment, value in series["values"] if math.isfinite(float(value))]
        if points:
            drawn.append((series_name(series["metric"]) if series["metric"] else expression, points))
    if not drawn:
        click.echo("no data but NaN and Inf, which cannot be drawn", err=True)
        return
    columns, lines = shutil.get_terminal_size((100, 30))
    shown = drawn[:MOST_SERIES]
    height = min(25, max(6, lines - 4 - len(shown)))
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    for line in draw(shown, step, min(columns, 160), height, colour):
        click.echo(line, color=True if colour else None)
    if len(drawn) > len(shown):
        click.echo(f"and {len(drawn) - len(shown)} more series, not drawn; topk({MOST_SERIES}, …) chooses", err=True)


def _clock(seconds: float) -> str:
    """Local time; milliseconds only where there are some."""
    try:
        moment = datetime.datetime.fromtimestamp(seconds).astimezone()
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.3f}"
    thousandths = round(seconds * 1000) % 1000
    return moment.strftime("%Y-%m-%d %H:%M:%S") + (f".{thousandths:03d}" if thousandths else "")
