"""One SQL query, from its text to the bytes of the answer."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

from streamgauge.model.source import Source
from streamgauge.query.budget import Budget
from streamgauge.query.requests import SqlQuery
from streamgauge.query.sql.answers import encoded
from streamgauge.query.sql.chosen import Chosen, since
from streamgauge.query.sql.database import Session, session
from streamgauge.query.sql.prepared import Prepared, prepared
from streamgauge.query.sql.promql_tables import PromqlTables
from streamgauge.query.sql.views import make_views

_MORE = 16
"""So many times as many events are looked at next, so that all together are hardly more than the last ones."""


def run_sql(query: SqlQuery, source: Source, budget: Budget, kept: MutableMapping[str, object]) -> Iterator[bytes]:
    """The answer, which is computed while it is read.

    Raises BadInput for what is no query, or none that is answered; QueryFailed and the budget's errors.
    """
    with session(kept, budget) as opened:
        wanted = prepared(opened, query, kept)
        tables = PromqlTables(opened, source, budget, query.lookback)
        chosen = None if wanted.keys is None else _chosen(opened, source, budget, wanted.keys, tables)
        make_views(opened, source, budget, wanted.views, chosen)
        for call in wanted.calls:
            tables.make(call)
        yield from encoded(opened, wanted.sql, query.format)


def _chosen(opened: Session, source: Source, budget: Budget, keys: Prepared, tables: PromqlTables) -> Chosen:
    """The events of the answer. The last ones received are looked for among the newest, and then among more."""
    own, inner = keys.views[:1], keys.views[1:]  # what subqueries of WHERE look at is all that there is
    make_views(opened, source, budget, inner)
    for call in keys.calls:
        tables.make(call)
    events = keys.latest
    while events and (begin := since(source.events().extents(), events)) is not None:
        make_views(opened, source, budget, own, received_since=begin)
        found = Chosen.of(opened.reader(keys.sql).read_all())
        if len(found.times) == keys.latest and int(found.times.min()) * 1000 >= begin:
            return found
        events *= _MORE
    make_views(opened, source, budget, own)
    return Chosen.of(opened.reader(keys.sql).read_all())
