"""Finding out who sends a request, and whether they may."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request

from streamgauge.auth.authenticator import Authenticator, Credentials
from streamgauge.errors import Forbidden
from streamgauge.model.token import KEY_HEADER
from streamgauge.serve.endpoint import IDENTITY, Needs

if TYPE_CHECKING:
    from starlette.types import Scope

_KEY = KEY_HEADER.encode()


async def admit(scope: Scope, needs: Needs, bound: bool, authenticator: Authenticator) -> None:
    """Put the identity of the sender into the scope of a request.

    bound: whether whoever is bound to labels may come. Raises Unauthorized, and Forbidden for somebody known who lacks
    a permission.
    """
    needed = needs(Request(scope))
    if needed is None:
        return
    identity = await authenticator.identify(credentials_of(scope))
    if needed not in identity.permissions:
        raise Forbidden(f"{identity.name} may not do this: it needs the permission {needed.value}")
    if identity.bound and not bound:
        raise Forbidden(f"{identity.name} is bound to labels, and this concerns the whole server")
    scope[IDENTITY] = identity


def credentials_of(scope: Scope) -> Credentials:
    authorization = [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]
    key = next((value.decode("latin-1") for name, value in scope["headers"] if name == _KEY), "")
    return Credentials(authorization, scope.get("extensions", {}).get("tls", {}).get("client_cert"), key)
