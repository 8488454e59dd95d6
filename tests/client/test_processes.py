"""The writer and the process that it is in: its end, its children, and files that outlive it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from streamgauge.client import Bounds, Writer
from streamgauge.client.spill import Spill
from streamgauge.testing.event_server import EventServer, Faults, Store
from streamgauge.testing.server import eventually

NewWriter = Callable[..., Writer]
SECONDS = 60.0
SOURCE = Path(__file__).resolve().parents[2] / "src"


def run_program(text: str, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-X", "dev", "-c", text, *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == code, done.stderr
    return done


def numbers(store: Store) -> list[int]:
    return sorted(value["n"] for value in store.values())


def test_the_end_of_a_program_waits_for_its_events(numbered: EventServer) -> None:
    text = """
import sys
from streamgauge.client import Writer
writer = Writer(sys.argv[1])
for n in range(500):
    writer.write({"n": n})
"""
    done = run_program(text, numbered.url("ws"))
    assert numbers(numbered.store) == list(range(500))
    assert done.stderr == ""


def test_the_end_of_a_program_does_not_wait_for_ever(numbered: EventServer) -> None:
    numbered.faults.gate.clear()
    text = """
import sys
from streamgauge.client import Writer
Writer.close.__defaults__ = (0.1,)
writer = Writer(sys.argv[1])
writer.write({"n": 1})
"""
    assert "1 event was not delivered" in run_program(text, numbered.url("ws")).stderr


@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_nothing_is_imported_while_events_are_sent(numbered: EventServer, scheme: str) -> None:
    """A child that is forked in the middle of that would have half of a module, for ever."""
    text = """
import sys
from streamgauge.client import Writer
before = set(sys.modules)
writer = Writer(sys.argv[1])
writer.write({"n": 1})
assert writer.flush(60)
assert set(sys.modules) == before, set(sys.modules) - before
assert not writer.close(60)
"""
    run_program(text, numbered.url(scheme))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_a_forked_child_begins_anew_and_both_deliver_once(numbered: EventServer, scheme: str) -> None:
    text = """
import os, sys
from streamgauge.client import Writer
writer = Writer(sys.argv[1])
for n in range(300):
    writer.write({"n": n})
if os.fork() == 0:
    for n in range(300, 600):
        writer.write({"n": n})
    assert not writer.close(60)
    os._exit(0)
for n in range(600, 900):
    writer.write({"n": n})
assert not writer.close(60)
assert os.wait()[1] == 0
"""
    run_program(text, numbered.url(scheme))
    assert numbers(numbered.store) == list(range(900))
    assert len({headers["x-stream-id"] for headers in numbered.store.streams}) == 2


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_of_multiprocessing_delivers_at_its_end(numbered: EventServer, method: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text("""
import multiprocessing, sys
from streamgauge.client import Writer

def work(url, n):
    Writer(url).write({"n": n}) if n % 2 else kept.append(Writer(url)) or kept[-1].write({"n": n})

