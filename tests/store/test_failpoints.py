"""Failpoints do what they are armed to do, and nothing when they are not."""

import ast
import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import streamgauge
from streamgauge.errors import ReadOnly, SyncFailed
from streamgauge.store import failpoints

SOURCE = Path(streamgauge.__file__).parent


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own that has armed what the environment names."""
    head = "from streamgauge.store import failpoints\n"
    env = {**os.environ, "PYTHONPATH": str(SOURCE.parent), **environment}
    return subprocess.run([sys.executable, "-c", head + code], env=env, capture_output=True, text=True, check=False)


def test_a_point_that_is_not_armed_does_nothing() -> None:
    failpoints.hit("flush.before_blocks")


def test_a_point_that_is_not_in_the_table_is_a_bug() -> None:
    with pytest.raises(AssertionError, match=r"no\.such\.point"):
        failpoints.hit("no.such.point")


def test_a_disk_error_is_raw_within_fs_and_ours_outside() -> None:
    with failpoints.armed("fs.write", "enospc"), pytest.raises(OSError) as raw:
        failpoints.hit("fs.write")
    assert raw.value.errno == errno.ENOSPC
    with failpoints.armed("flush.before_catalog", "enospc"), pytest.raises(ReadOnly):
        failpoints.hit("flush.before_catalog")
    with failpoints.armed("flush.before_catalog", "eio"), pytest.raises(SyncFailed):
        failpoints.hit("flush.before_catalog")


def test_it_acts_from_the_first_to_the_last_time() -> None:
    acted: list[str] = []
    with failpoints.armed("fs.sync", lambda: acted.append("acted"), first=2, last=3):
        for _ in range(5):
            acted.append("reached")
            failpoints.hit("fs.sync")
    assert acted == ["reached", "reached", "acted", "reached", "acted", "reached", "reached"]
    failpoints.hit("fs.sync")
    assert len(acted) == 7


@pytest.mark.parametrize(("count", "failed"), [("@2", [2]), ("@2+", [2, 3]), ("", [1, 2, 3])])
def test_the_environment_arms_a_process(count: str, failed: list[int]) -> None:
    code = """
failpoints.arm_from_environment()
failed = []
for n in (1, 2, 3):
    try:
        failpoints.hit("fs.rename")
    except OSError as error:
        failed.append(n)
print(failed)
"""
    done = run(code, STREAMGAUGE_FAILPOINTS=f"flush.before_blocks=delay:1;fs.rename=eio{count}")
    assert done.stdout == f"{failed}\n", done.stderr


@pytest.mark.parametrize("spec", ["no.such=kill", "fs.sync=explode", "fs.sync", "fs.sync=kill@x"])
def test_the_environment_is_refused_when_it_makes_no_sense(spec: str) -> None:
    done = run("failpoints.arm_from_environment()", STREAMGAUGE_FAILPOINTS=spec)
    assert "ValueError" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL to tell apart")
def test_kill_is_kill_9() -> None:
    done = run(
        'failpoints.arm_from_environment()\nfailpoints.hit("fs.sync")\nprint("alive")',
        STREAMGAUGE_FAILPOINTS="fs.sync=kill",
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL to tell apart")
def test_a_helper_process_takes_the_server_with_it() -> None:
    server = """
import subprocess, sys
failpoints.arm_from_environment(server=True)
helper = "from streamgauge.store import failpoints as f; f.arm_from_environment(); f.hit('compact.after_write')"
subprocess.run([sys.executable, "-c", helper])
print("alive")
"""
    done = run(server, STREAMGAUGE_FAILPOINTS="compact.after_write=kill")
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


def test_hang_lasts_until_the_file_goes(tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.touch()
    reached, passed = threading.Event(), threading.Event()

    def flush() -> None:
        reached.set()
        failpoints.hit("flush.before_blocks")
        passed.set()

    with failpoints.armed("flush.before_blocks", f"hang:{held}"):
        thread = threading.Thread(target=flush)
        thread.start()
        reached.wait()
        assert not passed.is_set()
        held.unlink()
        thread.join()
    assert passed.is_set()


def test_every_point_that_the_code_hits_is_in_the_table() -> None:
    named = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("hit", "failpoints.hit"):
                assert isinstance(node.args[0], ast.Constant), f"{path}: name a failpoint by a literal"
                named.add(node.args[0].value)
    assert named <= failpoints.FAILPOINTS.keys()
