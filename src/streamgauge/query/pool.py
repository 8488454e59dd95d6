"""The query workers: who runs what, and when one of them has to go.

    waiting -> running in a worker -> answered

Whoever asks has turns with the others who do, and within them the query that came first; and when too many wait, the
last one of whoever has most waiting goes. So one client cannot keep the others from being answered.
One worker at least is kept ready; more are started while queries wait, and end when they have been idle for a while.
One more is reserved for small queries, so that a list of labels never waits behind a month of samples.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import os
import pickle
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path

from streamgauge import errors
from streamgauge.clock import Clock, SystemClock
from streamgauge.errors import NotReady, Overloaded, QueryCanceled, QueryFailed, QueryTimeout, StreamgaugeError
from streamgauge.query.frames import Kind
from streamgauge.query.process import WorkerProcess, WorkerStarter, how_it_ended
from streamgauge.query.requests import Answer, Job, RunningQuery, TakeSnapshot
from streamgauge.query.running import PoolQuery, PoolWorker, failure
from streamgauge.query.spool import AnswerStream, SpoolSpace
from streamgauge.query.worker import HIDDEN

logger = logging.getLogger(__name__)

CONCURRENCY = 20
"""As Prometheus has it. A machine with more cores has better to do than queries alone."""
MAX_WAITING = 200
"""Dashboards of dozens of panels, opened by a few people at once. Each waits with nothing but its request: a few kB,
and never more than a form may have, 1 MiB."""
RETRY_AFTER = 5
"""Seconds, told to whom we refuse. Queries of dashboards take less."""
TIMEOUT_GRACE = 2.0
"""Seconds past a query's time until its worker is killed. The query checks the time itself, between steps of work."""
CANCEL_GRACE = 1.0
IDLE_SECONDS = 60.0
"""After that a worker beyond the first ends. Dashboards refresh at least every minute; to start one takes 0.3 s."""
RECYCLE_BYTES = 1 << 30
"""Private memory with which a worker may go on to the next query. It starts with some 25 MiB, gives back what it can
when it holds 768 MiB or is idle for a second, and is replaced when that was not enough."""
MEMORY_CHECK_SECONDS = 0.5


@dataclass(slots=True)
class PoolStatistics:
    """Totals since the start, and the present state."""

    answered: int = 0  # whole answers, errors that the query itself met among them
    refused: int = 0  # too many were waiting
    canceled: int = 0  # by request, or the client went away
    timed_out: int = 0
    killed: int = 0  # workers that did not stop when told to, or outgrew their memory
    died: int = 0  # workers that ended by themselves
    recycled: int = 0  # workers that kept too much memory
    started: int = 0  # workers
    waiting: int = 0
    running: int = 0
    workers: int = 0


