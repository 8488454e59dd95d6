"""The server and its children as processes: killed, stopped, hurried, refused."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from streamgauge.clock import ManualClock
from streamgauge.model.source import NoMeter
from streamgauge.store import catalog_rows, failpoints, names
from streamgauge.store.lock import holder
from streamgauge.store.offline import open_folder
from streamgauge.store.ports import FIRST_TIME, LAST_TIME
from streamgauge.store.verify import check_folder
from streamgauge.testing.lives import batch_of, opened, shared_memory_of
from streamgauge.testing.requests import Series
from streamgauge.testing.server import SECONDS, Response, ServerProcess, eventually

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")

NOW = int(time.time()) * 1000
LARGE_WRITE = 2_000
ROWS_OF_A_FLUSH = 131_072


def start(data: Path, *arguments: str, failpoint: str = "") -> ServerProcess:
    """Processes as users have them."""
    arguments = ("--no-self-monitoring", *arguments)
    return ServerProcess.start(data, arguments, {failpoints.VARIABLE: failpoint}, fresh=True)


def samples(number: int, count: int = LARGE_WRITE) -> list[Series]:
    """`count` series with one sample each, at a time of its own."""
    time = NOW - 600_000 + number
    return [Series({"__name__": "m", "n": str(at)}, [(time, float(number + at))]) for at in range(count)]


def query(server: ServerProcess, expression: str, time: float) -> Response:
    return server.get("/api/v1/query", {"query": expression, "time": f"{time:.3f}"})


class Writers:
    """Threads that write one request after the other, and remember which were acknowledged."""

    def __init__(self, server: ServerProcess, threads: int = 4, count: int = 200) -> None:
        self.acknowledged: list[int] = []
        self.refused: list[tuple[int, str]] = []
        self._server, self._count = server, count
        self._numbers = iter(range(1_000_000))
        self._lock = threading.Lock()
        self._enough = threading.Condition()
        self._pool = ThreadPoolExecutor(threads)
        self._futures = [self._pool.submit(self._write) for _ in range(threads)]

    def _write(self) -> None:
        """Until the server does not answer any more."""
        while True:
            with self._lock:
                number = next(self._numbers)
            try:
                answer = self._server.write(samples(number, self._count))
            except (OSError, psutil.Error, ValueError):
                return
            except Exception as error:  # http.client says a broken answer in many ways
                self.refused.append((0, repr(error)))
                return
            with self._enough:
                if answer.status == 204:
                    self.acknowledged.append(number)
                else:
                    self.refused.append((answer.status, answer.text))
                self._enough.notify_all()

    def until(self, acknowledged: int) -> None:
        with self._enough:
            assert self._enough.wait_for(lambda: len(self.acknowledged) >= acknowledged, SECONDS)

    def end(self) -> list[int]:
        """Once the server is gone."""
        for future in self._futures:
            future.result()
        self._pool.shutdown()
        return self.acknowledged


def nothing_is_missing(data: Path, acknowledged: list[int], count: int) -> None:
    """Each write stored `count` series at its own time, with values that tell the write."""
    assert check_folder(data) == []
    with open_folder(data) as (snapshot, damage):
        assert damage == []
        stored = snapshot.open({}).select([], FIRST_TIME, LAST_TIME, NoMeter()).samples
        numbers = stored.times - (NOW - 600_000)
        rows = np.bincount(numbers)
        sums = np.bincount(numbers, stored.values)
    assert rows.max() == count
    wrong = [number for number in acknowledged if rows[number] != count]
    wrong += [number for number in acknowledged if sums[number] != sum(range(number, number + count))]
    assert wrong == []


def test_kill_9_leaves_nothing_that_the_next_start_does_not_clear(tmp_path: Path) -> None:
    """Killed in the middle of a flush, with a helper, workers and writers at work."""
    held = tmp_path / "held"
    held.touch()
    data = tmp_path / "data"
    spec = f"flush.after_block_written=hang:{held}"
    with start(data, "--head-samples", str(ROWS_OF_A_FLUSH), failpoint=spec) as server:
        writers = Writers(server, count=LARGE_WRITE)
        writers.until(80)
        eventually(lambda: len(server.workers()) >= 3)  # a helper beside the query workers
        assert server.value("count(m)", (NOW - 600_000) / 1000 + 1) == LARGE_WRITE
        children = server.children()
        server.process.kill()
        server.wait()
        acknowledged = writers.end()
        gone, alive = psutil.wait_procs(children, SECONDS)
        assert not alive
        assert len(gone) >= 3
    assert holder(data) is None
    with start(data) as server:
        assert server.value("count(m)", (NOW - 600_000) / 1000 + 1) == LARGE_WRITE
        server.process.terminate()
        assert server.wait() == 0
    assert shared_memory_of(data) == []
    nothing_is_missing(data, acknowledged, LARGE_WRITE)


@pytest.mark.parametrize("point", ["flush.before_catalog", "log.append.after_sync"])
def test_a_real_server_killed_at_a_failpoint_starts_again(tmp_path: Path, point: str) -> None:
    data = tmp_path / "data"
    spec = f"{point}=kill" + ("@60" if point.startswith("log.") else "")
    with start(data, "--head-samples", str(ROWS_OF_A_FLUSH), failpoint=spec) as server:
        writers = Writers(server, count=LARGE_WRITE)
        assert server.wait() == -signal.SIGKILL
        acknowledged = writers.end()
    assert acknowledged
    with start(data) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == 0
    nothing_is_missing(data, acknowledged, LARGE_WRITE)


def test_sigterm_during_writes_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with start(data) as server:
        writers = Writers(server)
        writers.until(30)
        server.process.terminate()
        assert server.wait() == 0
        acknowledged = writers.end()
        assert all(status in (0, 503) for status, _ in writers.refused), writers.refused
        server.await_line("stopping")
    nothing_is_missing(data, acknowledged, 200)


def test_a_write_that_has_begun_finishes_after_sigterm(tmp_path: Path) -> None:
    held = tmp_path / "held"
    data = tmp_path / "data"
    with start(data, failpoint=f"log.append.before_sync=hang:{held}") as server, ThreadPoolExecutor(1) as pool:
        held.touch()
        writing = pool.submit(server.write, samples(7, 10))
        eventually(lambda: server.metric("streamgauge_queued_samples") == 10)
        server.process.terminate()
        server.await_line("stopping")
        assert server.process.poll() is None
        held.unlink()
        assert writing.result().status == 204
        assert server.wait() == 0
    nothing_is_missing(data, [7], 10)


@contextmanager
def half_a_request(server: ServerProcess) -> Iterator[None]:
    """A client that sends half of a body and waits."""
    with server.connect() as client:
        client.sendall(
            b"POST /api/v1/write HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 500
        )
        yield


def test_a_second_signal_hurries(tmp_path: Path) -> None:
    """The first waits for requests that have begun, 30 s at most; this test has less patience."""
    data = tmp_path / "data"
    with start(data) as server, half_a_request(server):
        eventually(lambda: server.metric("streamgauge_http_connections") >= 2)
        assert server.write(samples(1, 10)).status == 204
        server.process.terminate()
        server.await_line("stopping")
        server.process.terminate()
        assert server.wait(20) == 0
    nothing_is_missing(data, [1], 10)


def test_a_worker_that_dies_costs_its_query_alone(tmp_path: Path) -> None:
    with start(tmp_path / "data") as server, ThreadPoolExecutor(1) as pool:
        assert server.write(samples(1, 10)).status == 204
        workers = server.workers()
        for worker in workers:
            worker.suspend()  # a query that is sent to one now is in the middle for as long as we like
        asking = pool.submit(query, server, "count(m)", (NOW - 600_000) / 1000 + 1)
        running: list[int] = []

        def is_running() -> bool:
            listed = server.data_of("/api/v1/status/queries")["queries"]
            running[:] = [each["worker"] for each in listed if each["worker"]]
            return bool(running)

        eventually(is_running)
        assert server.write(samples(2, 10)).status == 204
        os.kill(running[0], signal.SIGKILL)
        answer = asking.result()
        assert answer.status == 422
        assert "the process that ran this query was ended by signal SIGKILL" in answer.json()["error"]
        assert server.write(samples(3, 10)).status == 204
        for worker in workers:
            if worker.pid != running[0]:
                worker.resume()
        assert server.value("count(m)", (NOW - 600_000) / 1000 + 1) == 10


def test_a_server_whose_descriptors_are_closed_writes_its_log_and_answers(tmp_path: Path) -> None:
    """Some service managers start programs so. The next file would get the number of standard error."""
    data = tmp_path / "data"
    command = [sys.executable, "-m", "streamgauge", "serve", "--data", str(data), "--listen", "127.0.0.1:0"]
    with ServerProcess(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command, "--no-self-monitoring"], data) as server:

        def listens() -> bool:
            found = holder(data)
            server.port = int(found.address.rpartition(":")[2]) if found is not None and found.address else 0
            return server.port != 0 and server.get("/-/ready").status == 200

        eventually(listens)
        assert server.write(samples(1, 10)).status == 204
        assert server.value("count(m)", (NOW - 600_000) / 1000 + 1) == 10
        assert {os.readlink(f"/proc/{server.process.pid}/fd/{fd}") for fd in range(3)} == {os.devnull}
        assert server.stop() == 0
    nothing_is_missing(data, [1], 10)


def test_a_second_server_on_a_folder_is_refused_by_name(tmp_path: Path) -> None:
    with start(tmp_path / "data") as server:
        with ServerProcess.launch(tmp_path / "data") as second:
            assert second.wait() == 3
            (line,) = second.output
            assert "is in use by" in line
            assert f"process {server.process.pid}, which listens on 127.0.0.1:{server.port}" in line
        assert server.write(samples(1, 10)).status == 204


def test_a_folder_of_a_later_format_is_refused_with_one_clear_line(tmp_path: Path) -> None:
    data = tmp_path / "data"
    asyncio.run(filled(data))
    with closing(sqlite3.connect(names.catalog_file(data))) as connection, connection:
        catalog_rows.set_format(connection, 99)
    before = names.catalog_file(data).read_bytes()
    with ServerProcess.launch(data) as server:
        assert server.wait() == 3
        line = server.await_line("is of format 99")
        assert line.startswith("streamgauge: ")
        assert "start the newer one" in line
        assert not any("Traceback" in other for other in server.output)
    assert names.catalog_file(data).read_bytes() == before


async def filled(data: Path) -> None:
    """A folder with a block of yesterday and one of today."""
    async with opened(data, ManualClock(NOW)) as (store, maintenance):
        for label, at in ((b"old\xff", NOW - 86_400_000), (b"new\xff", NOW - 1000)):
            await store.append(batch_of(store, [(label, at, 1 << 62)]))
            store.head.seal()
            await maintenance.flush(1 << 20)


def test_a_damaged_block_costs_one_query_and_the_rest_is_served(tmp_path: Path) -> None:
    data = tmp_path / "data"
    asyncio.run(filled(data))
    damaged = min(names.blocks_dir(data).iterdir())
    content = bytearray(names.samples_file(damaged).read_bytes())
    content[30] ^= 1
    names.samples_file(damaged).write_bytes(content)
    with start(data) as server:
        assert server.metric("streamgauge_damaged") == 0
        answer = query(server, "count_over_time(old[2d])", NOW / 1000)
        assert answer.status == 500
        assert f"block {damaged.name}" in answer.json()["error"]
        eventually(lambda: server.metric("streamgauge_damaged") == 1)
        assert server.value('count_over_time({__name__=~"old|new"}[2d])', NOW / 1000) == 1
        assert server.value("count_over_time(old[2d])", NOW / 1000) is None
        server.process.terminate()
        assert server.wait() == 0
    assert len(check_folder(data)) == 1
