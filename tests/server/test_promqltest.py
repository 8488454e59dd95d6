"""Prometheus' own scripts against the whole server: loaded by remote write, asked over HTTP."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import streamgauge

LIGHT = (
    "at_modifier",
    "collision",
    "literals",
    "name_label_dropping",
    "selectors",
    "staleness",
    "subquery",
    "trig_functions",
)
HEAVY = ("aggregators", "functions")
"""Scripts that start some dozens of servers."""


@pytest.mark.parametrize("name", LIGHT)
def test_script(name: str, shared_data: Path) -> None:
    run_script(name, shared_data)


@pytest.mark.skipif("STREAMGAUGE_REQUIRE_PEERS" not in os.environ, reason="takes a minute; CI runs it")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", HEAVY)
def test_long_script(name: str, shared_data: Path) -> None:
    run_script(name, shared_data)


def run_script(name: str, shared_data: Path) -> None:
    serve = [sys.executable, "-m", "streamgauge", "serve", "--retention", "0", "--no-self-monitoring"]
    command = shlex.join(serve) + " --listen 127.0.0.1:{port} --data {dir}"
    tool = shared_data.parent / "tools" / "promqltest.py"
    done = subprocess.run(
        [sys.executable, str(tool), "--server", command, str(shared_data / "promqltest" / f"{name}.test")],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(streamgauge.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " failed 0 " in done.stdout
