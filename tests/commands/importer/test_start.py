"""An import into a server starts at once: a second is as long as a million samples take."""

from __future__ import annotations

import subprocess
import sys


def test_what_only_a_folder_or_a_server_needs_is_not_loaded() -> None:
    program = "import sys, streamgauge.commands.importing; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "streamgauge.wire.sample_lines" in loaded
    for module in ("streamgauge.store.store", "prometheus_client", "starlette", "uvicorn", "duckdb"):
        assert module not in loaded
