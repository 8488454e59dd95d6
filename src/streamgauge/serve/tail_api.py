"""GET /api/v1/tail: what is being stored, as it is, to whoever listens; with since= what was stored before it, too.

Server-Sent Events, or a WebSocket where the request asks for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from streamgauge.errors import BadInput
from streamgauge.live.filters import EventFilter, Filter, SampleFilter, event_filter, sample_filter
from streamgauge.live.history import EventHistory, SampleHistory
from streamgauge.live.position import Position
from streamgauge.query.requests import HistoryQuery
from streamgauge.serve.connections import Upgrade
from streamgauge.serve.endpoint import Endpoint, identity_of
from streamgauge.serve.event_socket import is_handshake, upgrade_of
from streamgauge.serve.jobs import job_of
from streamgauge.serve.params import parse_duration, parse_time, quoted
from streamgauge.serve.tail_answer import Following, TailAnswer
from streamgauge.serve.tail_outlets import HEADERS, EventStreamOutlet, SocketOutlet

if TYPE_CHECKING:
    from starlette.requests import Request

    from streamgauge.model.view import View
    from streamgauge.serve.params import Params
    from streamgauge.serve.services import HttpOptions, Services

PATH = "/api/v1/tail"
PARAMS = ("kind", "stream", "filter", "text", "match", "since")


class TailApi:
    def __init__(self, services: Services, options: HttpOptions) -> None:
        self._services = services
        self._options = options

    def endpoints(self) -> list[Endpoint]:
        return [Endpoint(PATH, self.tail, params=PARAMS, bound=True)]

    async def tail(self, request: Request, params: Params) -> Response:
        wanted = await self._wanted(params, identity_of(request).view)
        # A browser that comes back repeats the URL that it began with: its Last-Event-ID says more than that.
        since = request.headers.get("last-event-id", "") or params.text("since")
        following = self._following(request, wanted, self._position(since) if since else None)
        if request.method == "HEAD":
            return Response(headers=HEADERS)
        if not is_handshake(request):
            return TailAnswer(following, EventStreamOutlet)
        upgrade = upgrade_of(request)
        return TailAnswer(following, SocketOutlet.of(request, upgrade)) if isinstance(upgrade, Upgrade) else upgrade

    async def _wanted(self, params: Params, view: View) -> Filter:
        kind = params.text("kind") or "events"
        events = params.all("stream"), params.all("filter"), params.all("text")
        if kind == "samples":
            if any(events):
                raise BadInput("stream, filter and text are for events; samples are chosen by match")
            return await self._sample_filter(params.all("match"), view)
        if kind != "events":
            raise BadInput(f'invalid parameter "kind": {quoted(kind)} is not one of events, samples')
        if params.all("match"):
            raise BadInput("match is for samples; events are chosen by stream, filter and text")
        return event_filter(*events, view)

    async def _sample_filter(self, matches: tuple[str, ...], view: View) -> SampleFilter:
        sets = await self._services.selectors(matches) if matches else []
        return sample_filter(sets, view)

    def _position(self, text: str) -> Position:
        """A position, a time, or a duration until now."""
        if (position := Position.parse(text)) is not None:
            return position
        if not text.replace(".", "").isdecimal() and (duration := parse_duration(text)) is not None:
            return Position(self._services.clock.now_ns() - duration * 1_000_000)
        if (time := parse_time(text)) is not None and abs(time) < 1 << 43:
            return Position(time * 1_000_000)
        raise BadInput(
            f'invalid parameter "since": {quoted(text)} is no duration such as 5m, no time, and no position of a tail'
        )

    def _following(self, request: Request, wanted: Filter, since: Position | None) -> Following:
        tails = self._services.tails
        # When the last event of all came is not for everybody to see.
        of_events = isinstance(wanted, EventFilter) and wanted.view.whole
        position = tails.event_position if of_events else tails.sample_position
        job = (
            job_of(request, self._history(wanted, since), self._options.limits, "identity")
            if since is not None
            else None
        )
        return Following(lambda: tails.subscribe(wanted), position, self._services.workers, job)

    def _history(self, wanted: Filter, since: Position) -> HistoryQuery:
        if isinstance(wanted, EventFilter):
            return HistoryQuery(EventHistory(wanted, since))
        position = self._services.tails.sample_position()
        return HistoryQuery(SampleHistory(wanted, since.time // 1_000_000, position))
