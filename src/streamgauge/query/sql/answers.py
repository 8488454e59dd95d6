"""The rows of an answer as bytes, in the format that was asked for.

DuckDB itself writes the text of values: the query is wrapped in one that makes each row one JSON text, or each value
text for CSV. Of numbers those that are not finite, which JSON has not, are texts: "nan", "inf", "-inf".
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from streamgauge.query.collected import Collected
from streamgauge.query.encode import JSON
from streamgauge.query.requests import SqlFormat
from streamgauge.query.sql.database import Column, Session
from streamgauge.query.text import concatenated, join

CONTENT_TYPES = {
    SqlFormat.JSON: JSON,
    SqlFormat.NDJSON: "application/x-ndjson",
    SqlFormat.CSV: "text/csv; charset=utf-8",
    SqlFormat.ARROW: "application/vnd.apache.arrow.stream",
    SqlFormat.PARQUET: "application/vnd.apache.parquet",
}
_NUMBERS = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE"}
)
_GROUP_BYTES = 8 << 20
"""Of the rows that become one row group of a Parquet file, in memory. They are written together."""


def encoded(session: Session, sql: str, form: SqlFormat) -> Iterator[bytes]:
    """The answer to a query. Raises what the session translates."""
    return _ENCODERS[form](session, sql)


def _json(session: Session, sql: str) -> Iterator[bytes]:
    columns = session.columns(sql)
    rows = session.reader(_of_columns(sql, columns, f"json_array({_listed(_json_value, columns)})"))
    shown = [{"name": column.name, "type": column.type} for column in columns]
    yield b'{"status":"success","data":{"columns":' + _dumped(shown) + b',"rows":['
    first = True
    for batch in rows:
        text = concatenated(join(",", _texts(batch)))
        yield text[1:] if first else text
        first = first and not len(batch)
    yield b"]}}"


def _ndjson(session: Session, sql: str) -> Iterator[bytes]:
    columns = session.columns(sql)
    pairs = (f"{_quoted(column.name)}, {_json_value(f'c{n}', column)}" for n, column in enumerate(columns))
    for batch in session.reader(_of_columns(sql, columns, f"json_object({', '.join(pairs)})")):
        yield concatenated(join(_texts(batch), "\n"))


def _csv(session: Session, sql: str) -> Iterator[bytes]:
    columns = session.columns(sql)
    rows = session.reader(_of_columns(sql, columns, _listed(_csv_value, columns)))
    yield ",".join(_csv_name(column.name) for column in columns).encode() + b"\n"
    options = pa.csv.WriteOptions(include_header=False, quoting_style="needed")
    for batch in rows:
        out = io.BytesIO()
        pa.csv.write_csv(batch.rename_columns([str(n) for n in range(len(columns))]), out, options)
        yield out.getvalue()


def _arrow(session: Session, sql: str) -> Iterator[bytes]:
    reader = session.reader(sql)
    out = Collected()
    with pa.ipc.new_stream(out, reader.schema) as writer:
        yield out.take()
        for batch in reader:
            writer.write_batch(batch)
            yield out.take()
    yield out.take()


def _parquet(session: Session, sql: str) -> Iterator[bytes]:
    reader = session.reader(sql)
    out = Collected()
    with pa.parquet.ParquetWriter(pa.PythonFile(out, mode="w"), reader.schema, compression="zstd") as writer:
        held: list[pa.RecordBatch] = []
        for batch in reader:
            held.append(batch)
            if sum(each.nbytes for each in held) >= _GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(held))
                held = []
            yield out.take()
        if held:
            writer.write_table(pa.Table.from_batches(held))
    yield out.take()


_ENCODERS: dict[SqlFormat, Callable[[Session, str], Iterator[bytes]]] = {
    SqlFormat.JSON: _json,
    SqlFormat.NDJSON: _ndjson,
    SqlFormat.CSV: _csv,
    SqlFormat.ARROW: _arrow,
    SqlFormat.PARQUET: _parquet,
}


def _of_columns(sql: str, columns: Sequence[Column], expressions: str) -> str:
    """Expressions over the columns of a query, which are named c0, c1, …: its own names may not be distinct."""
    names = ", ".join(f"c{n}" for n in range(len(columns)))
    return f"SELECT {expressions} FROM ({sql}) AS answer({names})"


def _listed(write: Callable[[str, Column], str], columns: Sequence[Column]) -> str:
    return ", ".join(write(f"c{n}", column) for n, column in enumerate(columns))


def _json_value(name: str, column: Column) -> str:
    if column.type in ("DOUBLE", "FLOAT"):
        return f"CASE WHEN isfinite({name}) THEN to_json({name}) ELSE to_json({name}::VARCHAR) END"
    return _time_text(name, column) or name


def _csv_value(name: str, column: Column) -> str:
    """Numbers stay what they are, so that they are written without quotes; lists and the like are JSON."""
    if column.type in _NUMBERS or column.type.startswith("DECIMAL"):
        return name
    nested = column.type.endswith("]") or column.type.startswith(("STRUCT", "MAP", "UNION"))
    return _time_text(name, column) or (f"to_json({name})::VARCHAR" if nested else f"{name}::VARCHAR")


def _time_text(name: str, column: Column) -> str:
    """Times as RFC 3339 has them, in as few digits as say all of it; "" for what is no time."""
    digits = {"TIMESTAMP WITH TIME ZONE": "%f", "TIMESTAMP": "%f", "TIMESTAMP_NS": "%n"}.get(column.type)
    if digits is None:
        return ""
    text = f"strftime({name}, '%Y-%m-%dT%H:%M:%S.{digits}')"
    zone = "Z" if column.type == "TIMESTAMP WITH TIME ZONE" else ""
    return f"CASE WHEN isfinite({name}) THEN rtrim(rtrim({text}, '0'), '.') || '{zone}' ELSE {name}::VARCHAR END"


def _texts(batch: pa.RecordBatch) -> pa.StringArray:
    return cast(pa.StringArray, batch[0])


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _csv_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(c in name for c in ',"\r\n') or not name else name


def _dumped(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
