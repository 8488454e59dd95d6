"""`streamgauge cardinality`."""

from __future__ import annotations

import datetime
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamgauge.commands.client import ask
from streamgauge.commands.place import place_of
from streamgauge.commands.server import Access
from streamgauge.commands.table import printable, table
from streamgauge.commands.times import moment, seconds
from streamgauge.durations import format_duration, parse_duration
from streamgauge.errors import BadInput

if TYPE_CHECKING:
    from streamgauge.query.requests import GrowthQuery

TOLD = 3
"""Groups that grew and are told of in a sentence of their own."""
_BARS = "▁▂▃▄▅▆▇█"


def run_cardinality(
    selectors: Sequence[str],
    form: str | None,
    server: str | None,
    data: str | None,
    by: str,
    since: str,
    end: str | None,
    order: str,
    limit: int,
    access: Access,
) -> None:
    now = time.time_ns() // 1_000_000
    last = moment(end, now) if end else now
    width = parse_duration(since)
    if width <= 0:
        raise BadInput("--since must be longer than 0")
    place = place_of(server, data, access=access)
    if isinstance(place, Path):
        from streamgauge.commands.offline import answer_from

        answer = answer_from(place, _query(selectors, by, last, width, order, limit))
    else:
        window = {"since": format_duration(width), "end": seconds(last)}
        parameters = {"match[]": list(selectors), "by": by, **window, "order": order, "limit": str(limit)}
        answer = ask(place, "/api/v1/status/cardinality", parameters)
    if (form or ("table" if sys.stdout.isatty() else "json")) == "json":
        click.echo(json.dumps(answer["data"], ensure_ascii=False))
        return
    for line in _lines(answer["data"], by):
        click.echo(line)


def _query(selectors: Sequence[str], by: str, end: int, since: int, order: str, limit: int) -> GrowthQuery:
    from streamgauge.query.requests import DEFAULT_LOOKBACK_MS, GrowthQuery, Order
    from streamgauge.serve.status_api import grouping

    kind, names = grouping(by)
    return GrowthQuery(tuple(selectors), end - since, end, DEFAULT_LOOKBACK_MS, kind, names, Order(order), limit=limit)


def _lines(data: dict[str, Any], by: str) -> Iterator[str]:
    total, groups = data["total"], data["groups"]
    yield f"{total['series']:,} series, {total['active']:,} of them active."
    yield f"Since {_clock(data['start'])}: {total['created']:,} created, {total['ended']:,} ended."
    size = "values" if by == "label" else "series"
    grown = sorted((group for group in groups if group["created"]), key=lambda group: -group["created"])
    for group in grown[:TOLD]:
        yield printable(_told(group, size, by))
    if not groups:
        return
    rows = [
        (
            group["name"],
            f"{group[size]:,}",
            f"{group['active']:,}",
            f"{group['created']:,}",
            f"{group['ended']:,}",
            _clock(group["since"]) if group["since"] is not None else "",
            _bars(group["growth"]),
        )
        for group in groups
    ]
    yield ""
    yield from table((by, size, "active", "created", "ended", "since", "growth"), rows, numbers=range(1, 5))


def _told(group: dict[str, Any], size: str, by: str) -> str:
    """What happened to a group, in a sentence."""
    before = group[size] - group["created"]
    text = f"{by} {group['name']} grew from {before:,} to {group[size]:,} {size} since {_clock(group['since'])}"
    if "label" in group:
        text += f": label {group['label']['name']} has {group['label']['values']:,} values in the new ones"
    if "job" in group:
        text += f"{',' if 'label' in group else ':'} {group['job']['series']:,} are from job {group['job']['value']}"
    return text + "."


def _bars(counts: Sequence[int]) -> str:
    """A bar for each number; the largest has the full height, and one of nothing is blank."""
    largest = max(counts, default=0)
    return "".join(" " if not count else _BARS[(count * len(_BARS) - 1) // largest] for count in counts)


def _clock(seconds: float) -> str:
    """Local time; a time that the calendar does not reach, as its number."""
    try:
        return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.0f}"
