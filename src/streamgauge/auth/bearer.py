"""The Authorization header of what pushes."""

from __future__ import annotations

from streamgauge.errors import Unauthorized

CHALLENGES = ("Bearer",)


def bearer_token(authorization: str | None) -> str:
    """What stands behind the scheme, blanks included. Raises Unauthorized."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized("Only bearer authorization allowed", CHALLENGES)
    if not token.strip():
        raise Unauthorized("Invalid Authorization header", CHALLENGES)
    return token
