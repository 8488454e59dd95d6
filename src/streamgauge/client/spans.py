"""Spans: how long something took, within what, and how it ended, as an event of `"type": "trace"` each."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from contextvars import Token
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from streamgauge.client.encoding import rfc3339
from streamgauge.client.events import EventWriter, describe_error, with_fields
from streamgauge.client.tracing import CURRENT, TraceContext, from_traceparent, new_trace

P = ParamSpec("P")
R = TypeVar("R")


class Span:
    """Use it in a `with`, in an `async with`, or as a decorator of a function or coroutine function, of which each call
    is then a span. It is sent when it ends.

    Its parent is the span that the code is in, unless `parent` names another, for example as a `traceparent` that came
    with a request; one that is none begins a new trace. Attributes are members of the event.
    """

    def __init__(
        self,
        writer: EventWriter,
        name: str,
        attributes: dict[str, Any] | None = None,
        parent: TraceContext | str | bytes | None = None,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._writer = writer
        self.name = name
        self.attributes = dict(attributes or {})
        self._parent = parent
        self._clock = clock
        self._monotonic = monotonic
        self._error: dict[str, str] | None = None
        self._context: TraceContext | None = None
        self._token: Token[TraceContext | None] | None = None

    @property
    def context(self) -> TraceContext:
        """Its identifiers, once it has begun."""
        assert self._context is not None, "the span has not begun"
        return self._context

    def set(self, **attributes: Any) -> None:
        """Add attributes, or replace them."""
        self.attributes.update(attributes)

    def fail(self, error: BaseException) -> None:
        """It has failed, although no exception leaves it."""
        self._error = describe_error(error)

    def __enter__(self) -> Span:
        parent = CURRENT.get() if self._parent is None else self._parent
        if isinstance(parent, str | bytes):
            parent = from_traceparent(parent)
        self._parent_id = parent.span_id if parent is not None else None
        self._context = parent.child() if parent is not None else new_trace()
        self._token = CURRENT.set(self._context)
        self._started, self._began = self._clock(), self._monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        took = self._monotonic() - self._began
        assert self._token is not None
        try:
            CURRENT.reset(self._token)
        except ValueError:  # it ends in another task than it began in, which is left as it is
            self._token = None
        if error is not None:
            self._error = describe_error(error, trace)
        self._writer.write(self._event(took))

    async def __aenter__(self) -> Span:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def waiting(*args: P.args, **kwargs: P.kwargs) -> Any:
                with self._again():
                    return await function(*args, **kwargs)

            return cast(Callable[P, R], waiting)

        @functools.wraps(function)
        def calling(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._again():
                return function(*args, **kwargs)

        return calling

    def _again(self) -> Span:
        return Span(self._writer, self.name, self.attributes, self._parent, self._clock, self._monotonic)

    def _event(self, took: int) -> dict[str, Any]:
        trace = {"traceId": self.context.trace_id, "spanId": self.context.span_id}
        if self._parent_id is not None:
            trace["parentSpanId"] = self._parent_id
        event: dict[str, Any] = {
            "type": "trace",
            "name": self.name,
            "time": rfc3339(self._started),
            "durationNs": took,
            "status": "ok" if self._error is None else "error",
            "trace": trace,
        }
        if self._error is not None:
            event["error"] = self._error
        return with_fields(event, self.attributes)
