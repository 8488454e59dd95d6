"""The views that a query names, each made for it: of what it asks for and no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from streamgauge.model.source import Source
from streamgauge.query.budget import Budget
from streamgauge.query.sql.chosen import Chosen
from streamgauge.query.sql.database import Session
from streamgauge.query.sql.events import EventViews
from streamgauge.query.sql.metrics import MetricViews
from streamgauge.query.sql.ranges import Ranges
from streamgauge.query.sql.relations import View
from streamgauge.query.sql.schema import EVENTS
from streamgauge.query.sql.streams import add_streams


def make_views(
    session: Session,
    source: Source,
    budget: Budget,
    views: Sequence[View],
    chosen: Chosen | None = None,
    received_since: int | None = None,
) -> None:
    """Put them into the session's database. Where events are `chosen`, views of events have no others; where
    `received_since` (ns) is given, they have all from then on, and few before."""
    ranges = Ranges(session)
    events = source.events()
    for view in views:
        if view.kind in EVENTS:
            wanted = ranges.of_events(view)
            of_events = EventViews(session, events.parts(wanted), budget)
            if received_since is None:
                of_events.make(view, wanted, chosen)
            else:
                late = replace(wanted, first_received=max(wanted.first_received, received_since))
                of_events.make(view, late, chosen, events.parts(late))
        elif view.kind == "streams":
            add_streams(session, events, view)
        else:
            MetricViews(session, source, budget).make(view, ranges.of_samples(view))
