"""`streamgauge sql`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import click

from streamgauge.commands.client import asking
from streamgauge.commands.output import whole_file
from streamgauge.commands.place import place_of
from streamgauge.commands.server import Access, Server
from streamgauge.commands.table import table

TYPES = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
_BINARY = ("arrow", "parquet")
_PIECE_BYTES = 1 << 16


def run_sql(
    query: str,
    form: str | None,
    server: str | None,
    data: str | None,
    parameters: Sequence[str],
    output: str | None,
    access: Access,
) -> None:
    """Answer and print, or write to the file `output`, which appears when the answer is whole."""
    if query == "-":
        query = sys.stdin.read()
    terminal = output is None and sys.stdout.isatty()
    if form is None:
        form = "table" if terminal else "ndjson"
    if form in _BINARY and terminal:
        raise click.UsageError(f"{form} is nothing for a terminal; give --output")
    asked = "json" if form == "table" else form
    pieces = _answer(query, parameters, asked, place_of(server, data, access=access))
    if form == "table":
        answer = json.loads(b"".join(pieces))["data"]
        pieces = (f"{line}\n".encode() for line in _table(answer["columns"], answer["rows"]))
    if output is None:
        _write(pieces, sys.stdout.buffer)
        return
    with whole_file(output) as file:
        _write(pieces, file)


def _write(pieces: Iterator[bytes], file: BinaryIO) -> None:
    for piece in pieces:
        file.write(piece)
    file.flush()


def _answer(query: str, parameters: Sequence[str], form: str, place: Server | Path) -> Iterator[bytes]:
    if isinstance(place, Path):
        yield from _from_folder(query, parameters, form, place)
        return
    body = json.dumps({"query": query, "params": list(parameters)}).encode()
    headers = {"Content-Type": "application/json", "Accept": TYPES[form]}
    with asking(place, "/api/v1/sql", body, headers) as response:
        while piece := response.read(_PIECE_BYTES):
            yield piece


def _from_folder(query: str, parameters: Sequence[str], form: str, folder: Path) -> Iterator[bytes]:
    from streamgauge.commands.offline import pieces_from
    from streamgauge.query.requests import SqlFormat, SqlQuery

    named = tuple((str(number), value) for number, value in enumerate(parameters, 1))
    return pieces_from(folder, SqlQuery(query, SqlFormat(form), named))


def _table(columns: Sequence[dict[str, str]], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    names = [column["name"] for column in columns]
    numbers = [index for index, _ in enumerate(columns) if all(_is_number(row[index]) for row in rows)]
    return table(names, [[_cell(value) for value in row] for row in rows], numbers if rows else ())


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: object) -> str:
    """A text as it is, null as nothing, everything else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
