from __future__ import annotations

import threading

from streamgauge.ingest.mounts import MountProbe, Usage

FINE = Usage(100, 50, 40)


def test_a_mount_that_fails_does_not_stop_the_others() -> None:
    def measure(mountpoint: str) -> Usage:
        if mountpoint == "/bad":
            raise PermissionError
        return FINE

    assert MountProbe(measure).measure(["/a", "/bad", "/b"]) == {"/a": FINE, "/bad": None, "/b": FINE}


def test_a_mount_that_hangs_is_left_out_until_it_has_answered() -> None:
    answers = threading.Event()
    asked: list[str] = []
    returned = threading.Event()

    def measure(mountpoint: str) -> Usage:
        asked.append(mountpoint)
        if mountpoint == "/dead":
            answers.wait()
            threading.Timer(0, returned.set).start()
        return FINE

    probe = MountProbe(measure, timeout=1.0)  # for which a busy machine may let a thread wait
    assert probe.measure(["/a", "/dead", "/b"]) == {"/a": FINE, "/dead": None, "/b": FINE}
    assert probe.measure(["/a", "/dead", "/b"]) == {"/a": FINE, "/dead": None, "/b": FINE}
    assert asked.count("/dead") == 1
    answers.set()
    returned.wait()
    for thread in threading.enumerate():
        if thread.name == "mounts":
            thread.join()
    assert probe.measure(["/dead"]) == {"/dead": FINE}
