"""Fixtures of tests that scrape or discover."""

from __future__ import annotations

import pytest

from streamgauge.clock import ManualClock
from streamgauge.stats import Stats


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def stats() -> Stats:
    return Stats()
