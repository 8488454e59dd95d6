"""What one query can do to the others: nothing. Real processes throughout."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import NotReady, Overloaded, QueryCanceled, QueryFailed, QueryTimeout, StorageError
from streamgauge.query.budget import Limits
from streamgauge.query.hosts.history import HostNamesQuery
from streamgauge.query.pool import CANCEL_GRACE, IDLE_SECONDS, RECYCLE_BYTES, TIMEOUT_GRACE, WorkerPool
from streamgauge.query.process import WorkerStarter
from streamgauge.query.requests import (
    Answer,
    CardinalityQuery,
    FederateQuery,
    HistoryQuery,
    Job,
    LabelValuesQuery,
    RunningQuery,
)
from streamgauge.query.running import failure
from streamgauge.testing import Trouble

pytestmark = pytest.mark.usefixtures("forking_workers")

SMALL = Job(LabelValuesQuery("pid", (), 0, 1))
BIG = Job(CardinalityQuery())

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel enforces this on Linux")


class Stand:
    """A pool whose next snapshot is `snapshot`, and the leases that it holds."""

    def __init__(self, **settings: Any) -> None:
        self.snapshot: Any = Trouble()
        self.leases = 0
        self.quiet = asyncio.Event()
        self.pool = WorkerPool(self.take, **{"workers": 1} | settings)

    def take(self) -> tuple[Any, Callable[[], None]]:
        if isinstance(self.snapshot, Exception):
            raise self.snapshot
        self.leases += 1
        return self.snapshot, self.end_lease

    def end_lease(self) -> None:
        self.leases -= 1
        if self.leases == 0:
            self.quiet.set()

    async def all_workers_free(self) -> None:
        self.quiet.clear()
        if self.leases:
            await self.quiet.wait()
        await turn()

    def begin(self, job: Job, snapshot: Any) -> asyncio.Task[tuple[Answer, bytes]]:
        self.snapshot = snapshot
        return asyncio.create_task(self.answer(job))

    async def answer(self, job: Job, snapshot: Any = None) -> tuple[Answer, bytes]:
        self.snapshot = self.snapshot if snapshot is None else snapshot
        answer = await self.pool.run(job)
        return answer, await read(answer)

    async def pid(self) -> int:
        """Of the reserved worker, unless it is busy."""
        _, body = await self.answer(SMALL, Trouble())
        return int(json.loads(body)["data"][0])

    def line(self) -> RunningQuery:
        [line] = self.pool.running()
        return line


class Gate:
    """Where queries of `Trouble(gate=…)` report and wait."""

    def __init__(self) -> None:
        self.arrivals: asyncio.Queue[Arrival] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        await self.arrivals.put(Arrival(int(await reader.readline()), reader, writer))


class Arrival:
    def __init__(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self.reader = reader
        self.writer = writer

    def release(self) -> None:
        self.writer.write(b".")

    async def process_ended(self) -> None:
        with suppress(ConnectionError):
            assert await self.reader.read() == b""


async def read(answer: Answer) -> bytes:
    async with aclosing(answer.chunks):
        return b"".join([chunk async for chunk in answer.chunks])


async def turn() -> None:
    """Let tasks that were just made run until they wait."""
    for _ in range(5):
        await asyncio.sleep(0)


def error(body: bytes) -> str:
    envelope = json.loads(body)
    assert envelope["status"] == "error"
    return str(envelope["error"])


def run(test: Callable[..., Coroutine[Any, Any, None]], **settings: Any) -> None:
    """Run a test of (stand, gate) or (stand, gate, clock)."""
    asyncio.run(_run(test, settings))


async def _run(test: Callable[..., Awaitable[None]], settings: dict[str, Any]) -> None:
    stand = Stand(**settings)
    async with asyncio.timeout(60), opened_gate() as gate:
        try:
            await stand.pool.start()
            await test(stand, gate)
        finally:
            await stand.pool.close()
    assert stand.leases == 0
    assert stand.pool.running() == []


@asynccontextmanager
async def opened_gate() -> AsyncIterator[Gate]:
    gate = Gate()
    server = await asyncio.start_server(gate.arrived, "127.0.0.1", 0)
    gate.port = server.sockets[0].getsockname()[1]
    async with server:
        try:
            yield gate
        finally:
            for writer in gate.writers:
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()


# ---- queries that go wrong ----------------------------------------------------------------------------------------


FAILURES = {
    "refuse": (422, "refused"),
    "fail": (500, "internal error; the server's log says more"),
    "abort": (422, "SIGABRT; other queries are not affected"),
    "kill": (422, "SIGKILL; most likely the machine ran out of memory"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="signals are named elsewhere")
def test_a_query_that_fails_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def test(stand: Stand, gate: Gate) -> None:
        other = stand.begin(BIG, Trouble(gate=gate.port))
        waiting = await gate.arrivals.get()
        for what, (status, says) in FAILURES.items():
            answer, body = await stand.answer(SMALL, Trouble(what))
            assert answer.status == status
            assert says in error(body)
        assert "a detail that is nobody's business" in caplog.text
        waiting.release()
        assert (await other)[0].status == 200
        assert (await stand.answer(SMALL, Trouble()))[0].status == 200
        assert stand.pool.statistics().died == 2

    run(test)


@linux
def test_a_query_that_eats_memory_fails_alone() -> None:
    async def test(stand: Stand, gate: Gate) -> None:
        answer, body = await stand.answer(SMALL, Trouble("allocate"))
        assert answer.status == 422
        assert error(body) == "query needs more than 256 MiB of memory; narrow it"
        assert (await stand.answer(SMALL, Trouble()))[0].status == 200

    run(test, starter=WorkerStarter(memory_limit=256 << 20))


def test_memory_is_watched_where_the_kernel_does_not() -> None:
    async def test(stand: Stand, gate: Gate) -> None:
        answer, body = await stand.answer(SMALL, Trouble("hold", 250 << 20))
        assert answer.status == 422
        assert "more than 256 MiB of memory" in error(body)

    run(test, starter=WorkerStarter(memory_limit=256 << 20), watch_memory=True)


@pytest.mark.parametrize("what", ["spin", "deaf"])
def test_a_query_that_never_ends_is_killed_when_its_time_is_over(what: str) -> None:
    clock = ManualClock()

    async def test(stand: Stand, gate: Gate) -> None:
        job = Job(SMALL.query, Limits(seconds=100))
        query = stand.begin(job, Trouble(what, gate=gate.port))
        stuck = await gate.arrivals.get()
        stuck.release()
        await clock.advance(100 + TIMEOUT_GRACE - 0.1)
        assert stand.line().state == "running"
        await clock.advance(0.2)
        answer, body = await query
        assert answer.status == 503
        assert error(body) == "query timed out after 100 s (--query-timeout)"
        await stuck.process_ended()
        assert await stand.pid() != stuck.pid
        assert stand.pool.statistics().killed == 1
        assert stand.pool.statistics().timed_out == 1

    run(test, clock=clock)


def test_a_query_that_is_canceled_answers_at_once_and_is_killed_if_it_goes_on() -> None:
    clock = ManualClock()

    async def test(stand: Stand, gate: Gate) -> None:
        query = stand.begin(SMALL, Trouble("spin", gate=gate.port))
        stuck = await gate.arrivals.get()
        line = stand.line()
        assert (line.text, line.state, line.worker) == ("values of label pid", "running", stuck.pid)
        stuck.release()
        assert stand.pool.cancel(line.id)
        answer, body = await query
        assert (answer.status, error(body)) == (503, "the query was canceled")
        await clock.advance(CANCEL_GRACE + 0.1)
        await stuck.process_ended()
        assert await stand.pid() != stuck.pid
        assert not stand.pool.cancel(line.id)

    run(test, clock=clock)


def test_a_canceled_query_that_stops_in_time_costs_no_worker() -> None:
    async def test(stand: Stand, gate: Gate) -> None:
        query = stand.begin(BIG, Trouble(gate=gate.port))
        first = await gate.arrivals.get()
        stand.pool.cancel(stand.line().id)
        assert (await query)[0].status == 503
        following = stand.begin(BIG, Trouble(gate=gate.port))
        first.release()
        second = await gate.arrivals.get()
        assert second.pid == first.pid
        second.release()
        assert (await following)[0].status == 200
        assert stand.pool.statistics().killed == 0

    run(test, clock=ManualClock())


def test_a_client_that_goes_away_stops_its_query() -> None:
    clock = ManualClock()

    async def test(stand: Stand, gate: Gate) -> None:
        query = stand.begin(SMALL, Trouble("spin", gate=gate.port))
        stuck = await gate.arrivals.get()
        stuck.release()
        query.cancel()
        await asyncio.wait([query])
        assert query.cancelled()
        await clock.advance(CANCEL_GRACE + 0.1)
        await stuck.process_ended()

    run(test, clock=clock)


def test_a_client_that_goes_away_while_it_waits_is_forgotten() -> None:
    async def test(stand: Stand, gate: Gate) -> None:
        first = stand.begin(BIG, Trouble(gate=gate.port))
        running = await gate.arrivals.get()
        second = stand.begin(BIG, Trouble())
        await turn()
        assert [line.state for line in stand.pool.running()] == ["running", "waiting"]
        second.cancel()
        await asyncio.wait([second])
        assert [line.state for line in stand.pool.running()] == ["running"]
        running.release()
        await first

    run(test)


def test_an_answer_is_read_whole_or_its_error_is_raised() -> None:
    async def test(stand: Stand, gate: Gate) -> None:
        body = await stand.pool.read(SMALL)
        assert json.loads(body)["status"] == "success"
        stand.snapshot = Trouble("refuse")
        with pytest.raises(QueryFailed, match="refused"):
            await stand.pool.read(SMALL)
        stand.snapshot = Trouble(gate=gate.port)
        reading = asyncio.create_task(stand.pool.read(SMALL))
        arrival = await gate.arrivals.get()
        reading.cancel()
        await asyncio.wait([reading])
        assert stand.pool.statistics().canceled == 1
        arrival.release()

    run(test)


def test_closing_an_answer_early_cancels_the_query() -> None:
    async def test(stand: Stand, gate: Gate) -> None:
        stand.snapshot = Trouble("large", 30 << 20)
        answer = await stand.pool.run(SMALL)
        await answer.chunks.aclose()
        assert stand.pool.statistics().canceled == 1
        with pytest.raises(QueryCanceled):
            await answer.chunks.__anext__()

    run(test)


def test_an_answer_whose_worker_dies_in_the_middle_is_never_taken_for_whole() -> None:
    async def test(stand: Stand, gate: Gate) -> None:
        stand.snapshot = Trouble("large", 100 << 20)
        answer = await stand.pool.run(SMALL)
        assert answer.status == 200
        pid = stand.line().worker
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(QueryFailed, match="SIGKILL"):
            await read(answer)

    run(test)


# ---- sharing ------------------------------------------------------------------------------------------------------


def test_queries_are_served_in_order_of_arrival_and_refused_when_too_many_wait() -> None:
    async def test(stand: Stand, gate: Gate) -> None:
        queries = [stand.begin(BIG, Trouble(gate=gate.port)) for _ in range(4)]
        arrival = await gate.arrivals.get()
        with pytest.raises(Overloaded, match="3 queries are waiting already") as refused:
            await stand.pool.run(BIG)
        assert refused.value.retry_after is not None
        statistics = stand.pool.statistics()
        assert (statistics.running, statistics.waiting, statistics.refused) == (1, 3, 1)
        assert stand.leases == 1, "a query that waits holds no snapshot"
        served = []
        for _ in queries:
            served += [line.id for line in stand.pool.running() if line.state == "running"]
            arrival.release()
            if len(served) < len(queries):
                arrival = await gate.arrivals.get()
        await asyncio.gather(*queries)
        assert served == sorted(served)
        assert len(served) == 4
        assert stand.pool.statistics().refused == 1

    run(test, max_waiting=3)


def test_whoever_asks_much_neither_delays_nor_displaces_the_others() -> None:
    many, few = replace(BIG, sender="many"), replace(BIG, sender="few")

    async def test(stand: Stand, gate: Gate) -> None:
        queries = [stand.begin(many, Trouble(gate=gate.port)) for _ in range(4)]
        arrival = await gate.arrivals.get()
        queries.append(stand.begin(few, Trouble(gate=gate.port)))
        refused, body = await queries[3]
        assert (refused.status, error(body)) == (503, "3 queries are waiting already (--query-queue)")
        served = []
        for left in range(4, 0, -1):
            served += [line.sender for line in stand.pool.running() if line.state == "running"]
            arrival.release()
            if left > 1:
                arrival = await gate.arrivals.get()
        assert [(await query)[0].status for query in (*queries[:3], queries[4])] == [200] * 4
        assert served == ["many", "few", "many", "many"]

    run(test, max_waiting=3)


def test_a_query_that_waits_can_be_canceled_and_those_behind_it_move_up() -> None:
    async def test(stand: Stand, gate: Gate) -> None:
        first, second, third = (stand.begin(BIG, Trouble(gate=gate.port)) for _ in range(3))
        running = await gate.arrivals.get()
        waiting = [line.id for line in stand.pool.running() if line.state == "waiting"]
        assert stand.pool.cancel(waiting[0])
        answer, body = await second
        assert (answer.status, error(body)) == (503, "the query was canceled")
        running.release()
        (await gate.arrivals.get()).release()
        assert stand.line().id == waiting[1]
        assert [(await query)[0].status for query in (first, third)] == [200, 200]
        assert not stand.pool.cancel(waiting[0])

    run(test)


def test_a_big_query_has_its_turn_before_small_ones_that_came_later() -> None:
    async def test(stand: Stand, gate: Gate) -> None:
        queries = [stand.begin(BIG, Trouble(gate=gate.port))]
        general = await gate.arrivals.get()
        queries.append(stand.begin(SMALL, Trouble(gate=gate.port)))
        reserved = await gate.arrivals.get()
        queries += [stand.begin(job, Trouble(gate=gate.port)) for job in (BIG, SMALL, SMALL)]
        await turn()
        general.release()
        following = await gate.arrivals.get()
        assert [line.text for line in stand.pool.running() if line.worker == following.pid] == ["cardinality"]
        for arrival in (reserved, following):
            arrival.release()
        for _ in range(2):
            (await gate.arrivals.get()).release()
        assert {(await query)[0].status for query in queries} == {200}

    run(test)


def test_no_more_run_at_once_than_are_allowed_however_many_cores_there_are() -> None:
    async def test(stand: Stand, gate: Gate) -> None:
        queries = [stand.begin(BIG, Trouble(gate=gate.port)) for _ in range(3)]
        arrival = await gate.arrivals.get()
        assert [line.state for line in stand.pool.running()] == ["running", "waiting", "waiting"]
        for _ in range(2):
            arrival.release()
            arrival = await gate.arrivals.get()
        arrival.release()
        await asyncio.gather(*queries)
        assert stand.pool.statistics().started == 2, "one, and the one for small queries"

    run(test, workers=None, concurrency=1)


def test_a_query_that_waits_too_long_is_told_so() -> None:
    clock = ManualClock()

    async def test(stand: Stand, gate: Gate) -> None:
        first = stand.begin(Job(BIG.query, Limits(seconds=1000)), Trouble(gate=gate.port))
        running = await gate.arrivals.get()
        second = stand.begin(Job(BIG.query, Limits(seconds=100)), Trouble())
        await turn()
        await clock.advance(100)
        answer, body = await second
        assert answer.status == 503
        assert answer.retry_after is not None
        assert error(body) == "the query waited 100 s for others to end"
        running.release()
        assert (await first)[0].status == 200

    run(test, clock=clock)


def test_small_queries_never_wait_behind_big_ones() -> None:
    async def test(stand: Stand, gate: Gate) -> None:
        big = [stand.begin(BIG, Trouble(gate=gate.port)) for _ in range(2)]
        first = await gate.arrivals.get()
        assert await stand.pid() != first.pid
        assert [line.state for line in stand.pool.running()] == ["running", "waiting"]
        first.release()
        await asyncio.gather(*big)

    run(test)


def test_workers_are_added_while_queries_wait_and_end_when_idle() -> None:
    clock = ManualClock()

    async def test(stand: Stand, gate: Gate) -> None:
        assert stand.pool.statistics().workers == 2
        queries = [stand.begin(BIG, Trouble(gate=gate.port)) for _ in range(5)]
        arrivals = [await gate.arrivals.get() for _ in range(3)]
        assert len({arrival.pid for arrival in arrivals}) == 3
        assert [line.state for line in stand.pool.running()] == ["running"] * 3 + ["waiting"] * 2
        for arrival in arrivals:
            arrival.release()
        arrivals += [await gate.arrivals.get() for _ in range(2)]
        for arrival in arrivals[3:]:
            arrival.release()
        await asyncio.gather(*queries)
        await stand.all_workers_free()
        assert stand.pool.statistics().workers == 4
        await clock.advance(IDLE_SECONDS + 0.1)
        ends = [asyncio.create_task(arrival.process_ended()) for arrival in arrivals[:3]]
        while sum(end.done() for end in ends) < 2:
            await asyncio.wait([end for end in ends if not end.done()], return_when=asyncio.FIRST_COMPLETED)
        last = stand.begin(BIG, Trouble(gate=gate.port))
        arrival = await gate.arrivals.get()
        assert [arrival.pid] == [a.pid for a, end in zip(arrivals[:3], ends, strict=True) if not end.done()]
        arrival.release()
        await last
        for end in ends:
            end.cancel()

    run(test, clock=clock, workers=3)


def test_a_worker_that_keeps_much_memory_is_replaced() -> None:
    async def test(stand: Stand, gate: Gate) -> None:
        pids = []
        for kept in (1 << 20, RECYCLE_BYTES, 0):
            query = stand.begin(BIG, Trouble("keep", kept, gate=gate.port))
            arrival = await gate.arrivals.get()
            pids.append(arrival.pid)
            arrival.release()
            await query
        assert pids[0] == pids[1] != pids[2]
        assert stand.pool.statistics().recycled == 1

    run(test)


def test_a_client_that_does_not_read_holds_no_worker() -> None:
    async def test(stand: Stand, gate: Gate) -> None:
        size = 20 << 20
        stand.snapshot = Trouble("large", size)
        answers = [await stand.pool.run(SMALL) for _ in range(5)]
        for answer in reversed(answers):
            assert json.loads(await read(answer)) == {"status": "success", "data": ["x" * size]}

    run(test)


def test_an_answer_says_what_it_is() -> None:
    async def test(stand: Stand, gate: Gate) -> None:
        for encoding in ("gzip", "zstd"):
            answer, body = await stand.answer(Job(SMALL.query, encoding=encoding), Trouble("large", 1 << 20))
            assert (answer.content_type, answer.encoding) == ("application/json", encoding)
            assert 0 < len(body) < 100_000
        answer, body = await stand.answer(Job(FederateQuery(("nothing",), 0)))
        assert (answer.status, answer.encoding, body) == (200, "identity", b"")
        assert answer.content_type.startswith("text/plain; version=")
        answer, body = await stand.answer(Job(FederateQuery(("{",), 0)))
        assert answer.status == 400
        assert answer.content_type.startswith("text/plain")
        assert b"parse error" in body

    run(test)


def test_a_history_fails_in_the_form_of_its_path() -> None:
    names = HostNamesQuery(0, 1)
    error = QueryTimeout("too slow")
    enveloped, plain = (failure(Job(HistoryQuery(names, text)), error) for text in (False, True))
    assert enveloped.status == plain.status == 503
    assert (enveloped.content_type, plain.content_type) == ("application/json", "text/plain; charset=utf-8")
    assert json.loads(asyncio.run(read(enveloped)))["error"] == "too slow"
    assert asyncio.run(read(plain)) == b"too slow\n"


# ---- the life of the pool -----------------------------------------------------------------------------------------


def test_without_a_snapshot_the_query_fails_and_the_worker_stays() -> None:
    async def test(stand: Stand, gate: Gate) -> None:
        answer, body = await stand.answer(SMALL, StorageError("no snapshot"))
        assert (answer.status, error(body)) == (500, "no snapshot")
        await turn()
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "query-1"]
        assert (await stand.answer(SMALL, Trouble()))[0].status == 200

    run(test)


def test_workers_that_cannot_start_are_an_error_and_not_a_wait() -> None:
    async def main() -> None:
        stand = Stand(starter=WorkerStarter(("no.such.module",)))
        with pytest.raises(NotReady, match="could not start"):
            await stand.pool.start()
        answer, body = await stand.answer(SMALL)
        assert answer.status == 500
        assert "could not start" in error(body)
        await stand.pool.close()

    asyncio.run(main())


def test_closing_ends_what_runs_and_what_waits() -> None:
    async def main() -> None:
        stand = Stand()
        async with opened_gate() as gate:
            await stand.pool.start()
            queries = [stand.begin(BIG, Trouble(gate=gate.port)) for _ in range(2)]
            arrival = await gate.arrivals.get()
            await stand.pool.close()
            await arrival.process_ended()
            for query in queries:
                assert (await query)[0].status == 503
            with pytest.raises(NotReady):
                await stand.pool.run(SMALL)
            assert stand.leases == 0

    asyncio.run(main())


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent to one process")
def test_a_worker_leaves_it_to_the_server_when_to_end() -> None:
    async def test(stand: Stand, gate: Gate) -> None:
        query = stand.begin(SMALL, Trouble(gate=gate.port))
        arrival = await gate.arrivals.get()
        os.kill(arrival.pid, signal.SIGINT)
        os.kill(arrival.pid, signal.SIGTERM)
        arrival.release()
        assert (await query)[0].status == 200

    run(test)


SERVER = """
import asyncio, sys
from streamgauge.query.pool import WorkerPool
from streamgauge.query.process import WorkerStarter
from streamgauge.query.requests import CardinalityQuery, Job
from streamgauge.testing import Trouble

