"""Discoveries run beside a test, on a clock that it moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from streamgauge.ingest.discovery.groups import Discovery, Group

Follow = Callable[[Discovery], list[Sequence[Group]]]


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
