"""What the workers are asked on behalf of whoever sends a request, and what they see of what others ask.

Every question of a request is made here: so none of them can leave out who asks, and what they may see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamgauge.query.requests import Job, Query, RunningQuery, Workers
from streamgauge.serve.answers import accepted_encoding
from streamgauge.serve.endpoint import identity_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from streamgauge.query.budget import Limits


def job_of(request: Request, query: Query, limits: Limits, encoding: str | None = None, stats: bool = False) -> Job:
    """encoding: the content coding of the answer; None: what the request accepts."""
    identity = identity_of(request)
    coding = accepted_encoding(request) if encoding is None else encoding
    return Job(query, limits, coding, stats, identity.view, identity.name)


def queries_of(request: Request, workers: Workers) -> list[RunningQuery]:
    """The queries that its sender may know of: all of them, or if they are bound their own."""
    identity = identity_of(request)
    if not identity.bound:
        return workers.running()
    return [each for each in workers.running() if (each.sender, each.view) == (identity.name, identity.view)]
