"""What can be said of a query before anything is read: its views, and the SQL over them.

A dashboard asks the same again and again, and to parse and write a query takes as long as to count 100,000 events: so
the last ones are kept in the process, by their text and parameters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace

from streamgauge.query.requests import SqlQuery
from streamgauge.query.sql.allowed import check
from streamgauge.query.sql.chosen import keys_of_chosen, latest_wanted, without_where
from streamgauge.query.sql.database import Session
from streamgauge.query.sql.parameters import fill
from streamgauge.query.sql.relations import View
from streamgauge.query.sql.resolve import Resolver, TableCall
from streamgauge.query.sql.syntax import Tree, parsed, written

_KEPT = "sql_prepared"
_MAX_KEPT = 64
_MAX_KEPT_CHARACTERS = 4096
"""Of each, with its parameters: what is longer was hardly written by a dashboard."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A query over views that are made for it. Nobody changes it.

    keys: what asks for the few events that the answer is of, where it is of few; the view then has no others.
    latest: as `latest_wanted` has it.
    """

    sql: str
    views: Sequence[View]
    calls: Sequence[TableCall]
    keys: Prepared | None = None
    latest: int = 0


def prepared(session: Session, query: SqlQuery, kept: MutableMapping[str, object]) -> Prepared:
    """Raises BadInput for what is no query, or none that is answered."""
    known = kept.setdefault(_KEPT, OrderedDict())
    assert isinstance(known, OrderedDict)
    key = (query.query, repr(query.parameters))
    found = known.get(key)
    if not isinstance(found, Prepared):
        found = _prepared(session, query)
        if sum(map(len, key)) <= _MAX_KEPT_CHARACTERS:
            known[key] = found
    if key in known:
        known.move_to_end(key)
    while len(known) > _MAX_KEPT:
        known.popitem(last=False)
    return found


def _prepared(session: Session, query: SqlQuery) -> Prepared:
    statement = parsed(session, query.query)
    check(statement)
    fill(statement, dict(query.parameters))
    keys = keys_of_chosen(statement, session.is_of_one_row)
    if keys is None:
        return _resolved(session, query, statement, "")
    latest = latest_wanted(keys)
    first = replace(_resolved(session, query, keys, "_keys"), latest=latest)
    without_where(statement)
    return _resolved(session, query, statement, "", first)


def _resolved(
    session: Session, query: SqlQuery, statement: Tree, prefix: str, keys: Prepared | None = None
) -> Prepared:
    resolver = Resolver(query.query.encode(), prefix)
    resolver.resolve(statement)
    if keys is not None:
        [view] = resolver.views
        view.conditions = keys.views[0].conditions
    return Prepared(written(session, statement), resolver.views, resolver.calls, keys)
