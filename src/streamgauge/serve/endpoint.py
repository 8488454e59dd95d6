"""One row of the table of routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request

from streamgauge.serve.params import Params, read_params

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

Handler = Callable[[Request, Params], Awaitable["Response"]]

GET = ("GET", "HEAD")
GET_OR_POST = ("GET", "HEAD", "POST")
CHANGE = ("POST", "PUT")


@dataclass(frozen=True)
class Endpoint:
    """What is answered at a path. `params` are all the parameters that the handler may read."""

    path: str  # {name} stands for one segment
    handler: Handler
    methods: tuple[str, ...] = GET
    params: tuple[str, ...] = ()
    while_starting: bool = False  # answered before the log is replayed
    takes_form: bool = True  # a body holds parameters; else the handler reads it
    admin: bool = False  # refused unless the admin API is enabled

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        params = await read_params(request, self.params, self.takes_form)
        response = await self.handler(request, params)
        await response(scope, receive, send)
