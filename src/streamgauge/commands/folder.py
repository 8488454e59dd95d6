"""`streamgauge inspect`, `check` and `compact`: what works on a data folder, with or without a server on it."""

from __future__ import annotations

import asyncio
import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamgauge.commands.client import ask, server_of
from streamgauge.errors import FolderInUse, NotFound
from streamgauge.store.lock import holder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamgauge.store.ports import BlockMeta

if TYPE_CHECKING:
    pass


def inspect_folder(folder: str, as_json: bool, limit: int) -> None:
    path = _existing(folder)
    server = server_of(path)
    if server is not None:
        report = ask(server, f"/api/v1/status/inspect?limit={limit}")["data"]
    else:
        report = _inspect_offline(path, limit)
    if as_json:
        click.echo(json.dumps(report))
    else:
        _show_report(report)


def check_folder(folder: str) -> int:
    """Exit code: 0 when every invariant holds, 1 when not."""
    path = _existing(folder)
    server = server_of(path)
    if server is not None:
        problems = ask(server, "/api/v1/status/check", {})["data"]["problems"]
    else:
        from streamgauge.store.verify import check_folder as problems_of

        problems = problems_of(path)
    for problem in problems:
        click.echo(problem)
    click.echo(f"{folder}: " + (f"{len(problems)} problems" if problems else "good"), err=bool(problems))
    return 1 if problems else 0


def compact_folder(folder: str) -> None:
    path = _existing(folder)
    held = holder(path)
    if held is not None:
        raise FolderInUse(
            f"{folder} is held by the server with process id {held.pid} at {held.address}, which compacts by itself; "
            "stop it first"
        )
    from streamgauge.store.offline import compact_folder as compacted

    before, after = asyncio.run(compacted(path))
    click.echo(f"{folder}: {_described(before)} -> {_described(after)}")


def _described(blocks: Sequence[BlockMeta]) -> str:
    samples, size = sum(meta.samples for meta in blocks), sum(meta.bytes for meta in blocks)
    each = f" ({size / samples:.2f} a sample)" if samples else ""
    return f"{len(blocks)} block{'s' * (len(blocks) != 1)}, {samples} samples, {size} bytes{each}"


def _inspect_offline(path: Path, limit: int) -> dict[str, Any]:
    from streamgauge.query.cardinality import cardinality
    from streamgauge.store.offline import open_folder
    from streamgauge.store.report import report

    with open_folder(path) as (snapshot, damage):
        series = snapshot.open({}).series([], -(1 << 62), 1 << 62)
        return report(
            snapshot.blocks,
            snapshot.head.rows,
            len(series),
            snapshot.commit,
            max((meta.last_commit for meta in snapshot.blocks), default=0),
            damage,
            cardinality(series, limit),
        )


def _existing(folder: str) -> Path:
    path = Path(folder)
    if not path.is_dir():
        raise NotFound(f"there is no folder {folder}")
    return path


def _show_report(report: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    blocks = Table("block", "from", "to", box=box.SIMPLE_HEAD, title="Blocks", title_justify="left")
    for heading in ("series", "samples", "bytes", "bytes/sample", "level"):
        blocks.add_column(heading, justify="right")
    for block in report["blocks"]:
        blocks.add_row(
            block["id"],
            _day(block["min_time"]),
            _day(block["max_time"]),
            f"{block['series']:,}",
            f"{block['samples']:,}",
            f"{block['bytes']:,}",
            f"{block['bytes'] / max(block['samples'], 1):.2f}",
            f"{block['level']}{' late' if block['late'] else ''}",
        )
    console.print(blocks)
    head = report["head"]
    console.print(f"Head: {head['samples']:,} samples. Series: {head['series']:,}.")
    console.print(f"Commits: {report['commit']:,}, in blocks up to {report['flushed_through']:,}.")
    for title, key in (
        ("Metrics by number of series", "seriesCountByMetricName"),
        ("Labels by number of values", "labelValueCountByLabelName"),
        ("Label pairs by number of series", "seriesCountByLabelValuePair"),
    ):
        table = Table(title, box=box.SIMPLE_HEAD)
        table.add_column("count", justify="right")
        for row in report["cardinality"].get(key, []):
            table.add_row(row["name"], f"{row['value']:,}")
        console.print(table)
    for damage in report["damage"]:
        console.print(f"set aside: {damage['path']}: {damage['what']}", markup=False)


def _day(milliseconds: int) -> str:
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
