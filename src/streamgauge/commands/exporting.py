"""`streamgauge export`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from streamgauge.commands.exporter.files import FILES, SUFFIXES
from streamgauge.commands.exporter.places import export_place
from streamgauge.commands.exporter.queries import Wanted
from streamgauge.commands.exporter.run import FIRST, LAST, Export
from streamgauge.commands.importer.progress import size_text
from streamgauge.commands.output import whole_file
from streamgauge.commands.place import place_of
from streamgauge.commands.progress import ShareBar
from streamgauge.commands.server import Access
from streamgauge.commands.times import moment
from streamgauge.query.promql.parser import parse_selector

EVENTS, SAMPLES = KINDS = ("events", "samples")


def run_export(
    kind: str,
    selectors: Sequence[str],
    where: str | None,
    start: str | None,
    end: str | None,
    form: str | None,
    output: str,
    server: str | None,
    data: str | None,
    access: Access,
) -> None:
    """Write the file `output`, which appears when it is whole, and say what is in it."""
    if kind == EVENTS and selectors:
        raise click.UsageError("a SELECTOR selects samples; of events say --where CONDITION")
    form = form or SUFFIXES.get(Path(output).suffix.lower())
    if form is None:
        raise click.UsageError(f"{output} does not tell the format; give --format")
    now = time.time_ns() // 1_000_000
    first = max(moment(start, now), FIRST) if start else FIRST
    last = min(moment(end, now), LAST - 1) if end else LAST - 1
    if last < first:
        raise click.UsageError("--end is before --start")
    wanted = Wanted(kind == EVENTS, [parse_selector(selector) for selector in selectors], where or "")
    bar = ShareBar(output, sys.stderr.isatty(), time.monotonic)
    try:
        with export_place(place_of(server, data, access=access)) as place, whole_file(output) as out:
            file = FILES[form](out)
            Export(place, wanted, Path(output).absolute().parent, bar.update).run(first, last + 1, file, out)
            rows, size = file.rows, out.tell()
    finally:
        bar.clear()
    click.echo(f"{output}: {rows:,} {kind}, {size_text(size)}", err=True)
