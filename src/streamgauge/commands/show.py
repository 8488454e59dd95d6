"""Answers of the query API for people: tables, CSV, and graphs in the terminal."""

from __future__ import annotations

import csv
import datetime
import json
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import click

MAX_GRAPHED = 8
"""More lines than this cannot be told apart in a terminal."""

Row = tuple[dict[str, str], float, str]


def show(data: dict[str, Any], form: str, title: str) -> None:
    """Print the `data` of an answer as table, csv or graph."""
    if form == "graph":
        _graph(data, title)
    elif form == "csv":
        _csv(data)
    else:
        _table(data)


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


def _table(data: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("series", box=box.SIMPLE_HEAD)
    ranged = data["resultType"] == "matrix"
    if ranged:
        table.add_column("time")
    table.add_column("value", justify="right")
    count = 0
    for labels, moment, value in _rows(data):
        time_cell = [Text(_clock(moment))] if ranged else []
        table.add_row(Text(series_name(labels)), *time_cell, Text(value))
        count += 1
    if count == 0:
        click.echo("no data", err=True)
        return
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


def _csv(data: dict[str, Any]) -> None:
    rows = list(_rows(data))
    names = sorted({name for labels, _, _ in rows for name in labels})
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*names, "time", "value"])
    for labels, moment, value in rows:
        writer.writerow([*(labels.get(name, "") for name in names), f"{moment:.3f}", value])


def _graph(data: dict[str, Any], title: str) -> None:
    import plotext as plot

    if data["resultType"] != "matrix" or not data["result"]:
        click.echo("no data", err=True)
        return
    drawn = data["result"][:MAX_GRAPHED]
    columns, lines = shutil.get_terminal_size((100, 30))
    plot.clear_figure()
    plot.theme("clear" if not sys.stdout.isatty() else "default")
    plot.plot_size(min(columns, 160), min(lines - 2, 30))
    plot.title(title)
    moments: list[float] = []
    for series in drawn:
        points = [(m, float(v)) for m, v in series["values"] if v not in ("NaN", "+Inf", "-Inf")]
        moments += [m for m, _ in points]
        plot.plot([m for m, _ in points], [v for _, v in points], label=series_name(series["metric"])[: columns // 2])
    if moments:
        low, high = min(moments), max(moments)
        ticks = [low + (high - low) * i / 4 for i in range(5)] if high > low else [low]
        plot.xticks(ticks, [_clock(tick, high - low) for tick in ticks])
    click.echo(plot.build())
    if (more := len(data["result"]) - len(drawn)) > 0:
        click.echo(f"and {more} more series, not drawn", err=True)


def _clock(seconds: float, span: float = 0.0) -> str:
    """Local time; for an axis only as much as its span needs."""
    moment = datetime.datetime.fromtimestamp(seconds).astimezone()
    if not span:
        return moment.strftime("%Y-%m-%d %H:%M:%S") + f".{int(seconds * 1000) % 1000:03d}"
    return moment.strftime("%H:%M:%S" if span < 86_400 else "%m-%d %H:%M")
