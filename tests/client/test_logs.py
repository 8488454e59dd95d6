"""Log records as events."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from streamgauge.client import Handler, Span, StructlogProcessor, Writer
from streamgauge.testing.event_server import EventServer


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


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """One with no handlers, outside the tree."""
    logger = logging.Logger("shop.orders")
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)


def test_a_record_has_what_one_searches_by(written: Written, logger: logging.Logger) -> None:
    logger.addHandler(Handler(written, fields={"service": "shop"}))
    logger.warning("%d left of %s", 3, "tea", extra={"user": 7, "order": {"id": 1}})
    (event,) = written.events
    assert event.pop("time").endswith("Z")
    assert event.pop("line") > 0
    assert event.pop("process") > 0
    assert event == {
        "type": "log",
        "level": "WARNING",
        "logger": "shop.orders",
        "message": "3 left of tea",
        "module": "test_logs",
        "function": "test_a_record_has_what_one_searches_by",
        "thread": "MainThread",
        "user": 7,
        "order": {"id": 1},
        "service": "shop",
    }


def test_the_time_is_the_records(written: Written) -> None:
    record = logging.makeLogRecord({"created": 1_700_000_000.25, "msg": "x"})
    Handler(written).handle(record)
    assert written.events[0]["time"] == "2023-11-14T22:13:20.250000Z"


def test_an_exception_comes_with_its_traceback_and_stack(written: Written, logger: logging.Logger) -> None:
    logger.addHandler(Handler(written))
    try:
        raise ValueError("no tea")
    except ValueError:
        logger.exception("failed", stack_info=True)
    (event,) = written.events
    assert event["exception"]["type"] == "ValueError"
    assert event["exception"]["message"] == "no tea"
    assert "test_logs.py" in event["exception"]["traceback"]
    assert "test_logs.py" in event["stack"]


class Rude(Exception):
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


@pytest.mark.parametrize(
    ("message", "arguments", "extra"),
    [
        ("%d", ("x",), {}),
        (Rude(), (), {}),
        ("%s", (Rude(),), {}),
        ("x", (), {"rude": Rude(), "nan": float("nan"), "half": "\ud800", "self": logging}),
        ("x", (), {"type": "other", "level": 1, "time": 2}),
    ],
)
def test_no_record_is_too_strange(
    reference: EventServer, logger: logging.Logger, message: Any, arguments: tuple[Any, ...], extra: dict[str, Any]
) -> None:
    with Writer(reference.url("ws")) as writer:
        logger.addHandler(Handler(writer))
        try:
            raise Rude
        except Rude:
            logger.error(message, *arguments, extra=extra, exc_info=True)
        assert writer.flush(60)
    (event,) = reference.store.values()
    assert event["level"] == "ERROR"
    assert event["exception"]["type"].endswith("Rude")
    assert event.get("extra", {}) == {name: extra[name] for name in ("type", "level", "time") if name in extra}


def test_a_handler_with_a_url_has_a_writer_of_its_own(reference: EventServer, logger: logging.Logger) -> None:
    handler = Handler(reference.url("ws"), level="WARNING")
    logger.addHandler(handler)
    logger.info("quiet")
    logger.error("loud")
    handler.close()
    assert [event["message"] for event in reference.store.values()] == ["loud"]


def test_a_handler_at_the_root_does_not_feed_on_itself(reference: EventServer) -> None:
    root = logging.getLogger()
    before = root.level
    with Writer(reference.url("ws")) as writer:
        handler = Handler(writer)
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            logging.getLogger("a.b").debug("once")
            assert writer.flush(60)
        finally:
            root.removeHandler(handler)
            root.setLevel(before)
        assert writer.flush(60)
    assert [event["message"] for event in reference.store.values()] == ["once"]


def test_records_within_a_span_name_it(written: Written, logger: logging.Logger) -> None:
    logger.addHandler(Handler(written))
    with Span(written, "work") as span:
        logger.info("within")
    logger.info("after")
    within, trace, after = written.events
    assert within["trace"] == {"traceId": span.context.trace_id, "spanId": span.context.span_id}
    assert trace["trace"]["spanId"] == span.context.span_id
    assert "trace" not in after


# ---- structlog ----


class Named:
    name = "shop"


def test_a_structlog_entry_is_sent_and_goes_on_unchanged(written: Written) -> None:
    entry = {"event": "sold", "user": 7, "_record": object(), "timestamp": "2026-01-02T03:04:05Z"}
    before = dict(entry)
    assert StructlogProcessor(written)(Named(), "info", entry) is entry
    assert entry == before
    assert written.events == [
        {
            "type": "log",
            "time": "2026-01-02T03:04:05Z",
            "level": "INFO",
            "logger": "shop",
            "message": "sold",
            "user": 7,
        }
    ]


def test_structlog_exceptions_are_described_however_they_come(written: Written) -> None:
    processor = StructlogProcessor(written, clock=lambda: 0)
    try:
        raise ValueError("no tea")
    except ValueError as error:
        for info in (True, error, (ValueError, error, error.__traceback__)):
            processor(None, "error", {"event": "failed", "level": "error", "exc_info": info})
    assert len(written.events) == 3
    for event in written.events:
        assert event["level"] == "ERROR"
        assert event["time"] == "1970-01-01T00:00:00.000000Z"
        assert event["exception"]["message"] == "no tea"
        assert "exc_info" not in event


def test_it_works_in_structlog(written: Written) -> None:
    structlog = pytest.importorskip("structlog")
    processors = [structlog.processors.add_log_level, StructlogProcessor(written), structlog.processors.JSONRenderer()]
    structlog.wrap_logger(structlog.PrintLogger(), processors=processors).warning("sold", user=7)
    assert (written.events[0]["level"], written.events[0]["user"]) == ("WARNING", 7)
