"""`streamgauge inspect`, `check` and `compact`: what works on a data folder, with or without a server on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamgauge.commands.client import ask, server_of, who
from streamgauge.commands.server import Access
from streamgauge.commands.table import printable, table
from streamgauge.commands.times import clock, span
from streamgauge.durations import format_duration
from streamgauge.errors import FolderInUse
from streamgauge.settings import local_url
from streamgauge.store.folder import require_data_folder
from streamgauge.store.lock import holder

if TYPE_CHECKING:
    from streamgauge.store.offline import AllBlocks


def inspect_folder(folder: str, as_json: bool, limit: int, access: Access) -> None:
    """Raises NotFound, FolderInUse and StorageError, as the others below."""
    path = Path(folder)
    require_data_folder(path)
    server = server_of(path, access)
    if server is not None:
        report = ask(server, f"/api/v1/status/inspect?limit={limit}")["data"]
    else:
        report = _inspect_offline(path, limit)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
        return
    click.echo(f"{folder}, " + (f"through the server at {server}" if server else "which no server holds") + "\n")
    for line in _lines(report):
        click.echo(line)


def check_folder(folder: str, access: Access) -> int:
    """Exit code: 0 when every invariant holds, 1 when not."""
    path = Path(folder)
    require_data_folder(path)
    server = server_of(path, access)
    if server is not None:
        problems = ask(server, "/api/v1/status/check", {})["data"]["problems"]
    else:
        from streamgauge.store.verify import check_folder as problems_of

        problems = problems_of(path)
    for problem in problems:
        click.echo(printable(problem))
    click.echo(f"{folder}: {_count(len(problems), 'problem') if problems else 'good'}", err=bool(problems))
    return 1 if problems else 0


def compact_folder(folder: str) -> None:
    """Print what was there before and what is there now."""
    path = Path(folder)
    require_data_folder(path)
    held = holder(path)
    if held is not None and held.address:
        raise FolderInUse(
            f"{folder} is held by the server at {local_url(held.address, held.tls)} ({who(held)}), which compacts it "
            "by itself; stop the server to do it now"
        )
    from streamgauge.store.offline import compact_folder as compacted

    before, after = asyncio.run(compacted(path))
    click.echo(f"before: {_described(before)}")
    click.echo(f"after:  {_described(after)}")


def _described(blocks: AllBlocks) -> str:
    samples, events = blocks.samples, blocks.events
    line = _totals(len(samples), sum(meta.samples for meta in samples), sum(meta.bytes for meta in samples))
    if events:
        size = sum(meta.bytes for meta in events)
        line += f"; {_event_totals(len(events), sum(meta.events for meta in events), size)}"
    return line


def _inspect_offline(path: Path, limit: int) -> dict[str, Any]:
    from streamgauge.model.source import NoMeter
    from streamgauge.query.cardinality import cardinality
    from streamgauge.store.offline import open_folder
    from streamgauge.store.report import report

    with open_folder(path) as (snapshot, damage):
        commits = [meta.last_commit for meta in snapshot.blocks] + [meta.last_commit for meta in snapshot.events.blocks]
        series = snapshot.open({}).series([], -(1 << 62), 1 << 62, NoMeter())
        return report(
            snapshot.blocks,
            snapshot.head.rows,
            len(series),
            snapshot.commit,
            max(commits, default=0),
            damage,
            cardinality(series, limit),
            snapshot.tombstones,
            snapshot.events.blocks,
            sum(run.rows for run in snapshot.events.head.runs),
        )


def _lines(report: dict[str, Any]) -> Iterator[str]:
    blocks, head = report["blocks"], report["head"]
    if blocks:
        rows = [
            (
                block["id"] + _kind(block),
                clock(block["min_time"]),
                clock(block["max_time"]),
                f"{block['series']:,}",
                f"{block['samples']:,}",
                f"{block['bytes']:,}",
                f"{block['bytes'] / max(block['samples'], 1):.2f}",
                str(block["level"]),
            )
            for block in blocks
        ]
        headings = ("block", "from (UTC)", "to (UTC)", "series", "samples", "bytes", "bytes/sample", "level")
        yield from table(headings, rows, numbers=range(3, 8))
        yield ""
    yield from _event_table(report)
    samples, size = sum(block["samples"] for block in blocks), sum(block["bytes"] for block in blocks)
    yield f"In blocks: {_totals(len(blocks), samples, size)}"
    if events := report.get("event_blocks", []):
        size = sum(block["bytes"] for block in events)
        yield f"In {_event_totals(len(events), sum(block['events'] for block in events), size)}"
    yield f"In the log, not in blocks yet: {_count(head['samples'], 'sample')}{_held_events(head)}"
    yield f"Series: {head['series']:,}"
    yield f"Commits: {report['commit']:,}; blocks hold them up to {report['flushed_through']:,}"
    for tombstone in report["tombstones"]:
        yield (
            f"Deletion {tombstone['id']}, hidden and not yet off the disk: {tombstone['series']:,} series, "
            f"{span(tombstone['min_time'], tombstone['max_time'])}, in {_count(tombstone['blocks'], 'block')} at most"
        )
    for title, key in (
        ("metric", "seriesCountByMetricName"),
        ("label pair", "seriesCountByLabelValuePair"),
        ("label", "labelValueCountByLabelName"),
    ):
        counts = [(row["name"], f"{row['value']:,}") for row in report["cardinality"].get(key, [])]
        if counts:
            yield ""
            yield from table((title, "values" if title == "label" else "series"), counts, numbers=(1,))
    if report["damage"]:
        yield ""
    for damage in report["damage"]:
        yield printable(f"damaged: {damage['path']}: {damage['what']}")


def _event_table(report: dict[str, Any]) -> Iterator[str]:
    """The blocks of events. A server of an earlier version knows none."""
    rows = [
        (
            block["id"],
            clock(block["min_time"]),
            clock(block["max_time"]),
            f"{block['streams']:,}",
            f"{block['events']:,}",
            f"{block['bytes']:,}",
            f"{block['bytes'] / max(block['events'], 1):.1f}",
            str(block["level"]),
        )
        for block in report.get("event_blocks", [])
    ]
    if rows:
        headings = ("block of events", "from (UTC)", "to (UTC)", "streams", "events", "bytes", "bytes/event", "level")
        yield from table(headings, rows, numbers=range(3, 8))
        yield ""


def _held_events(head: dict[str, Any]) -> str:
    held = head.get("events", 0)
    return f"; {_count(held, 'row')} of events and their streams" if held else ""


def _kind(block: dict[str, Any]) -> str:
    """What sets a block apart, behind its name. A server of an earlier version says no resolution."""
    if resolution := block.get("resolution", 0):
        return f" ({format_duration(resolution)})"
    return " (late)" if block["late"] else ""


def _totals(blocks: int, samples: int, size: int) -> str:
    each = f", {size / samples:.2f} bytes a sample" if samples else ""
    return f"{_count(blocks, 'block')}, {_count(samples, 'sample')}, {size:,} bytes{each}"


def _event_totals(blocks: int, events: int, size: int) -> str:
    return f"{_count(blocks, 'block')} of events: {_count(events, 'event')}, {size:,} bytes"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
