"""Requests that last, as tails and WebSockets do, and end when whoever sent them may not be there any more.

Whom a token belongs to is asked at the beginning of each request. Here it is asked again while a request goes on: when
the time of its token is up, and when tokens were revoked or the configuration has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from streamgauge.auth.authenticator import Authenticator
from streamgauge.auth.identity import Identity
from streamgauge.clock import Clock
from streamgauge.errors import Busy, Unauthorized
from streamgauge.serve.access import credentials_of
from streamgauge.serve.connections import UPGRADE, Upgrade
from streamgauge.serve.endpoint import IDENTITY

if TYPE_CHECKING:
    from starlette.types import Scope

NOT_GOOD = "the credentials are not good any more"
CHECK_SECONDS = 2.0
"""Between two looks at all requests: 10,000 of them take a millisecond."""
DISMISS = "streamgauge.dismiss"
"""In the scope of what is no HTTP request: called with why it must end, and sees to that."""
LET_IN = "streamgauge.let_in"
"""In the scope of what was let in by something else than an identity: called at each look, whether that is still so."""
AT_ONCE = 100
"""Requests of which it is asked anew who sends them before others have their turn."""


class Sessions:
    """version: rises when somebody who was let in may have to go. Used on the event loop."""

    def __init__(self, clock: Clock, authenticator: Authenticator, version: Callable[[], int]) -> None:
        self._clock = clock
        self._authenticator = authenticator
        self._version = version
        self._seen = version()
        self._open: dict[asyncio.Task[object], Scope] = {}
        self._dismissed: set[asyncio.Task[object]] = set()  # told to end, and not gone yet
        self.ended = 0

    @contextmanager
    def watching(self, scope: Scope) -> Iterator[None]:
        """For as long as the `with`, in the task that answers the request."""
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = scope
        try:
            yield
        finally:
            del self._open[task]
            self._dismissed.discard(task)

    async def run(self) -> None:
        while True:
            await self._clock.sleep(CHECK_SECONDS)
            await self.check()

    async def check(self) -> None:
        """Look at all of them."""
        version = self._version()
        changed, self._seen = version != self._seen, version
        now = self._clock.now_ms()
        for number, (task, scope) in enumerate(list(self._open.items())):
            identity, let_in = scope.get(IDENTITY), scope.get(LET_IN)
            if task not in self._open or (identity is None and let_in is None):
                continue
            if task in self._dismissed:
                task.cancel()
            elif let_in is not None and not let_in():
                self._end(task, scope)
            elif identity is None:
                continue
            elif identity.expires is not None and identity.expires <= now:
                self._end(task, scope)
            elif changed:
                if not await self._is_still(scope, identity) and task in self._open:
                    self._end(task, scope)
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)

    async def _is_still(self, scope: Scope, identity: Identity) -> bool:
        """Whether somebody is who they were, and may do what they might; also when that cannot be told now."""
        try:
            return await self._authenticator.identify(credentials_of(scope)) == identity
        except Unauthorized:
            return False
        except Busy:
            return True

    def _end(self, task: asyncio.Task[object], scope: Scope) -> None:
        """A WebSocket is told, and has until the next look to say goodbye; anything else is broken off."""
        self.ended += 1
        if (dismiss := scope.get(DISMISS)) is not None:
            dismiss(NOT_GOOD)
            return
        upgrade = scope.get("extensions", {}).get(UPGRADE)
        if isinstance(upgrade, Upgrade) and upgrade.socket is not None:
            self._dismissed.add(task)
            upgrade.socket.dismiss(NOT_GOOD)
        else:
            task.cancel()