async def main(what, port):
    pool = WorkerPool(lambda: (Trouble(what, gate=int(port)), lambda: None), workers=2)
    await pool.start()
    if what != "answer":
        await asyncio.gather(*(pool.run(Job(CardinalityQuery())) for _ in range(2)))

asyncio.run(main(*sys.argv[1:]))
"""


def server(directory: Path, what: str, port: int) -> subprocess.Popen[bytes]:
    """A program whose main module is not guarded: a worker that ran it again would start a server of its own."""
    main = directory / "main.py"
    main.write_text(SERVER)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, str(main), what, str(port)], env=environment)


@pytest.mark.parametrize("what", ["spin", pytest.param("deaf", marks=linux)])
def test_busy_workers_do_not_outlive_a_killed_server(what: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = server(tmp_path, what, listener.getsockname()[1])
        listener.settimeout(60)
        workers = [listener.accept()[0] for _ in range(2)]
        for worker in workers:
            assert worker.recv(20)
            worker.sendall(b".")
        process.kill()
        process.wait()
        for worker in workers:
            worker.settimeout(60)
            assert worker.recv(1) == b""
            worker.close()


def test_a_program_that_forgets_to_close_the_pool_ends_nevertheless(tmp_path: Path) -> None:
    with server(tmp_path, "answer", 0) as process:
        assert process.wait(60) == 0
