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

    from streamgauge.auth.identity import Identity
    from streamgauge.query.budget import Limits


def job_of(request: Request, query: Query, limits: Limits, encoding: str | None = None, stats: bool = False) -> Job:
    """encoding: the content coding of the answer; None: what the request accepts."""
    coding = accepted_encoding(request) if encoding is None else encoding
    return job_for(identity_of(request), query, limits, coding, stats)


def job_for(identity: Identity, query: Query, limits: Limits, encoding: str = "identity", stats: bool = False) -> Job:
    """As `job_of`, where what asks is no HTTP request."""
    return Job(query, limits, encoding, stats, identity.view, identity.name)


def queries_of(request: Request, workers: Workers) -> list[RunningQuery]:
    """The queries that its sender may know of: all of them, or if they are bound their own."""
    identity = identity_of(request)
    if not identity.bound:
        return workers.running()
    return [each for each in workers.running() if (each.sender, each.view) == (identity.name, identity.view)]
