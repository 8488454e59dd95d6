"""A real InfluxDB 1.x in a process of its own, on a free loopback port, and the plainest client for it."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from streamgauge.testing.server import SECONDS, eventually

_CONFIG = """\
reporting-disabled = true
bind-address = "127.0.0.1:0"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  query-log-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
[monitor]
  store-enabled = false
"""


class Influxd:
    """Use it in a `with`; its data stays in `folder`, so that another may go on where one has ended. port: 0 for a free
    one."""

    def __init__(self, program: str, folder: Path, port: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "influxd.conf"
        config.write_text(_CONFIG.format(folder=folder, port=port))
        self._log = folder / "log"
        with self._log.open("wb") as log:
            command = [program, "-config", str(config)]
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        eventually(self._listening)
        found = self._listening()
        assert found is not None
        self.port = int(found[1])

    def _listening(self) -> re.Match[str] | None:
        assert self._process.poll() is None, self._log.read_text()
        return re.search(r"Listening on HTTP.* addr=127\.0\.0\.1:(\d+)", self._log.read_text())

    def __enter__(self) -> Influxd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, statement: str, database: str = "") -> list[dict[str, Any]]:
        """The series of the answer to one statement; times are ns."""
        parameters = urllib.parse.urlencode({"q": statement, "db": database, "epoch": "ns"})
        status, body = self._post(f"/query?{parameters}", b"")
        assert status == 200, body
        (result,) = json.loads(body)["results"]
        assert "error" not in result, result
        series: list[dict[str, Any]] = result.get("series", [])
        return series

    def write(self, database: str, lines: bytes) -> str:
        """Its complaint; "" where it has none."""
        status, body = self._post(f"/write?db={database}", lines)
        return "" if status == 204 else str(json.loads(body)["error"])

    def _post(self, path: str, body: bytes) -> tuple[int, bytes]:
        request = urllib.request.Request(self.url + path, body, method="POST")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=SECONDS) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
