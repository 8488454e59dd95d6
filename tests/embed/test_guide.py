"""docs/embedding.md does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import streamgauge
from streamgauge.embed import RANGES
from streamgauge.embed.store import MAX_HOST_BYTES, QUEUE_CALLS
from streamgauge.testing.server import SECONDS

PAGE = (Path(__file__).parents[2] / "docs" / "embedding.md").read_text(encoding="utf-8")


def test_the_example_runs_as_it_stands(tmp_path: Path) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    environment = os.environ | {"PYTHONPATH": str(Path(streamgauge.__file__).parents[1])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    sample, hosts, *_ = done.stdout.splitlines()
    assert sample.split()[1:] == [b"0.0", b"0.0", b"0.0", b"1"]
    assert hosts == b"['shop.example']"


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"a queue of {QUEUE_CALLS}" in PAGE
    assert f"{MAX_HOST_BYTES:,} bytes" in PAGE
    assert " ".join(f"`{name}`" for name in RANGES) in PAGE
