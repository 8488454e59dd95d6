"""Servers and writers for tests of the client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from streamgauge.client import Retry, Writer
from streamgauge.testing.event_server import EventServer, Store

QUICK = Retry(first=0.002, longest=0.05)


@pytest.fixture
def errors() -> list[str]:
    """What writers report."""
    return []


@pytest.fixture
def new_writer(errors: list[str]) -> Iterator[Callable[..., Writer]]:
    """Makes writers that come back quickly, report into `errors`, and are closed without waiting for anything."""
    with ExitStack() as stack:

        def make(url: str, **options: Any) -> Writer:
            writer = Writer(url, **{"retry": QUICK, "on_error": errors.append, **options})
            stack.callback(writer.close, 0)
            return writer

        yield make


@pytest.fixture
def reference() -> Iterator[EventServer]:
    """A server that knows nothing but the reference's protocol."""
    with EventServer() as server:
        yield server


@pytest.fixture
def numbered() -> Iterator[EventServer]:
    """A server that numbers the events of a stream."""
    with EventServer(Store(numbered=True)) as server:
        yield server
