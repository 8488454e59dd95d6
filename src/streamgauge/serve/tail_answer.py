"""What a live tail sends: the past, if that is asked for, and then what comes, until somebody has enough."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from starlette.responses import Response

from streamgauge.errors import StreamgaugeError

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from streamgauge.live.subscription import Delivery, Subscription
    from streamgauge.query.requests import Answer, Job, Workers


class Outlet(Protocol):
    """How it goes to the client."""

    async def begin(self) -> None: ...

    async def stand(self, position: str) -> None:
        """Where the tail stands when nothing has been sent."""

    async def past(self, chunk: bytes) -> None:
        """History as Server-Sent Events, cut anywhere."""

    async def present(self, delivery: Delivery) -> None: ...

    async def fail(self, error: StreamgaugeError) -> None:
        """The last that is sent: why there is no more."""

    async def end(self) -> None:
        """The last that is sent: the server stops."""

    async def gone(self) -> None:
        """Return when the client has gone, or wants to."""

    async def close(self) -> None:
        """Nothing is sent any more."""


@dataclass(frozen=True, slots=True)
class Following:
    """subscribe: a place among those who are told; raises Overloaded. position: where all tails stand that begin now.
    job: what gives the past."""

    subscribe: Callable[[], Subscription]
    position: Callable[[], str]
    workers: Workers
    job: Job | None


class TailAnswer(Response):
    def __init__(self, following: Following, outlet: Callable[[Receive, Send], Outlet]) -> None:
        self._following = following
        self._outlet = outlet
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tail = self._following.subscribe()
        outlet = self._outlet(receive, send)
        gone = asyncio.ensure_future(outlet.gone())  # first: it must have begun to wait when the answer begins
        work = asyncio.ensure_future(self._work(tail, outlet, send))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            tail.close()
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
            await outlet.close()

    async def _work(self, tail: Subscription, outlet: Outlet, send: Send) -> None:
        if self._following.job is None:
            tail.follow()
            position = self._following.position()
            await outlet.begin()
            await outlet.stand(position)
        else:
            answer = await self._following.workers.run(self._following.job, tail.follow)
            if answer.status != 200:
                await _refuse(answer, send)
                return
            await outlet.begin()
            if not await _replay(answer, outlet):
                return
        while (delivery := await tail.next()) is not None:
            await outlet.present(delivery)
        await outlet.end()


async def _replay(answer: Answer, outlet: Outlet) -> bool:
    """Whether it came to its end. If not, the client is told why, and comes back where it was."""
    try:
        async with aclosing(answer.chunks):
            async for chunk in answer.chunks:
                await outlet.past(chunk)
    except StreamgaugeError as error:
        await outlet.fail(error)
        return False
    return True


async def _refuse(answer: Answer, send: Send) -> None:
    headers = [(b"content-type", answer.content_type.encode())]
    if answer.retry_after is not None:
        headers.append((b"retry-after", str(answer.retry_after).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    async with aclosing(answer.chunks):
        async for chunk in answer.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
