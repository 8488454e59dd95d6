"""docs/client.md: its programs run, and what it says that events look like is so."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamgauge.client import Bounds, Handler, Retry, Span, Writer
from streamgauge.client.buffer import Counts, Undelivered
from streamgauge.testing.event_server import EventServer

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
EXAMPLES = [json.loads(text.replace(", …}", "}")) for text in re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)]


class Written:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def write(self, event: object, /) -> bool:
        self.events.append(event)
        return True


@pytest.fixture
def unhooked() -> Iterator[None]:
    """The root logger and the hooks are as they were, afterwards."""
    hooks, handlers = (sys.excepthook, threading.excepthook), list(logging.getLogger().handlers)
    yield
    sys.excepthook, threading.excepthook = hooks
    for handler in set(logging.getLogger().handlers) - set(handlers):
        logging.getLogger().removeHandler(handler)
        handler.close()


@pytest.mark.usefixtures("unhooked")
def test_its_first_programs_run(reference: EventServer) -> None:
    def run(program: str) -> dict[str, Any]:
        names: dict[str, Any] = {}
        exec(program.replace("127.0.0.1:4318", f"127.0.0.1:{reference.port}").replace("Bearer …", "Bearer x"), names)
        return names

    handlers = set(logging.getLogger().handlers)
    run(PROGRAMS[0])
    (added,) = set(logging.getLogger().handlers) - handlers
    added.close()
    logging.getLogger().removeHandler(added)
    run(PROGRAMS[1])["writer"].close(60)
    messages = [(event["type"], event.get("message") or event.get("name")) for event in reference.store.values()]
    assert messages == [("log", "3 left of tea"), ("sold", None), ("trace", "checkout")]


def test_events_of_logs_are_as_shown() -> None:
    written = Written()
    logger = logging.Logger("shop.orders")
    logger.addHandler(Handler(written))
    with Span(written, "work"):
        try:
            raise ValueError
        except ValueError:
            logger.exception("no tea", extra={"user": 7})
    event = written.events[0]
    assert list(event) == list(EXAMPLES[0])
    assert list(event["exception"]) == list(EXAMPLES[0]["exception"])
    assert list(event["trace"]) == list(EXAMPLES[0]["trace"])


def test_spans_are_as_shown() -> None:
    written = Written()
    with Span(written, "outer"), Span(written, "checkout", {"user": 7}):
        pass
    event = written.events[0]
    assert list(event) == list(EXAMPLES[1])
    assert list(event["trace"]) == list(EXAMPLES[1]["trace"])
    for name in ("traceId", "spanId", "parentSpanId"):
        assert len(event["trace"][name]) == len(EXAMPLES[1]["trace"][name])


def test_the_bounds_and_pauses_are_as_stated() -> None:
    bounds = Bounds()
    assert f"{bounds.events:,} events or {bounds.bytes >> 20} MiB" in GUIDE
    assert f"block_seconds={bounds.block_seconds:g}" in GUIDE
    assert f"from {Retry().first:g} to {Retry().longest:g} seconds" in GUIDE
    assert f"Undelivered({', '.join(vars_of(Undelivered))})" in GUIDE.replace("\n", " ")
    assert {"accepted", "acknowledged", "lost", "refused", "held"} <= set(vars_of(Counts))
    assert Writer.close.__defaults__ == (5.0,)
    assert "close(seconds=5)" in GUIDE


def vars_of(kind: Any) -> list[str]:
    return list(kind.__dataclass_fields__)
