"""`streamgauge delete events`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from streamgauge.commands.client import ask
from streamgauge.commands.place import place_of
from streamgauge.commands.server import Access, Server
from streamgauge.commands.table import printable


def run_delete_events(condition: str, server: str | None, data: str | None, yes: bool, access: Access) -> int:
    """Say how many events will be deleted, ask, and delete them. Exit code: 1 when the answer is no."""
    from streamgauge.event_rules import check_condition

    check_condition(condition)
    place = place_of(server, data, access=access)
    count = _count(place, condition)
    if not count:
        click.echo("No event fulfils that: there is nothing to delete.")
        return 0
    click.echo(f"{place}: {_events(count)} where {printable(condition)}")
    if not yes and not click.confirm("Delete them for good?"):
        click.echo("Nothing was deleted.")
        return 1
    deleted = _delete(place, condition)
    click.echo(f"Deleted {_events(deleted)}. {'It is' if deleted == 1 else 'They are'} off the disk.")
    return 0


def _count(place: Server | Path, condition: str) -> int:
    query = f"SELECT count(*) FROM events WHERE (\n{condition}\n)"
    if isinstance(place, Server):
        headers = {"Content-Type": "application/sql"}
        answer = ask(place, "/api/v1/sql", body=query.encode(), headers=headers)
    else:
        from streamgauge.commands.offline import answer_from
        from streamgauge.query.requests import SqlQuery

        answer = answer_from(place, SqlQuery(query))
    return int(answer["data"]["rows"][0][0])


def _delete(place: Server | Path, condition: str) -> int:
    if isinstance(place, Server):
        return int(ask(place, "/api/v1/admin/events/delete", {"where": condition})["data"]["events"])
    from streamgauge.event_rules import conditions
    from streamgauge.store.offline import delete_events_in_folder

    return asyncio.run(delete_events_in_folder(place, condition, conditions()))


def _events(count: int) -> str:
    return f"{count:,} event{'s' * (count != 1)}"
