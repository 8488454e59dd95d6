"""What a start does not do before the server is ready. In a start nothing takes longer than imports."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from streamgauge.testing.server import ServerProcess

HEAVY = {
    *("aiomqtt", "bcrypt", "cryptography", "dns", "duckdb", "google", "grpc", "httpx", "jwt", "nats"),
    *("polars", "psycopg", "pydantic", "pydantic_core", "websockets", "yaml"),
}
"""Packages that only some configurations or requests need."""

OPTIONAL = {
    *(
        "commands",
        "config",
        "prometheus_config",
        "scrape_config",
        "auth_config",
        "relay_config",
        "relays",
        "backup.open",
    ),
    *(
        "auth.jwt_tokens",
        "auth.passwords",
        "auth.upstream",
        "forward.delivery",
        "forward.sqlite",
        "ingest.relay.connection",
    ),
    *("forward.remote_write.destination", "ingest.discovery.dns", "ingest.discovery.file", "query.sql.database"),
}
"""Parts of ours of which the same is true."""


def test_a_plain_server_imports_nothing_that_it_was_not_asked_for(tmp_path: Path) -> None:
    """Neither it nor its first query worker, which inherits the variable."""
    with ServerProcess.start(tmp_path / "data", environment={"PYTHONPROFILEIMPORTTIME": "1"}) as server:
        lines = list(server.output)
    ready = next(number for number, line in enumerate(lines) if "ready; " in line)
    found = [re.search(r"import time:.*\| +([\w.]+)$", line) for line in lines[:ready]]
    modules = {match[1] for match in found if match}
    assert {"streamgauge.main", "streamgauge.query.promql.engine", "pyarrow"} <= modules, "they are told of"
    assert {name.partition(".")[0] for name in modules} & HEAVY == set()
    assert {
        name.removeprefix("streamgauge.") for name in modules if name.startswith("streamgauge.")
    } & OPTIONAL == set()


def test_what_comes_before_the_first_query_worker_needs_nothing_that_takes_long(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from streamgauge.start import check_addresses, read_settings\n"
        "from streamgauge.query.process import WorkerStarter\n"
        "from streamgauge.store.lock import acquire\n"
        "config, settings = read_settings(None, {'data': sys.argv[1]})\n"
        "check_addresses(settings, config)\n"
        "with acquire(Path(settings.data), started=0):\n"
        "    print(*{name.partition('.')[0] for name in sys.modules})\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "data")], capture_output=True, text=True, check=False
    )
    present = set(ran.stdout.split())
    assert "streamgauge" in present, ran.stderr
    assert present & {"numpy", "pyarrow", "uvicorn", "starlette", "prometheus_client", *HEAVY} == set()
