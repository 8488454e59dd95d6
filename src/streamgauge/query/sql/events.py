"""The views of events: for each mention one SELECT over all parts, of the columns that the query asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from streamgauge.model.event_source import Column, EventPart, EventRange, Fixed, Leaf, Node
from streamgauge.query.budget import Budget
from streamgauge.query.sql import event_columns
from streamgauge.query.sql.chosen import Chosen
from streamgauge.query.sql.database import Session
from streamgauge.query.sql.event_columns import NUMBERS, Instant, PartColumns
from streamgauge.query.sql.instants import instants, without_instants
from streamgauge.query.sql.promoted import only, promoted
from streamgauge.query.sql.relations import Path, Use, View

_NATURAL = (Use.NATURAL, Use.NUMERIC)


class EventViews:
    def __init__(self, session: Session, parts: Sequence[EventPart], budget: Budget) -> None:
        self._session = session
        self._parts = parts or [_NoRows()]
        self._budget = budget

    def make(
        self,
        view: View,
        wanted: EventRange,
        chosen: Chosen | None = None,
        some: Sequence[EventPart] | None = None,
    ) -> None:
        """Put a view into the database. Where events are `chosen`, it has no others. some: of the parts, those that the
        view is of, while types of paths are those that they have in all."""
        kinds = self._natural_types(view, replace(wanted, one_of=()))
        parts = self._parts if some is None else some or [_NoRows()]
        if chosen is not None:
            wanted = chosen.within(wanted)
            parts = [part for part in parts if _has_some(part, wanted, chosen)] or [_NoRows()]
        selects = []
        for number, part in enumerate(parts):
            columns = PartColumns(part.node)
            where = only(view.kind, columns.value)
            shown = [f"{self._column(name, columns)} AS {name}" for name in view.columns if name in view.needed]
            for (_, path, use), name in view.paths.items():
                shown.append(f"{_path(columns, path, use, kinds)} AS {name}")
            rows = f"{view.name}_{number}"
            listed = ", ".join(shown) or "NULL AS nothing"
            if not columns.needed:
                columns.fixed(Fixed.INDEX)  # rows are counted by something
            selects.append(f"SELECT {listed} FROM {columns.selected(rows)}" + (f" WHERE {where}" if where else ""))
            self._add(rows, part, columns, wanted, chosen)
        self._session.add_view(view.name, " UNION ALL ".join(selects))

    def _column(self, name: str, columns: PartColumns) -> str:
        match name:
            case "stream_id":
                return columns.fixed(Fixed.STREAM)
            case "stream_event_index":
                return columns.fixed(Fixed.INDEX)
            case "insert_datetime":
                return f"make_timestamptz({columns.fixed(Fixed.RECEIVED)} // 1000)"
            case "payload":
                return columns.value((), Use.JSON)
        return promoted(name, columns)

    def _natural_types(self, view: View, wanted: EventRange) -> Mapping[Path, str]:
        """The type of each path that is wanted as what it is. It is that of all events of that time, whatever else the
        query asks of them."""
        paths = sorted({path for (_, path, use) in view.paths if use in _NATURAL}, key=repr)
        types: dict[Path, set[str]] = {path: set() for path in paths}
        for number, part in enumerate(self._parts if paths else ()):
            columns = PartColumns(part.node)
            asked = {}
            for path in paths:
                types[path] |= columns.known_types(path)
                if (expression := columns.type_in_rest(path)) is not None:
                    asked[path] = expression
            if asked:
                rows = f"{view.name}_types_{number}"
                self._add(rows, part, columns, wanted)
                lists = ", ".join(f"list(DISTINCT {expression})" for expression in asked.values())
                found = self._session.reader(f"SELECT {lists} FROM {columns.selected(rows)}").read_all()
                for path, column in zip(asked, found.columns, strict=True):
                    types[path] |= set(column[0].as_py() or ()) - {None}
        return {path: event_columns.natural(found_types) for path, found_types in types.items()}

    def _add(
        self, name: str, part: EventPart, columns: PartColumns, wanted: EventRange, chosen: Chosen | None = None
    ) -> None:
        rows = _Rows(part, columns, wanted, chosen, self._budget)
        self._session.add_rows(name, rows.schema, rows.read)


class _Rows:
    """Columns of a part, to be read as often as the database scans them."""

    def __init__(
        self, part: EventPart, columns: PartColumns, wanted: EventRange, chosen: Chosen | None, budget: Budget
    ) -> None:
        self._part = part
        self._columns = columns.needed
        self._wanted = wanted
        self._chosen = chosen
        self._budget = budget
        self._asked = [Leaf(column.path) if isinstance(column, Instant) else column for column in self._columns]
        self.schema = self._schema(columns.schema())

    def _schema(self, schema: pa.Schema) -> pa.Schema:
        """The columns as the part gives them where these are texts by number: such are compared once a text."""
        fields = zip(schema, self._part.schema(self._asked), self._columns, strict=True)
        return pa.schema(
            [
                given if pa.types.is_dictionary(given.type) and not isinstance(column, Instant) else ours
                for ours, given, column in fields
            ]
        )

    def read(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches():
            yield batch if batch.schema.equals(self.schema) else batch.cast(self.schema)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for batch in self._part.read([*self._asked, *(_KEYS if self._chosen else ())], self._wanted):
            self._budget.check()
            if self._chosen is not None:
                batch = batch.filter(pa.array(self._chosen.among(batch)))
                if not len(batch):
                    continue
            arrays = list(_made(self._columns, batch.columns))
            yield pa.RecordBatch.from_arrays(arrays, [str(number) for number in range(len(arrays))])


def _made(columns: Sequence[Column | Instant], given: Sequence[pa.Array[Any]]) -> Iterator[pa.Array[Any]]:
    """The columns, out of those that a part gave for them."""
    times: dict[tuple[str, ...], pa.Array[Any]] = {}
    for column, values in zip(columns, given, strict=False):
        if not isinstance(column, Instant):
            yield values
            continue
        if column.path not in times:
            times[column.path] = instants(values)
        yield without_instants(values, times[column.path]) if column.others else times[column.path]


_KEYS = (Fixed.STREAM, Fixed.INDEX)


def _has_some(part: EventPart, wanted: EventRange, chosen: Chosen) -> bool:
    return any(chosen.among(batch).any() for batch in part.read(_KEYS, wanted))


def _path(columns: PartColumns, path: Path, use: Use, kinds: Mapping[Path, str]) -> str:
    if use not in _NATURAL:
        return columns.value(path, use)
    kind = kinds[path]
    if use is Use.NUMERIC and kind not in NUMBERS:
        return columns.value(path, Use.NUMBER)
    return columns.natural(path, kind)


class _NoRows:
    """Stands for all parts when there are none: a view has columns all the same."""

    rows = 0
    node = Node()

    def schema(self, columns: Sequence[Column]) -> pa.Schema:
        """There is no dictionary."""
        return pa.schema([pa.field(str(number), pa.int64()) for number in range(len(columns))])

    def read(self, columns: Sequence[Column], wanted: EventRange) -> Iterator[pa.RecordBatch]:
        return iter(())
