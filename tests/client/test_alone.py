"""The client needs nothing of what the server needs."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from streamgauge.testing.event_server import EventServer

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import logging, sys
import streamgauge.client as client
allowed = set(sys.stdlib_module_names) | {"websockets", "streamgauge", "__main__", "__mp_main__"}
strangers = {name.partition(".")[0] for name in sys.modules} - allowed
of_the_environment = ("_distutils", "distutils-precedence", "_virtualenv", "sitecustomize")
strangers = {name for name in strangers if not name.startswith(of_the_environment)}
assert not strangers, strangers
ours = {name for name in sys.modules if name.startswith("streamgauge.") and not name.startswith("streamgauge.client")}
ours -= {"streamgauge." + name for name in ("errors", "wire", "wire.protobuf", "wire.relay", "wire.timeseries")}
assert not ours, ours
writer = client.Writer(sys.argv[1])
logging.getLogger().addHandler(client.Handler(writer))
logging.warning("alone")
assert not writer.close(60)
print(client.__file__)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a fresh environment with the project's wheel and websockets, and nothing else."""
    folder = tmp_path_factory.mktemp("alone")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    packages = next((folder / "env").glob("[Ll]ib*/**/site-packages"))
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", wheel, packages], check=True)
    home = Path(str(distribution("websockets").locate_file("websockets")))
    (packages / "websockets").symlink_to(home, target_is_directory=True)
    return next((folder / "env").glob("[Bbs]*in*/python*"))


@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_it_works_with_the_standard_library_and_websockets(reference: EventServer, python: Path, scheme: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-c", PROGRAM, reference.url(scheme)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(python.parents[1]) in done.stdout
    (event,) = reference.store.values()
    assert (event["level"], event["message"]) == ("WARNING", "alone")
