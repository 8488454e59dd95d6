"""Spans, traces, uncaught exceptions and requests as events."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from streamgauge.client import (
    Middleware,
    Span,
    TraceContext,
    current_trace,
    from_traceparent,
    install_excepthook,
    traceparent,
)
from streamgauge.client.asgi import Receive, Scope, Send


class Written:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def write(self, event: object, /) -> bool:
        self.events.append(event)
        return True


@pytest.fixture
def written() -> Written:
    return Written()


HEADER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_span_is_an_event_with_its_time_duration_and_attributes(written: Written) -> None:
    ticks = iter([5, 12])
    with Span(written, "work", {"user": 7}, clock=lambda: 10**9, monotonic=lambda: next(ticks)) as span:
        span.set(found=3, name="not the span's")
    (event,) = written.events
    assert event == {
        "type": "trace",
        "name": "work",
        "time": "1970-01-01T00:00:01.000000Z",
        "durationNs": 7,
        "status": "ok",
        "trace": {"traceId": span.context.trace_id, "spanId": span.context.span_id},
        "user": 7,
        "found": 3,
        "extra": {"name": "not the span's"},
    }


def test_a_span_within_another_is_its_child(written: Written) -> None:
    with Span(written, "outer") as outer:
        with Span(written, "inner") as inner:
            assert current_trace() == inner.context
        assert current_trace() == outer.context
    assert current_trace() is None
    child, parent = written.events
    assert child["trace"] == {
        "traceId": outer.context.trace_id,
        "spanId": inner.context.span_id,
        "parentSpanId": outer.context.span_id,
    }
    assert "parentSpanId" not in parent["trace"]


def test_an_exception_makes_it_an_error_and_goes_on(written: Written) -> None:
    with pytest.raises(ValueError, match="no tea"), Span(written, "work"):
        raise ValueError("no tea")
    with Span(written, "work") as span:
        span.fail(RuntimeError("half"))
    assert [event["status"] for event in written.events] == ["error", "error"]
    assert written.events[0]["error"]["type"] == "ValueError"
    assert "test_spans.py" in written.events[0]["error"]["traceback"]
    assert written.events[1]["error"]["message"] == "half"


def test_functions_and_coroutine_functions_are_decorated(written: Written) -> None:
    @Span(written, "double")
    def double(n: int) -> int:
        """Twice."""
        return 2 * double(n - 1) if n else 1

    @Span(written, "wait")
    async def wait(n: int) -> int:
        await asyncio.sleep(0)
        return double(n)

    async def main() -> list[int]:
        return await asyncio.gather(wait(1), wait(2))

    assert double.__doc__ == "Twice."
    assert asyncio.run(main()) == [2, 4]
    waits = {event["trace"]["spanId"]: event for event in written.events if event["name"] == "wait"}
    assert len({event["trace"]["traceId"] for event in waits.values()}) == 2
    outermost = [event for event in written.events if event["trace"].get("parentSpanId") in waits]
    assert len(outermost) == 2
    assert len(written.events) == 7


def test_threads_begin_traces_of_their_own(written: Written) -> None:
    with Span(written, "outer"):
        thread = threading.Thread(target=Span(written, "inner")(lambda: None))
        thread.start()
        thread.join()
    assert "parentSpanId" not in written.events[0]["trace"]


def test_a_traceparent_goes_out_and_comes_in(written: Written) -> None:
    assert traceparent() is None
    with Span(written, "work", parent=HEADER) as span:
        assert traceparent() == f"00-0af7651916cd43dd8448eb211c80319c-{span.context.span_id}-01"
    assert written.events[0]["trace"]["parentSpanId"] == "b7ad6b7169203331"
    assert from_traceparent(HEADER) == TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert from_traceparent(HEADER[:-2] + "00") == TraceContext(HEADER[3:35], HEADER[36:52], sampled=False)
    assert from_traceparent(b"01" + HEADER[2:].encode() + b"-more") is not None, "a later version may have more"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "x",
        HEADER.upper(),
        HEADER + "-more",
        "ff" + HEADER[2:],
        HEADER.replace("b7ad6b7169203331", "0" * 16),
        HEADER[:-3],
    ],
)
def test_what_is_no_traceparent_begins_a_new_trace(written: Written, header: str) -> None:
    assert from_traceparent(header) is None
    with Span(written, "work", parent=header):
        pass
    assert "parentSpanId" not in written.events[0]["trace"]


# ---- uncaught exceptions ----


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the hooks that were there before are called with."""
    called: list[str] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: called.append(kind.__name__))
    monkeypatch.setattr(threading, "excepthook", lambda args: called.append(args.exc_type.__name__))
    return called


def test_uncaught_exceptions_are_sent_and_then_handled_as_before(written: Written, hooks: list[str]) -> None:
    before = sys.excepthook, threading.excepthook
    uninstall = install_excepthook(written)
    sys.excepthook(ValueError, ValueError("no tea"), None)
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)

    def fail() -> None:
        raise LookupError("no cup")

    thread = threading.Thread(target=fail, name="kitchen")
    thread.start()
    thread.join()
    assert hooks == ["ValueError", "KeyboardInterrupt", "LookupError"]
    first, second = written.events
    assert (first["level"], first["exception"]["message"]) == ("CRITICAL", "no tea")
    assert (second["thread"], second["exception"]["type"]) == ("kitchen", "LookupError")
    uninstall()
    assert (sys.excepthook, threading.excepthook) == before


# ---- requests ----


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/broken":
        raise ValueError("no tea")
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    scope["route"] = type("Route", (), {"path": "/tea/{kind}"})()
    await send({"type": "http.response.start", "status": 503, "headers": [(b"x", (traceparent() or "").encode())]})
    await send({"type": "http.response.body"})


def request(written: Written, scope: dict[str, Any]) -> list[Any]:
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("nothing is to be received")

    async def send(message: Any) -> None:
        sent.append(message)

    full = {"type": "http", "method": "GET", "path": "/tea/green", "query_string": b"secret=1", "headers": [], **scope}
    asyncio.run(Middleware(application, written)(full, receive, send))
    return sent


def test_a_request_is_a_span_on_the_trace_that_it_names(written: Written) -> None:
    start, _ = request(written, {"headers": [(b"traceparent", HEADER.encode())]})
    (event,) = written.events
    assert event["name"] == "GET /tea/{kind}"
    assert event["http"] == {"method": "GET", "path": "/tea/green", "status": 503, "route": "/tea/{kind}"}
    assert event["trace"]["traceId"] == HEADER[3:35]
    assert event["trace"]["parentSpanId"] == HEADER[36:52]
    assert event["trace"]["spanId"] in start["headers"][0][1].decode()
    assert "secret" not in str(event)


def test_an_exception_in_a_request_is_the_spans(written: Written) -> None:
    with pytest.raises(ValueError, match="no tea"):
        request(written, {"path": "/broken"})
    (event,) = written.events
    assert (event["status"], event["http"]["status"], event["error"]["message"]) == ("error", 500, "no tea")


def test_websockets_are_spans_and_other_scopes_are_none(written: Written) -> None:
    request(written, {"type": "websocket", "method": "GET"})
    assert written.events[0]["http"]["status"] == 101
    request(written, {"type": "lifespan"})
    assert len(written.events) == 1
