"""One SQL query, from its text to the bytes of the answer."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

from streamgauge.model.source import Source
from streamgauge.query.budget import Budget
from streamgauge.query.requests import SqlQuery
from streamgauge.query.sql.allowed import check
from streamgauge.query.sql.answers import encoded
from streamgauge.query.sql.chosen import Chosen, keys_of_chosen, without_where
from streamgauge.query.sql.database import Session, session
from streamgauge.query.sql.parameters import fill
from streamgauge.query.sql.promql_tables import PromqlTables
from streamgauge.query.sql.resolve import Resolver
from streamgauge.query.sql.syntax import Tree, parsed, written
from streamgauge.query.sql.views import make_views


def run_sql(query: SqlQuery, source: Source, budget: Budget, kept: MutableMapping[str, object]) -> Iterator[bytes]:
    """The answer, which is computed while it is read.

    Raises BadInput for what is no query, or none that is answered; QueryFailed and the budget's errors.
    """
    with session(kept, budget) as opened:
        statement = parsed(opened, query.query)
        check(statement)
        fill(statement, dict(query.parameters))
        run = _Run(opened, query, source, budget)
        keys = keys_of_chosen(statement, opened.is_of_one_row)
        sql = run.made(statement) if keys is None else run.made_of_chosen(statement, keys)
        yield from encoded(opened, sql, query.format)


class _Run:
    def __init__(self, opened: Session, query: SqlQuery, source: Source, budget: Budget) -> None:
        self._session = opened
        self._query = query
        self._source = source
        self._budget = budget

    def made(self, statement: Tree) -> str:
        """A statement as SQL over views that have been made for it."""
        resolver = self._resolved(statement, "")
        make_views(self._session, self._source, self._budget, resolver.views)
        for call in resolver.calls:
            PromqlTables(self._session, self._source, self._budget, self._query.lookback).make(call)
        return written(self._session, statement)

    def made_of_chosen(self, statement: Tree, keys: Tree) -> str:
        """The same for one whose answer is of few events, which `keys` asks for."""
        first = self._resolved(keys, "_keys")
        make_views(self._session, self._source, self._budget, first.views)
        chosen = Chosen.of(self._session.reader(written(self._session, keys)).read_all())
        without_where(statement)
        [view] = self._resolved(statement, "").views
        view.conditions = first.views[0].conditions
        make_views(self._session, self._source, self._budget, [view], chosen)
        return written(self._session, statement)

    def _resolved(self, statement: Tree, prefix: str) -> Resolver:
        resolver = Resolver(self._query.query.encode(), prefix)
        resolver.resolve(statement)
        return resolver
