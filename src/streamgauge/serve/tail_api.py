"""GET /api/v1/tail: what is being stored, as it is, to whoever listens; with since= what was stored before it, too."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.responses import Response

from streamgauge.errors import BadInput, StreamgaugeError
from streamgauge.live.filters import EventFilter, Filter, SampleFilter, event_filter
from streamgauge.live.history import CONTENT_TYPE, EventHistory, SampleHistory
from streamgauge.live.position import Position
from streamgauge.query.requests import Answer, HistoryQuery, Job
from streamgauge.serve.answers import disconnected
from streamgauge.serve.endpoint import Endpoint
from streamgauge.serve.params import parse_duration, parse_time, quoted
from streamgauge.serve.tail_text import announced, failed, written

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from streamgauge.live.subscription import Subscription
    from streamgauge.query.requests import Workers
    from streamgauge.serve.params import Params
    from streamgauge.serve.services import HttpOptions, Services

PATH = "/api/v1/tail"
PARAMS = ("kind", "stream", "filter", "text", "match", "since")

_HEADERS = [
    (b"content-type", CONTENT_TYPE.encode()),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold messages back
]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client wants. since: where to begin in the past; None for what comes."""

    wanted: Filter
    since: Position | None


class TailApi:
    def __init__(self, services: Services, options: HttpOptions) -> None:
        self._services = services
        self._options = options

    def endpoints(self) -> list[Endpoint]:
        return [Endpoint(PATH, self.tail, ("GET",), PARAMS)]

    async def tail(self, request: Request, params: Params) -> Response:
        asked = await self._asked(params, request.headers.get("last-event-id", ""))
        return TailAnswer(self, asked)

    async def _asked(self, params: Params, resume: str) -> Asked:
        """A browser that comes back repeats the URL that it began with: its Last-Event-ID says more than that."""
        kind = params.text("kind") or "events"
        events = params.all("stream"), params.all("filter"), params.all("text")
        if kind == "samples":
            if any(events):
                raise BadInput("stream, filter and text are for events; samples are chosen by match")
            wanted: Filter = await self._sample_filter(params.all("match"))
        elif kind == "events":
            if params.all("match"):
                raise BadInput("match is for samples; events are chosen by stream, filter and text")
            wanted = event_filter(*events)
        else:
            raise BadInput(f'invalid parameter "kind": {quoted(kind)} is not one of events, samples')
        since = resume or params.text("since")
        return Asked(wanted, self._position(since) if since else None)

    async def _sample_filter(self, matches: tuple[str, ...]) -> SampleFilter:
        sets = await self._services.selectors(matches) if matches else []
        return SampleFilter(tuple(tuple(each) for each in sets))

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

    # ---- what a tail is made of -------------------------------------------------------------------------------------

    @property
    def workers(self) -> Workers:
        return self._services.workers

    def subscribe(self, asked: Asked) -> Subscription:
        return self._services.tails.subscribe(asked.wanted)

    def job(self, asked: Asked) -> Job:
        assert asked.since is not None
        if isinstance(asked.wanted, EventFilter):
            return Job(HistoryQuery(EventHistory(asked.wanted, asked.since)), self._options.limits)
        position = self._services.tails.sample_position()
        history = SampleHistory(asked.wanted, asked.since.time // 1_000_000, position)
        return Job(HistoryQuery(history), self._options.limits)

    def position(self, asked: Asked) -> str:
        """Where a tail begins that has not been sent anything."""
        tails = self._services.tails
        return tails.event_position() if isinstance(asked.wanted, EventFilter) else tails.sample_position()


class TailAnswer(Response):
    """Server-Sent Events, until the client goes away or the server stops."""

    def __init__(self, api: TailApi, asked: Asked) -> None:
        self._api = api
        self._asked = asked
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tail = self._api.subscribe(self._asked)
        work = asyncio.ensure_future(self._work(tail, send))
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            tail.close()
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def _work(self, tail: Subscription, send: Send) -> None:
        if self._asked.since is None:
            tail.follow()
            await self._begin(send)
            await _send(send, announced(self._api.position(self._asked)))
        else:
            answer = await self._api.workers.run(self._api.job(self._asked), tail.follow)
            if answer.status != 200:
                await _refuse(answer, send)
                return
            await self._begin(send)
            if not await _replay(answer, send):
                return
        while (delivery := await tail.next()) is not None:
            await _send(send, written(delivery))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})


async def _replay(answer: Answer, send: Send) -> bool:
    """Whether it came to its end. If not, the client is told why, and comes back where it was."""
    try:
        async with aclosing(answer.chunks):
            async for chunk in answer.chunks:
                await _send(send, chunk)
    except StreamgaugeError as error:
        await send({"type": "http.response.body", "body": failed(error.message), "more_body": False})
        return False
    return True


async def _refuse(answer: Answer, send: Send) -> None:
    headers = [(b"content-type", answer.content_type.encode())]
    if answer.retry_after is not None:
        headers.append((b"retry-after", str(answer.retry_after).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    async with aclosing(answer.chunks):
        async for chunk in answer.chunks:
            await _send(send, chunk)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