class WorkerPool:
    """Implements `query.requests.Workers`. Used on one event loop; `close` it."""

    def __init__(
        self,
        take_snapshot: TakeSnapshot,
        *,
        clock: Clock | None = None,
        workers: int | None = None,
        concurrency: int = CONCURRENCY,
        max_waiting: int = MAX_WAITING,
        starter: WorkerStarter | None = None,
        watch_memory: bool = sys.platform != "linux",
        spool_directory: Path | None = None,
        failed: Callable[[StreamgaugeError], None] = lambda error: None,
    ) -> None:
        """
        workers: how many queries run at once, beside a small one; by default as many as there are cores, but no more
            than `concurrency`.
        max_waiting: how many queries may wait for a worker; beyond that one is refused.
        starter: starts the workers; it is closed with the pool.
        watch_memory: look at the workers' memory twice a second, where no kernel enforces the limit.
        spool_directory: where answers go that their clients are slow to take.
        failed: is told every error that a query itself met.
        """
        self._take_snapshot = take_snapshot
        self._clock = clock or SystemClock()
        self._limit = workers or min(_cores(), concurrency)
        self._max_waiting = max_waiting
        self._watch_memory = watch_memory
        self._starter = starter or WorkerStarter()
        self._memory_limit = self._starter.memory_limit
        self._spool_directory = spool_directory
        self._space = SpoolSpace()
        self._failed = failed
        self._workers: list[PoolWorker] = []  # the one used last at the end
        self._waiting: list[PoolQuery] = []
        self._queries: dict[int, PoolQuery] = {}  # waiting, or running and not yet answered; oldest first
        self._last_turns: dict[str, int] = {}  # of those who ask: the higher, the later it was
        self._next_id = 1
        self._totals = PoolStatistics()
        self._cannot_start: str | None = None  # then no worker is started until somebody asks again
        self._closing = False

    # ---- the life of the pool ----

    async def start(self, *, all_of_them: bool = True) -> None:
        """Start the first workers and wait until they are ready; or, not `all_of_them`, until one is that runs every
        query, while the one for small queries follows.

        Raises NotReady when what it waits for cannot start.
        """
        atexit.register(self._kill_all)
        self._staff()
        for worker in list(self._workers):
            if all_of_them or not worker.reserved:
                await worker.settled.wait()
        if self._cannot_start is not None:
            raise NotReady(self._cannot_start)

    async def close(self) -> None:
        """Stop all queries and end all workers. Nothing is left running when this returns."""
        self._closing = True
        stopping = NotReady("the server is stopping")
        for query in list(self._queries.values()):
            if query.worker is None:
                self._fail(query, stopping)
            else:
                query.stopped = query.stopped or stopping
        lives = [worker.life for worker in self._workers if worker.life is not None]
        for worker in list(self._workers):
            if worker.process is not None:
                worker.process.signal_kill()
            elif worker.life is not None:
                worker.life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
        await self._starter.close()
        atexit.unregister(self._kill_all)

    def _kill_all(self) -> None:
        """For an interpreter that ends without `close`: it would wait for the workers for ever."""
        for worker in self._workers:
            if worker.process is not None:
                worker.process.signal_kill()

    # ---- query.requests.Workers ----

    async def run(self, job: Job, taken: Callable[[], None] | None = None) -> Answer:
        query = self._admit(job, taken)
        try:
            content_type, encoding = await query.head
        except StreamgaugeError as error:
            return failure(job, error)
        except asyncio.CancelledError:
            self._stop(query, QueryCanceled("the client went away"))
            raise
        return Answer(200, content_type, encoding, query.stream)

    async def read(self, job: Job) -> bytes:
        """The whole of an answer that is small. Raises the error that there is in its place."""
        query = self._admit(job)
        try:
            await query.head
            return b"".join([chunk async for chunk in query.stream])
        finally:
            await query.stream.aclose()

    def running(self) -> list[RunningQuery]:
        return [query.described() for query in self._queries.values()]

    def cancel(self, query_id: int) -> bool:
        query = self._queries.get(query_id)
        if query is None:
            return False
        self._stop(query, QueryCanceled("the query was canceled"))
        return True

    def statistics(self) -> PoolStatistics:
        running = len(self._queries) - len(self._waiting)
        return replace(self._totals, waiting=len(self._waiting), running=running, workers=len(self._workers))

    # ---- queries ----

    def _admit(self, job: Job, taken: Callable[[], None] | None = None) -> PoolQuery:
        if self._closing:
            raise NotReady("the server is stopping")
        gone = QueryCanceled("the client went away")
        query = PoolQuery(
            id=self._next_id,
            job=job,
            started=self._clock.now_ms(),
            admitted=self._clock.monotonic(),
            head=asyncio.get_running_loop().create_future(),
            stream=AnswerStream(self._clock, lambda: self._stop(query, gone), self._space, self._spool_directory),
            taken=taken,
        )
        self._next_id += 1
        self._cannot_start = None
        self._waiting.append(query)
        self._queries[query.id] = query
        self._task(query, self._enforce_deadline(query))
        self._schedule()
        if len(self._waiting) > self._max_waiting:
            self._totals.refused += 1
            refused = self._most_waiting()
            error = Overloaded(f"{self._max_waiting} queries are waiting already (--query-queue)", RETRY_AFTER)
            if refused is query:
                self._forget(query)
                raise error
            self._fail(refused, error)
        return query

    def _most_waiting(self) -> PoolQuery:
        """The last query of whoever has most of them waiting."""
        waiting = Counter(query.job.sender for query in self._waiting)
        return max(reversed(self._waiting), key=lambda query: waiting[query.job.sender])

    def _schedule(self) -> None:
        """Give waiting queries to idle workers, and start workers for the rest."""
        while (turn := self._next()) is not None:
            query, worker = turn
            try:
                self._assign(query, worker)
            except StreamgaugeError as error:  # there is no snapshot to be had
                self._fail(query, error)
            except Exception:
                logger.exception("a query could not be handed to its worker: %s", query.text)
                self._fail(query, StreamgaugeError(HIDDEN))
        self._staff()

    def _next(self) -> tuple[PoolQuery, PoolWorker] | None:
        """The query whose turn it is, and its worker."""
        if not any(worker.idle for worker in self._workers):
            return None
        able = [(query, worker) for query in self._waiting if (worker := self._idle_worker(query)) is not None]
        return min(able, key=lambda turn: self._last_turns.get(turn[0].job.sender, 0), default=None)

    def _idle_worker(self, query: PoolQuery) -> PoolWorker | None:
        """The reserved worker for what is small; else the one used last, so that the others may end."""
        idle = [worker for worker in self._workers if worker.idle and (query.small or not worker.reserved)]
        return max(reversed(idle), key=lambda worker: worker.reserved, default=None)

    def _assign(self, query: PoolQuery, worker: PoolWorker) -> None:
        assert worker.process is not None
        snapshot, query.end_lease = self._take_snapshot()
        if query.taken is not None:
            query.taken()
        waited = self._clock.monotonic() - query.admitted
        worker.process.channel.send(Kind.REQUEST, pickle.dumps((query.id, query.job, snapshot, waited)))
        self._waiting.remove(query)
        query.worker, worker.query = worker, query
        self._note_turn(query.job.sender)
        worker.stop_idling()
        if self._watch_memory:
            self._task(query, self._enforce_memory(query, worker.process))

    def _note_turn(self, sender: str) -> None:
        present = {query.job.sender for query in self._queries.values()}
        turns = {other: turn for other, turn in self._last_turns.items() if other in present}
        self._last_turns = turns | {sender: max(turns.values(), default=0) + 1}

    def _stop(self, query: PoolQuery, error: StreamgaugeError) -> None:
        """Tell a query to stop. What is waited for raises `error` at once; the worker gets a moment to obey."""
        if query.id not in self._queries or query.stopped is not None:
            return
        self._totals.canceled += isinstance(error, QueryCanceled)
        query.stopped = error
        query.refuse(error)
        if query.worker is None:
            self._fail(query, error)
        elif query.worker.process is not None:
            query.worker.process.channel.send(Kind.CANCEL, str(query.id).encode())
            self._task(query, self._kill_after(query, CANCEL_GRACE))

    def _fail(self, query: PoolQuery, error: StreamgaugeError) -> None:
        """A query is over that no worker answers."""
        self._totals.timed_out += isinstance(error, QueryTimeout)
        query.refuse(error)
        self._forget(query)

    def _forget(self, query: PoolQuery) -> None:
        """Nothing works for a query any longer."""
        if query.worker is None:
            self._waiting.remove(query)
        else:
            query.worker.query = None
            query.worker = None
        if query.end_lease is not None:
            end_lease, query.end_lease = query.end_lease, None
            end_lease()
        self._queries.pop(query.id, None)
        current = asyncio.current_task()
        for task in query.tasks:
            if task is not current:
                task.cancel()

    # ---- enforcement ----

    async def _enforce_deadline(self, query: PoolQuery) -> None:
        seconds = query.job.limits.seconds
        await self._clock.sleep(seconds)
        if query.worker is None:
            self._fail(query, QueryTimeout(f"the query waited {seconds:g} s for others to end", RETRY_AFTER))
            return
        await self._clock.sleep(TIMEOUT_GRACE)
        self._kill(query, QueryTimeout(f"query timed out after {seconds:g} s (--query-timeout)"))

    async def _enforce_memory(self, query: PoolQuery, process: WorkerProcess) -> None:
        limit = self._memory_limit
        while process.private_memory() <= limit:
            await self._clock.sleep(MEMORY_CHECK_SECONDS)
        self._kill(query, QueryFailed(f"query needs more than {limit >> 20} MiB of memory; narrow it"))

    async def _kill_after(self, query: PoolQuery, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._kill(query, QueryCanceled("the query was canceled"))

    def _kill(self, query: PoolQuery, error: StreamgaugeError) -> None:
        """End a query by ending its worker. The query is over when the worker is."""
        worker = query.worker
        if worker is None or worker.process is None:
            return
        query.stopped = query.stopped or error
        if not worker.killed:
            worker.killed = True
            self._totals.killed += 1
            logger.warning("killing query worker %d: %s: %s", worker.process.pid, error.message, query.text)
            worker.process.signal_kill()

    # ---- workers ----

    def _staff(self) -> None:
        """Start the workers that are missing: one to be ready, one for each query that waits, and the reserved one."""
        if self._closing or self._cannot_start is not None:
            return
        staying = [worker for worker in self._workers if not worker.leaving]
        general = [worker for worker in staying if not worker.reserved]
        busy = sum(worker.query is not None and worker.query.id in self._queries for worker in general)
        for _ in range(len(general), min(self._limit, max(1, busy + len(self._waiting)))):
            self._hire(reserved=False)
        if not any(worker.reserved for worker in staying):
            self._hire(reserved=True)

    def _hire(self, *, reserved: bool) -> None:
        worker = PoolWorker(reserved)
        self._workers.append(worker)
        worker.life = asyncio.create_task(self._live(worker), name="query-worker")

    async def _live(self, worker: PoolWorker) -> None:
        """A worker's whole life, from its start to its burial."""
        try:
            process = await self._starter.start()
        except BaseException as error:
            self._workers.remove(worker)
            worker.settled.set()
            if not isinstance(error, OSError):  # of which ChildProcessError is one
                raise
            self._give_up_starting(str(error))
            return
        worker.process = process
        worker.settled.set()
        self._totals.started += 1
        try:
            self._dismiss_or_keep(worker)
            while (frame := await process.channel.receive()) is not None:
                await self._handle(worker, *frame)
        except Exception:
            logger.exception("the answer of a query worker is not understood")
            worker.killed = True
            if worker.query is not None:
                worker.query.stopped = StreamgaugeError(HIDDEN)
        finally:
            worker.leaving = True
            code = await process.kill()
            self._workers.remove(worker)
            worker.stop_idling()
            self._mourn(worker, code)
        self._schedule()

    def _give_up_starting(self, why: str) -> None:
        """Queries that no worker is there for must not wait for ever; the next one tries again."""
        self._cannot_start = why
        logger.error("%s", why)
        for query in list(self._waiting):
            if not any(query.small or not worker.reserved for worker in self._workers if not worker.leaving):
                self._fail(query, StreamgaugeError(why))

    def _mourn(self, worker: PoolWorker, code: int | None) -> None:
        query = worker.query
        ended = how_it_ended(code)
        expected = worker.killed or worker.retired or self._closing
        if not expected:
            self._totals.died += 1
            logger.error("a query worker %s%s", ended, f" while it ran: {query.text}" if query else "")
        if query is not None:
            died = QueryFailed(f"the process that ran this query {ended}; other queries are not affected")
            self._fail(query, query.stopped or died)

    async def _handle(self, worker: PoolWorker, kind: Kind, payload: bytes) -> None:
        query = worker.query
        if query is None:
            raise RuntimeError(f"a {kind.name} frame from a query worker that runs nothing")
        if kind is Kind.HEAD:
            head = json.loads(payload)
            query.begin(head["content_type"], head["encoding"])
        elif kind is Kind.CHUNK:
            try:
                await query.stream.put(payload)
            except QueryFailed as cannot_keep:
                self._stop(query, cannot_keep)
        elif kind is Kind.FAULT:
            logger.error("query failed unexpectedly: %s\n%s", query.text, payload.decode(errors="replace"))
        elif kind is Kind.END:
            self._totals.answered += query.stopped is None
            query.stream.finish()
            del self._queries[query.id]
        elif kind is Kind.ERROR:
            met = json.loads(payload)
            problem: StreamgaugeError = getattr(errors, met["name"])(met["message"])
            error = query.stopped or problem
            self._totals.answered += query.stopped is None
            self._totals.timed_out += isinstance(error, QueryTimeout)
            query.refuse(error)
            del self._queries[query.id]
            self._failed(problem)
        elif kind is Kind.READY:
            self._forget(query)
            self._dismiss_or_keep(worker)

    def _dismiss_or_keep(self, worker: PoolWorker) -> None:
        """A worker has become free: let it go if it holds too much memory, else give it the next query."""
        assert worker.process is not None
        if worker.process.private_memory() > RECYCLE_BYTES:
            self._totals.recycled += 1
            worker.retire()
            self._schedule()
            return
        self._workers.remove(worker)
        self._workers.append(worker)
        self._schedule()
        if worker.idle and self._spare(worker):
            worker.idle_timer = asyncio.create_task(self._end_when_idle(worker), name="query-worker-idle")

    async def _end_when_idle(self, worker: PoolWorker) -> None:
        await self._clock.sleep(IDLE_SECONDS)
        worker.idle_timer = None
        if self._spare(worker):
            worker.retire()

    def _spare(self, worker: PoolWorker) -> bool:
        return not worker.reserved and sum(not w.reserved and not w.leaving for w in self._workers) > 1

    def _task(self, query: PoolQuery, work: Coroutine[None, None, None]) -> None:
        query.tasks.append(asyncio.create_task(work, name=f"query-{query.id}"))


def _cores() -> int:
    """Those that this process may use."""
    return (len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()) or 1
