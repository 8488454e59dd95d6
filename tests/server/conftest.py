"""The real server as a child process. Most tests share one; those that need other settings start their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from streamgauge.testing.server import ServerProcess

PLAIN = ("--no-self-monitoring", "--retention", "0")
"""Nothing is stored but what a test writes, of any age."""
PROMPT_SECONDS = 10.0
"""Within which a small query is answered on the busiest of test machines, if it does not wait for something else."""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One for all tests that leave it as they found it, but for series of their own. It must never go down."""
    with ServerProcess.start(tmp_path_factory.mktemp("server") / "data", PLAIN) as running:
        yield running
        assert running.stop() == 0, "".join(running.output)
        assert not [line for line in running.output if "Traceback" in line], "".join(running.output)


@pytest.fixture
def responsive(server: ServerProcess) -> Iterator[None]:
    """Asks a small query over and over beside the test, and once more after it. Every one must be answered promptly."""
    over = threading.Event()
    failures: list[Exception] = []

    def ask() -> None:
        last = False
        while not last and not failures:
            last = over.wait(0.01)
            try:
                answer = server.get("/api/v1/query", {"query": "1 + 1"}, seconds=PROMPT_SECONDS)
                assert answer.json()["data"]["result"][1] == "2", answer.text
            except Exception as error:
                failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    yield
    over.set()
    asking.join()
    assert not failures, "".join(server.output[-20:])


StartServer = Callable[..., ServerProcess]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts a server with further arguments on `data` (default: a new folder); all are killed after the test."""
    with ExitStack() as stack:

        def start(
            *arguments: str, data: Path | None = None, environment: Mapping[str, str] | None = None
        ) -> ServerProcess:
            started = ServerProcess.start(data or tmp_path / "data", (*PLAIN, *arguments), environment)
            return stack.enter_context(started)

        yield start
