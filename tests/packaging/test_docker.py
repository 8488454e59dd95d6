"""The Dockerfile, as far as it goes without an engine: what it copies is there, its health check is true."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from streamgauge.settings import BY_NAME, parse_address
from streamgauge.testing.server import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "packaging" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
INSTALL = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")


def instructions(name: str) -> list[str]:
    return [line.strip() for line in re.findall(rf"^\s*{name} (.*)$", DOCKERFILE, re.MULTILINE)]


def test_what_it_copies_is_there_and_not_ignored() -> None:
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"
    }
    copied = {name for line in instructions("COPY") if "--from" not in line for name in line.split()[:-1]}
    assert copied == allowed
    for name in copied:
        assert (ROOT / name).exists(), name


def test_everything_is_locked_and_from_wheels() -> None:
    installs = re.findall(r"pip [^&]*install [^&\n]*", DOCKERFILE)
    assert len(installs) == 3
    for command in installs:
        assert "--require-hashes" in command or "--no-deps /build/dist" in command


def healthy(address: str) -> bool:
    """What the image's health check says of a server at an address."""
    (check,) = [json.loads(line.removeprefix("CMD ")) for line in re.findall(r"CMD \[.*\]", DOCKERFILE) if "-c" in line]
    assert check[0] == "python"
    environment = {**os.environ, BY_NAME["listen"].variable: address}
    return (
        subprocess.run([sys.executable, *check[1:]], env=environment, capture_output=True, check=False).returncode == 0
    )


def test_the_health_check_tells_whether_a_server_answers(tmp_path: Path) -> None:
    with ServerProcess.start(tmp_path / "data", ["--no-self-monitoring"]) as server:
        assert healthy(f"0.0.0.0:{server.port}")
        server.stop()
    assert not healthy(f"0.0.0.0:{server.port}")


def test_it_runs_as_nobody_who_matters_and_closed() -> None:
    *_, user = instructions("USER")
    assert user.partition(":")[0].isdigit()
    assert int(user.partition(":")[0]) > 0
    (environment,) = instructions("ENV")
    assert BY_NAME["insecure"].variable not in environment, "who opens the server must say so"
    assert f"{BY_NAME['data'].variable}={instructions('VOLUME')[0]}" in environment


def test_the_page_opens_it_by_settings_that_exist() -> None:
    given = dict(re.findall(r"(STREAMGAUGE_\w+)=(\S+)", INSTALL))
    for name in given:
        assert name in {setting.variable for setting in BY_NAME.values()}, name
    assert parse_address(given[BY_NAME["listen"].variable])
