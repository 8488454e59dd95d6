"""The unit of the service: systemd understands it, it shuts the server in, and what it relies on is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from streamgauge.cli import EXIT_CODES, exit_code
from streamgauge.config import load_config
from streamgauge.errors import ConfigError, FolderInUse, FormatTooNew, ListenFailed, StreamgaugeError
from streamgauge.main import GRACE_SECONDS
from streamgauge.settings import BY_NAME

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
UNIT = (PACKAGING / "systemd" / "streamgauge.service").read_text(encoding="utf-8")
EXPOSURE = 2.0
"""systemd's own measure, from 0 (shut in) to 10; what remains is the network and the host's /proc, which it needs."""


def values(key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", UNIT, re.MULTILINE)


@pytest.mark.peer("systemd-analyze")
def test_systemd_has_nothing_to_complain_of(tmp_path: Path) -> None:
    """But for the path of the program, which is not installed where the unit looks for it."""
    program = tmp_path / "streamgauge"
    program.symlink_to(sys.executable)
    unit = tmp_path / "streamgauge.service"
    unit.write_text(UNIT.replace("/opt/streamgauge/bin/streamgauge", str(program)), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@pytest.mark.peer("systemd-analyze")
def test_the_service_is_shut_in() -> None:
    unit = str(PACKAGING / "systemd" / "streamgauge.service")
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE * 10:.0f}", unit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_does_not_mend_itself_is_not_tried_again() -> None:
    (codes,) = values("RestartPreventExitStatus")
    fatal = {int(code) for code in codes.split()}
    assert {exit_code(ConfigError("")), exit_code(FormatTooNew("")), exit_code(FolderInUse(""))} == fatal
    assert fatal.isdisjoint({exit_code(StreamgaugeError("")), exit_code(ListenFailed(""))})
    assert fatal <= {int(code) for code in re.findall(r"^  (\d+) ", EXIT_CODES, re.MULTILINE)}


def test_a_stop_has_the_time_that_requests_have() -> None:
    (seconds,) = values("TimeoutStopSec")
    assert int(seconds.removesuffix("s")) > GRACE_SECONDS


def test_data_is_where_the_unit_lets_it_write() -> None:
    (folder,) = values("StateDirectory")
    assert f"{BY_NAME['data'].variable}=/var/lib/{folder}" in values("Environment")


def test_the_configuration_that_comes_with_it_is_good_and_changes_nothing() -> None:
    config = load_config(PACKAGING / "streamgauge.yml", {})
    assert config.warnings == ()
    assert config.own == {"retention": BY_NAME["retention"].default}
