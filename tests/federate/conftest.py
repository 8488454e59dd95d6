"""A Prometheus and a server on loopback, and folders for clients between them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamgauge.testing.federation import Peers, federation_peers


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    async with federation_peers() as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "buffer"