kept = []
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    children = [context.Process(target=work, args=(sys.argv[1], n)) for n in (0, 2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
""")
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    subprocess.run([sys.executable, script, numbered.url("ws"), method], env=environment, timeout=SECONDS, check=True)
    assert numbers(numbered.store) == [0, 2]


# ---- files ----


def test_what_memory_does_not_hold_goes_to_files_and_arrives_in_order(new_writer: NewWriter, tmp_path: Path) -> None:
    with EventServer(Store(numbered=True)) as server:
        server.faults.gate.clear()
        writer = new_writer(
            server.url("ws"), when_full="spill", spill_folder=tmp_path / "spill", bounds=Bounds(events=100)
        )
        for n in range(5_000):
            assert writer.write({"n": n})
        assert writer.counts().spilled_bytes
        assert writer.counts().held <= 150, "the bound, and a file that is on its way"
        server.faults.gate.set()
        assert writer.flush(SECONDS)
        assert [value["n"] for value in server.store.values()] == list(range(5_000))
        assert len({headers["x-stream-id"] for headers in server.store.streams}) == 1
        assert writer.counts().spilled_bytes == 0
        assert not writer.close()
    assert list((tmp_path / "spill").iterdir()) == []


def test_full_files_lose_the_newest(new_writer: NewWriter, tmp_path: Path) -> None:
    with EventServer(Store(numbered=True)) as server:
        server.faults.gate.clear()
        options = {"when_full": "spill", "spill_folder": tmp_path, "spill_bytes": 2_000, "bounds": Bounds(events=10)}
        writer = new_writer(server.url("ws"), **options)
        taken = [n for n in range(1_000) if writer.write({"n": n})]
        assert 100 < len(taken) < 300
        assert sum(file.stat().st_size for file in tmp_path.glob("*.jsonl")) <= 2_000
        server.faults.gate.set()
        assert writer.flush(SECONDS)
        assert [value["n"] for value in server.store.values()] == taken


def test_what_close_cannot_deliver_is_sent_by_the_next_program(
    new_writer: NewWriter, errors: list[str], tmp_path: Path
) -> None:
    options = {"when_full": "spill", "spill_folder": tmp_path}
    server = EventServer(Store(numbered=True), faults=Faults(hang_up_after=5))
    writer = new_writer(server.url("ws"), **options)
    for n in range(20):
        writer.write({"n": n})
    eventually(lambda: len(server.store.events) >= 5)
    server.kill()
    undelivered = writer.close(0.05)
    assert undelivered.events == 0
    assert undelivered.kept_bytes > 0
    assert "kept on disk" in errors[-1]
    with EventServer(server.store, server.port):
        again = new_writer(server.url("ws"), **options)
        again.write({"n": 20})
        assert again.flush(SECONDS)
        assert [value["n"] for value in server.store.values()] == list(range(21))
        assert not again.close()
    assert list(tmp_path.iterdir()) == []


def test_files_survive_a_kill_of_the_program(new_writer: NewWriter, tmp_path: Path) -> None:
    """Its memory does not: what was on its way is sent from there alone. Nothing arrives twice."""
    text = """
import os, signal, sys
from streamgauge.client import Bounds, Writer
writer = Writer(sys.argv[1], when_full="spill", spill_folder=sys.argv[2], bounds=Bounds(events=100))
for n in range(1000):
    writer.write({"n": n})
os.kill(os.getpid(), signal.SIGKILL)
"""
    with EventServer(Store(numbered=True)) as server:
        server.faults.gate.clear()
        run_program(text, server.url("ws"), str(tmp_path), code=-signal.SIGKILL)
        kept = sorted(
            json.loads(line)["n"] for file in tmp_path.glob("*.jsonl") for line in file.read_text().splitlines()
        )
        assert len(kept) >= 800
        server.faults.gate.set()
        writer = new_writer(server.url("http"), when_full="spill", spill_folder=tmp_path)
        assert writer.flush(SECONDS)
        arrived = numbers(server.store)
        assert len(arrived) == len(set(arrived))
        assert set(kept) <= set(arrived)


def test_files_of_a_living_program_are_left_alone(new_writer: NewWriter, tmp_path: Path) -> None:
    with EventServer() as server:
        server.faults.gate.clear()
        options = {"when_full": "spill", "spill_folder": tmp_path, "bounds": Bounds(events=10)}
        writer = new_writer(server.url("ws"), **options)
        for n in range(100):
            writer.write({"n": n})
        files = set(tmp_path.iterdir())
        assert not Spill(tmp_path, 1 << 20)
        other = new_writer(server.url("ws"), **options)
        assert not other.close(0)
        assert set(tmp_path.iterdir()) == files


def test_what_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    name = "01234567-89ab-cdef-0123-456789abcdef"
    (tmp_path / f"{name}-7.jsonl").write_bytes(b'{"n":7}\n{"n":8}\n{"n"')
    (tmp_path / f"{name}-1.part").write_bytes(b"{")
    (tmp_path / "notes.txt").write_text("mine")
    spill = Spill(tmp_path, 1 << 20)
    segment, events = spill.load()
    assert (segment.stream, segment.first, events) == (name, 7, [b'{"n":7}', b'{"n":8}'])
    assert not spill


@pytest.mark.parametrize(
    "options",
    [
        {"when_full": "spill"},
        {"spill_folder": "x"},
        {"when_full": "never"},
        {"headers": {"a": "b\r\nc: d"}},
        {"headers": {"a": "…"}},
    ],
)
def test_arguments_that_do_not_fit_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Writer("ws://127.0.0.1:1", **options)  # type: ignore[arg-type]
