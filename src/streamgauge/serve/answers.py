"""Answers of query workers on their way to the client, and the answers that the server makes itself."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING

from starlette.responses import Response

from streamgauge.serve.encoding import SMALLEST, compress, negotiate

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from streamgauge.query.requests import Answer, Job, Workers


class QueryAnswer(Response):
    """Runs a job and streams its answer. A client that goes away cancels the query, whether it waits, runs or answers.

    What the workers raise before the answer begins is raised on; later, too, and then breaks the connection off.
    """

    def __init__(self, workers: Workers, job: Job) -> None:
        self._workers = workers
        self._job = job
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._work(send))
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def _work(self, send: Send) -> None:
        answer = await self._workers.run(self._job)
        async with aclosing(answer.chunks):
            await send({"type": "http.response.start", "status": answer.status, "headers": _headers(answer)})
            async for chunk in answer.chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def json_answer(request: Request, data: object) -> Response:
    """The API's envelope of success around `data`."""
    body = json.dumps({"status": "success", "data": data}, ensure_ascii=False, separators=(",", ":")).encode()
    return await body_answer(request, body, "application/json")


async def body_answer(request: Request, body: bytes, content_type: str) -> Response:
    """An answer made in the server, compressed when that is worth it and the client takes it."""
    headers = {"vary": "Accept-Encoding", "content-type": content_type}
    encoding = accepted_encoding(request)
    if encoding != "identity" and len(body) >= SMALLEST:
        body = await compress(body, encoding)
        headers["content-encoding"] = encoding
    return Response(body, headers=headers)


def accepted_encoding(request: Request) -> str:
    return negotiate(request.headers.get("accept-encoding"))


async def disconnected(receive: Receive) -> None:
    """Return when the client has gone. A body that it sends is not read any more."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _headers(answer: Answer) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-type", answer.content_type.encode()), (b"vary", b"Accept-Encoding")]
    if answer.encoding != "identity":
        headers.append((b"content-encoding", answer.encoding.encode()))
    if answer.retry_after is not None:
        headers.append((b"retry-after", str(answer.retry_after).encode()))
    return headers
