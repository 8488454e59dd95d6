"""Discoveries run beside a test, on a clock that it moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from streamgauge.clock import ManualClock
from streamgauge.ingest.discovery.groups import Discovery, Group
from streamgauge.stats import Stats

Follow = Callable[[Discovery], list[Sequence[Group]]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def stats() -> Stats:
    return Stats()


@pytest.fixture
async def follow() -> AsyncIterator[Follow]:
    """Runs a discovery; a list to which all that it finds is added."""
    tasks: list[asyncio.Task[None]] = []

    def start(discovery: Discovery) -> list[Sequence[Group]]:
        found: list[Sequence[Group]] = []
        tasks.append(asyncio.create_task(discovery.run(found.append)))
        return found

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
