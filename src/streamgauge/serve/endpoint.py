"""One row of the table of routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request

from streamgauge.auth.identity import EVERYBODY, Identity, Permission
from streamgauge.serve.params import Params, read_params

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

Handler = Callable[[Request, Params], Awaitable["Response"]]

Needs = Callable[[Request], Permission | None]
"""What the sender of a request must be permitted; None: anybody may send it."""

IDENTITY = "streamgauge.identity"
"""Where the scope of a request has the identity of who sent it."""

GET = ("GET", "HEAD")
GET_OR_POST = ("GET", "HEAD", "POST")
CHANGE = ("POST", "PUT")


def reads(request: Request) -> Permission:
    return Permission.READ


def writes(request: Request) -> Permission:
    return Permission.WRITE


def administers(request: Request) -> Permission:
    return Permission.ADMIN


def is_open(request: Request) -> None:
    return None


def identity_of(request: Request) -> Identity:
    """Who sent it."""
    identity: Identity = request.scope.get(IDENTITY, EVERYBODY)
    return identity


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
    needs: Needs = reads
    bound: bool = False  # whether whoever is bound to labels may call it: it shows and changes nothing beyond them

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        params = await read_params(request, self.params, self.takes_form)
        response = await self.handler(request, params)
        await response(scope, receive, send)
