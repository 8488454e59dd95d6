"""DuckDB in a query worker: an empty database in memory that reaches nothing outside of itself.

It is opened once a process, which takes 30 ms, and each query gets a connection of its own, which takes none. What a
query makes, views over streams of Arrow batches, is temporary, and goes with its connection.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb
import pyarrow as pa

from streamgauge.errors import BadInput, QueryFailed, StreamgaugeError
from streamgauge.query.budget import Budget

BATCH_ROWS = 20_480
"""Of an answer: ten of DuckDB's vectors."""
_WATCH_SECONDS = 0.05
"""How often it is seen whether the query's time is over."""

_KEPT = "sql"
_NOT_OURS = re.compile(r', "_path_\d+"|"_path_\d+", | Use "SET .*|\n\nPlease try installing(?s:.*)')
"""What DuckDB proposes in errors and is not to be had here: hidden columns, its settings and its extensions."""
_AGGREGATES = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type IN ('aggregate', 'macro')"
"""Of macros some are made of aggregates."""
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_unsigned_extensions": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
    "threads": "1",  # there is a worker for each core
}


@dataclass(frozen=True, slots=True)
class Column:
    """Of an answer. `type` is DuckDB's name of it."""

    name: str
    type: str


class Database:
    """Use `session`."""

    def __init__(self, memory: int) -> None:
        """`memory`: bytes that a query may hold."""
        self.memory = memory
        self._connection = duckdb.connect(":memory:", config={**_CONFIG, "memory_limit": f"{memory}B"})
        self._connection.execute("SET TimeZone = 'UTC'; SET lock_configuration = true")

    def cursor(self) -> duckdb.DuckDBPyConnection:
        return self._connection.cursor()

    @cached_property
    def aggregates(self) -> frozenset[str]:
        """Names of functions that may be over several rows. To ask for them takes 35 ms."""
        rows = self._connection.execute(_AGGREGATES).fetchall()
        return frozenset(str(name) for (name,) in rows)


@contextmanager
def session(kept: MutableMapping[str, object], budget: Budget) -> Iterator[Session]:
    """A connection for one query. The database is `kept` in the process for the next one, unless it has failed.

    What DuckDB raises in it becomes an error of ours. Raises QueryTimeout and QueryCanceled soon after the budget
    would.
    """
    database = kept.get(_KEPT)
    if not isinstance(database, Database) or database.memory != budget.limits.bytes:
        database = kept[_KEPT] = Database(budget.limits.bytes)
    connection = database.cursor()
    opened = Session(connection, budget, database)
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(connection, budget, done), name="query-watch", daemon=True)
    watch.start()
    try:
        yield opened
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        meaning = opened.meaning(error)
        if not isinstance(meaning, StreamgaugeError):
            del kept[_KEPT]  # DuckDB says of itself that it can go on no longer
        raise meaning from error
    except RecursionError as error:
        raise BadInput("the query is nested too deeply") from error
    finally:
        done.set()
        watch.join()
        connection.close()


def _watch(connection: duckdb.DuckDBPyConnection, budget: Budget, done: threading.Event) -> None:
    while not done.wait(_WATCH_SECONDS):
        try:
            budget.check()
        except StreamgaugeError:
            connection.interrupt()


class Stream:
    """Rows that DuckDB reads as often as it scans them. What `read` raises is kept in `failures`."""

    def __init__(
        self, schema: pa.Schema, read: Callable[[], Iterator[pa.RecordBatch]], failures: list[Exception]
    ) -> None:
        self._schema = schema
        self._read = read
        self._failures = failures

    def __arrow_c_schema__(self) -> object:
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        reader: Any = pa.RecordBatchReader.from_batches(self._schema, self._batches())
        return reader.__arrow_c_stream__()

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._read()
        except Exception as error:
            self._failures.append(error)
            raise


class Session:
    """One query's connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, budget: Budget, database: Database) -> None:
        self._database = database
        self._connection = connection
        self._budget = budget
        self._failures: list[Exception] = []

    def is_of_one_row(self, function: str) -> bool:
        """Whether a function is surely no aggregate. `function` is in lower case."""
        return function not in self._database.aggregates

    def add_rows(self, name: str, schema: pa.Schema, read: Callable[[], Iterator[pa.RecordBatch]]) -> None:
        """Rows that are read anew by each scan."""
        self._connection.register(name, Stream(schema, read, self._failures))

    def add_view(self, name: str, sql: str) -> None:
        self._connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {sql}")

    def columns(self, sql: str) -> list[Column]:
        """Of the answer that a query would have."""
        relation = self._connection.sql(sql)
        return [Column(name, str(kind)) for name, kind in zip(relation.columns, relation.types, strict=True)]

    def called(self, function: str, text: str) -> str:
        """What a function makes of a text."""
        [(value,)] = self._connection.execute(f"SELECT {function}(?)", [text]).fetchall()
        return str(value)

    def numbers(self, expressions: Sequence[str]) -> list[int] | None:
        """What constant expressions are; None when one of them is null or cannot be computed."""
        try:
            rows = self._connection.execute(f"SELECT {', '.join(expressions)}").fetchall()
        except duckdb.Error:
            self._budget.check()
            return None
        numbers = list(rows[0])
        return None if None in numbers else [int(number) for number in numbers]

    def reader(self, sql: str) -> pa.RecordBatchReader:
        """The answer, which is computed while it is read."""
        reader: pa.RecordBatchReader = self._connection.sql(sql).to_arrow_reader(BATCH_ROWS)
        return reader

    def meaning(self, error: Exception) -> Exception:
        """The error that stands for one of DuckDB's, or of Arrow's when it reads an answer of DuckDB."""
        if self._failures:
            return self._failures[0]
        self._budget.check()
        if isinstance(error, duckdb.InternalError | duckdb.FatalException):
            return error
        message = _NOT_OURS.sub("", str(error).partition("\n\nLINE ")[0]).strip()
        if isinstance(error, duckdb.OutOfMemoryException) or message.startswith("Out of Memory"):
            limit = self._budget.limits.bytes
            return QueryFailed(f"query needs more than {limit} bytes of memory (--query-max-bytes); narrow it")
        if isinstance(error, duckdb.ProgrammingError | duckdb.NotSupportedError | duckdb.PermissionException):
            return BadInput(message)
        return QueryFailed(message)
