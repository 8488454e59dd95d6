"""The views that a query names, each made for it: of what it asks for and no more."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from streamgauge.errors import BadInput
from streamgauge.model.event_source import Column, EventPart, EventRange, Fixed, Rest
from streamgauge.model.source import Source
from streamgauge.query.budget import Budget
from streamgauge.query.sql.allowed import VIEWS
from streamgauge.query.sql.database import Session
from streamgauge.query.sql.syntax import Tree, nodes

_FIXED = (Fixed.STREAM, Fixed.INDEX, Fixed.RECEIVED)


class Views:
    def __init__(self, session: Session, source: Source, budget: Budget) -> None:
        self._session = session
        self._source = source
        self._budget = budget
        self._count = 0

    def put_in(self, tree: Tree) -> None:
        """Make the views that a statement reads, and have it read them."""
        names = {pair["key"].lower() for node in nodes(tree) for pair in node.get("cte_map", {}).get("map", ())}
        for node in nodes(tree):
            if node.get("type") == "BASE_TABLE" and str(node["table_name"]).lower() not in names:
                self._put(node)

    def _put(self, table: Tree) -> None:
        name = str(table["table_name"]).lower()
        if name not in VIEWS or table["schema_name"]:
            raise BadInput(f"there is no table {table['table_name']}; the views are {', '.join(VIEWS)}")
        view = f"_{name}_{self._count}"
        self._count += 1
        if name == "events":
            self._session.add_view(view, self._events(view))
        else:
            raise BadInput(f"there is no view {name}")
        table["alias"] = table["alias"] or name
        table["table_name"] = view
        table["qualified_name"] = {"path": [view]}

    def _events(self, view: str) -> str:
        parts = []
        for number, part in enumerate(self._source.events().parts()):
            rows = f"{view}_{number}"
            self._add_part(rows, part)
            parts.append(
                f'SELECT "0" AS stream_id, "1" AS stream_event_index, make_timestamptz("2" // 1000) AS insert_datetime,'
                f' "3"::JSON AS payload FROM {rows}'
            )
        return " UNION ALL ".join(parts)

    def _add_part(self, name: str, part: EventPart) -> None:
        columns: list[Column] = [*_FIXED, Rest(())]
        kinds = [pa.int64()] * 3 + [pa.string()]
        schema = pa.schema([(str(number), kind) for number, kind in enumerate(kinds)])

        def read() -> Iterator[pa.RecordBatch]:
            for batch in part.read(columns, EventRange()):
                self._budget.check()
                yield batch.cast(schema)

        self._session.add_rows(name, schema, read)
