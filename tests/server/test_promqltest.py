"""Prometheus' own scripts against the whole server: loaded by remote write, asked over HTTP.

One server runs all of them. Where a script says `clear` everything is deleted, which leaves nothing that the next
section would see, whatever it loads.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from streamgauge.store.failpoints import VARIABLE
from streamgauge.testing import requests
from streamgauge.testing.server import ServerProcess

from .conftest import PLAIN

SCRIPTS = (
    "aggregators",
    "at_modifier",
    "collision",
    "functions",
    "literals",
    "name_label_dropping",
    "selectors",
    "staleness",
    "subquery",
    "trig_functions",
)


class Cleared:
    """What the tool that runs scripts asks of its server, by one that goes on."""

    def __init__(self, server: ServerProcess, tool: ModuleType) -> None:
        self._server = server
        self._tool = tool

    def fresh(self) -> None:
        answer = self._server.post("/api/v1/admin/tsdb/delete_series", {"match[]": '{__name__=~".+"}'})
        assert answer.status == 204, answer.text
        assert self._server.data_of("/api/v1/labels") == []

    def stop(self) -> None:
        pass

    def write(self, rows: list[Any]) -> None:
        answer = self._server.send(requests.snappy(self._tool.write_request(rows)))
        assert answer.status == 204, answer.text

    def query(self, path: str, **parameters: str) -> Any:
        return self._server.post(path, parameters).json()


@pytest.fixture(scope="module")
def tool(shared_data: Path) -> ModuleType:
    """The shared program that runs scripts over HTTP."""
    spec = importlib.util.spec_from_file_location("promqltest", shared_data.parent / "tools" / "promqltest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """What is deleted stays on the disk: to carry that out takes a process each time, and test_deletion shows it."""
    folder = tmp_path_factory.mktemp("server")
    held = folder / "held"
    held.touch()
    environment = {VARIABLE: f"clean.before_write=hang:{held}"}
    with ServerProcess.start(folder / "data", (*PLAIN, "--enable-admin-api"), environment) as running:
        yield running


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # by the tool
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SCRIPTS)
def test_script(
    name: str, tool: ModuleType, server: ServerProcess, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = shared_data / "promqltest" / f"{name}.test"
    passed, failed, _ = tool.run(str(script), Cleared(server, tool), True, None)
    assert failed == 0, capsys.readouterr().out
    assert passed > 0
