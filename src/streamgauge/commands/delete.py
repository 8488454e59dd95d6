"""`streamgauge delete`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import click

from streamgauge.commands.client import ask
from streamgauge.commands.place import place_of
from streamgauge.commands.server import Access, Server
from streamgauge.commands.table import printable
from streamgauge.commands.times import EARLIEST, LATEST, moment, seconds, span

COUNTED = 100_000
"""Series that are counted before a deletion; of more it is only said that they are more."""


def run_delete(
    selectors: Sequence[str],
    start: str | None,
    end: str | None,
    server: str | None,
    data: str | None,
    yes: bool,
    access: Access,
) -> int:
    """Say what will be deleted, ask, and delete it. Exit code: 1 when the answer is no."""
    now = time.time_ns() // 1_000_000
    first = moment(start, now) if start else EARLIEST
    last = moment(end, now) if end else LATEST
    if last < first:
        raise click.UsageError("--end is before --start")
    place = place_of(server, data, access=access)
    series = _count(place, selectors, first, last)
    if not series:
        click.echo("No series that match have samples in that range: there is nothing to delete.")
        if list(selectors) == ["events"]:
            click.echo("Events are deleted by a condition: streamgauge delete events --where CONDITION")
        return 0
    click.echo(f"{place}: samples {span(first, last)} of {_number(series)} that match")
    for selector in selectors:
        click.echo(f"  {printable(selector)}")
    if not yes and not click.confirm("Delete them for good?"):
        click.echo("Nothing was deleted.")
        return 1
    click.echo(_delete(place, selectors, first, last))
    return 0


def _count(place: Server | Path, selectors: Sequence[str], first: int, last: int) -> int:
    """How many series have samples in the range; above COUNTED where they are more."""
    if isinstance(place, Path):
        return _count_in_folder(place, selectors, first, last)
    parameters = {**_parameters(selectors, first, last), "limit": str(COUNTED + 1)}
    return len(ask(place, "/api/v1/series", parameters)["data"])


def _count_in_folder(folder: Path, selectors: Sequence[str], first: int, last: int) -> int:
    from streamgauge.model.source import NoMeter
    from streamgauge.query.promql.parser import parse_selector
    from streamgauge.store.offline import open_folder

    matcher_sets = [parse_selector(selector) for selector in selectors]
    with open_folder(folder) as (snapshot, damage):
        for entry in damage:
            click.echo(f"warning: {printable(entry.path)}: {printable(entry.what)}", err=True)
        return len(snapshot.open({}).series(matcher_sets, first, last, NoMeter(), ()))


def _delete(place: Server | Path, selectors: Sequence[str], first: int, last: int) -> str:
    """Delete, and say what was done."""
    if isinstance(place, Server):
        ask(place, "/api/v1/admin/tsdb/delete_series", _parameters(selectors, first, last))
        return (
            "Deleted: no query sees these samples any more. The server takes them off the disk within minutes; "
            "POST /api/v1/admin/tsdb/clean_tombstones does so at once."
        )
    from streamgauge.query.promql.parser import parse_selector
    from streamgauge.store.offline import delete_in_folder

    matcher_sets = [parse_selector(selector) for selector in selectors]
    deleted, samples = asyncio.run(delete_in_folder(place, matcher_sets, first, last))
    return f"Deleted {samples:,} samples of {_number(deleted.series)}. They are off the disk."


def _parameters(selectors: Sequence[str], first: int, last: int) -> dict[str, str | Sequence[str]]:
    """Those of the HTTP API. An open end is left out."""
    bounds = {"start": (first, EARLIEST), "end": (last, LATEST)}
    given = {name: seconds(bound) for name, (bound, absent) in bounds.items() if bound != absent}
    return {"match[]": list(selectors), **given}


def _number(series: int) -> str:
    """Series as a word: it is the same for one and for many."""
    return f"more than {COUNTED:,} series" if series > COUNTED else f"{series:,} series"
