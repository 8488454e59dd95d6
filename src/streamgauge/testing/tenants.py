"""`python -m streamgauge.testing.tenants`: the command line, with a server that believes whoever says who they are.

Whoever comes with `Authorization: Bearer NAME` is bound to the label team=NAME, and may do everything within that;
`all` is bound to nothing.
"""

from __future__ import annotations

from streamgauge.auth.authenticator import Credentials
from streamgauge.auth.identity import EVERYBODY, Identity
from streamgauge.cli import main
from streamgauge.errors import Unauthorized
from streamgauge.services import ServerServices

EVERYTHING = "all"


class ByName:
    """Implements auth.authenticator.Authenticator."""

    async def identify(self, credentials: Credentials) -> Identity:
        if len(credentials.authorization) != 1:
            raise Unauthorized("say who you are", ("Bearer",))
        name = credentials.authorization[0].removeprefix("Bearer ")
        return Identity(name, EVERYBODY.permissions, () if name == EVERYTHING else (("team", name),))

    def known(self, credentials: Credentials) -> Identity | None:
        return None


if __name__ == "__main__":
    setattr(ServerServices, "authenticator", ByName())  # noqa: B010
    main()
