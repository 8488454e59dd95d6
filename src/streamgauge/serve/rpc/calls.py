"""Every call of the gRPC listener: who makes it and whether they may, how it fails, how it is counted, when it has
lasted too long without anything happening."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from grpc import StatusCode

from streamgauge.auth.identity import EVERYBODY, Identity
from streamgauge.clock import Clock
from streamgauge.errors import BadInput, Overloaded, StreamgaugeError
from streamgauge.model.token import KEY_HEADER
from streamgauge.serve.access import admit
from streamgauge.serve.endpoint import IDENTITY, Needs
from streamgauge.serve.errors import HIDDEN
from streamgauge.serve.health import check_ready
from streamgauge.serve.rpc.codes import code_of, told
from streamgauge.serve.sessions import DISMISS, Sessions
from streamgauge.stats import Reading

if TYPE_CHECKING:
    from starlette.types import Scope

    from streamgauge.serve.services import Services

LOG = logging.getLogger(__name__)

MAX_CALLS = 1_000
"""At once, whatever they do: some 20 KiB each, and a stream of rows may hold 1 MiB more."""
MAX_CALLS_OF_ONE = MAX_CALLS // 4
"""Of one name, or where nobody has any, from one address: so that none keeps all the others out."""
MAX_LASTING = 100
"""Of calls that go on for as long as their client does: one for each program that balances load."""
IDLE_SECONDS = 300.0
"""Without a message in either direction. A store is sent rows, or an answer is read; who has no more ends the call."""
CHECK_SECONDS = 5.0

Context = Any
"""grpc.aio.ServicerContext, whose types differ from what it does."""
T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Call:
    """One of them. heard: when something was last received or taken, monotonic. owner: in whose share it is. busy: it
    is we who are awaited, not the client. lasting: goes on for as long as its client and the server do. ended: as what,
    and why, we have ended it; None until then."""

    context: Context
    task: asyncio.Task[Any]
    heard: float
    owner: str = ""
    identity: Identity = EVERYBODY
    busy: bool = False
    lasting: bool = False
    ended: tuple[StatusCode, str] | None = None

    def end(self, code: StatusCode, text: str) -> None:
        if self.ended is None:
            self.ended = code, text
            self.task.cancel()


class Calls:
    """Used on the event loop."""

    def __init__(self, services: Services, sessions: Sessions, clock: Clock) -> None:
        self._services = services
        self._sessions = sessions
        self._clock = clock
        self._open: set[Call] = set()
        self._shares: Counter[str] = Counter()  # open calls, by owner
        self._counts: Counter[tuple[str, str]] = Counter()

    async def answer(
        self, method: str, context: Context, needs: Needs, work: Callable[[Call], Awaitable[T]], ready: bool = True
    ) -> T:
        """What `work` returns, for whoever is permitted what the method needs. Any failure ends the call with its code.

        ready: whether the method needs the stored data."""
        task = asyncio.current_task()
        assert task is not None
        call = Call(context, task, self._clock.monotonic())
        code, text = StatusCode.OK, ""
        try:
            if len(self._open) >= MAX_CALLS:
                raise Overloaded(f"{MAX_CALLS} calls go on already, which is the limit")
            self._open.add(call)
            self._charge(call, f"address {_address(context)}")
            scope = scope_of(context, method)
            scope[DISMISS] = partial(call.end, StatusCode.UNAUTHENTICATED)
            with self._sessions.watching(scope):
                await admit(scope, needs, True, self._services.authenticator)
                if ready:
                    check_ready(self._services)
                call.identity = scope.get(IDENTITY, EVERYBODY)
                if call.identity.name:
                    self._charge(call, f"name {call.identity.name}")
                return await work(call)
        except StreamgaugeError as error:
            code, text = code_of(error), told(error.message)
        except asyncio.CancelledError:
            if call.ended is None:  # by the client, or as the server stops
                code = StatusCode.CANCELLED
                raise
            code, text = call.ended
        except grpc.aio.AbortError:
            code = StatusCode.UNKNOWN if context.code() is None else _code(context.code())
            raise
        except grpc.aio.BaseError:  # the client has gone, or the server stops: there is nobody to tell
            code = StatusCode.CANCELLED
            raise
        except Exception:
            LOG.exception("a call of %s failed", method)
            code, text = StatusCode.INTERNAL, HIDDEN
        finally:
            self._open.discard(call)
            self._discharge(call)
            self._counts[method, code.name] += 1
        await context.abort(code, text)
        raise AssertionError("abort raises")

    def _charge(self, call: Call, owner: str) -> None:
        """It is that owner's from now on. Raises Overloaded where these have their share."""
        self._discharge(call)
        if self._shares[owner] >= MAX_CALLS_OF_ONE:
            raise Overloaded(f"{MAX_CALLS_OF_ONE} calls of one {owner} go on already, which is the limit")
        call.owner = owner
        self._shares[owner] += 1

    def _discharge(self, call: Call) -> None:
        if call.owner:
            self._shares[call.owner] -= 1
            if not self._shares[call.owner]:
                del self._shares[call.owner]
            call.owner = ""

    async def only(self, messages: Any, call: Call) -> Any:
        """The one message of a call that has one. The library would wait for it before it hands the call over: one that
        never sends it would be in no count, and never end. Raises BadInput."""
        async for message in messages:
            self.touch(call)
            return message
        raise BadInput("the call ended without a message")

    def last(self, call: Call) -> None:
        """It goes on for as long as its client and the server do. Raises Overloaded."""
        if sum(each.lasting for each in self._open) >= MAX_LASTING:
            raise Overloaded(f"{MAX_LASTING} calls that last go on already, which is the limit")
        call.lasting = True

    def touch(self, call: Call) -> None:
        """Something was received, or taken."""
        call.heard = self._clock.monotonic()

    @contextmanager
    def working(self, call: Call) -> Iterator[None]:
        """For as long as the `with`, whatever takes time is not its client's doing."""
        call.busy = True
        try:
            yield
        finally:
            call.busy = False
            self.touch(call)

    async def run(self) -> None:
        """End calls in which nothing happens, until cancelled."""
        while True:
            await self._clock.sleep(CHECK_SECONDS)
            now = self._clock.monotonic()
            for call in list(self._open):
                if not call.lasting and not call.busy and now - call.heard > IDLE_SECONDS:
                    call.end(StatusCode.DEADLINE_EXCEEDED, f"nothing was sent or read for {IDLE_SECONDS:g} s")

    def stop(self) -> None:
        """End those that would not end by themselves."""
        for call in list(self._open):
            if call.lasting:
                call.end(StatusCode.UNAVAILABLE, "the server stops")

    def readings(self) -> Iterator[Reading]:
        yield Reading.of("streamgauge_grpc_calls", "gauge", "gRPC calls that go on.", len(self._open))
        yield Reading(
            "streamgauge_grpc_calls_total",
            "counter",
            "gRPC calls answered, by method and status code.",
            {key: float(count) for key, count in self._counts.items()},
            ("method", "code"),
        )


def scope_of(context: Context, method: str) -> Scope:
    """A call as the scope of an HTTP request, which is what access is decided by."""
    headers = [
        (key.encode(), value if isinstance(value, bytes) else value.encode("latin-1", "replace"))
        for key, value in context.invocation_metadata() or ()
        if key in ("authorization", KEY_HEADER)
    ]
    pem = (context.auth_context() or {}).get("x509_pem_cert")
    extensions: dict[str, Any] = {}
    if pem:
        from streamgauge.auth.certificates import described

        extensions["tls"] = {"client_cert": described(pem[0])}
    return {"type": "http", "method": "POST", "path": method, "headers": headers, "extensions": extensions}


def _address(context: Context) -> str:
    """Of the client, without its port."""
    return str(context.peer()).rpartition(":")[0]


def _code(found: Any) -> StatusCode:
    """A code as a context tells it: as such, or as its number."""
    if isinstance(found, StatusCode):
        return found
    return next((code for code in StatusCode if code.value[0] == found), StatusCode.UNKNOWN)
