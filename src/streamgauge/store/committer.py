"""Group commit: one thread that writes to the log whatever gathered while it synced the group before.

The event loop hands over batches and goes on; the thread encodes, writes and syncs them, and hands the outcome back to
the loop. Nothing is published before its sync, so a sync that fails has nothing to roll back.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np

from streamgauge.errors import StorageError
from streamgauge.model.arrays import UInt32s
from streamgauge.model.batch import Metadata, SampleBatch, joined
from streamgauge.model.events import EventBatch
from streamgauge.model.sink import Done
from streamgauge.store.events.head import MAX_COMMIT_BYTES, MAX_COMMIT_EVENTS, size_of
from streamgauge.store.events.records import encode_events, encode_streams
from streamgauge.store.head import MAX_COMMIT_ROWS
from streamgauge.store.id_set import IdSet
from streamgauge.store.mailbox import Mailbox
from streamgauge.store.ports import Log, Record, RecordKind
from streamgauge.store.records import encode_definitions, encode_metadata, encode_samples

MAX_GROUP_ROWS = 32 * MAX_COMMIT_ROWS
"""Rows synced together: about 10 MB, so that the first of a crowd does not wait for all of it."""
MAX_GROUP_BYTES = 16 << 20
"""The same for the text of events."""


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """One append on its way to disk. `done` is the event loop's to call, and raises nothing."""

    batch: SampleBatch  # at most MAX_COMMIT_ROWS rows
    metadata: tuple[Metadata, ...]
    done: Done
    events: tuple[EventBatch, ...] = ()  # at most one, which fits a commit or is one event


@dataclass(frozen=True, slots=True)
class Commit:
    """Samples or events that are on disk under one commit number."""

    number: int
    batch: SampleBatch
    span: tuple[int, int] = (0, 0)  # the first and the last of its samples' times
    events: tuple[EventBatch, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """Something else to be done on the log's thread."""

    task: Callable[[], None]
    done: asyncio.Future[None]


_Work = Pending | _Task | None
"""None is the end."""

_REPEATED = 256
_REPEATED_BYTES = 64 << 10
"""Arrays that are remembered as defined, and what each of them has at most: 16 MiB in all."""

Published = Callable[[Sequence[Commit], Sequence[Pending]], None]
Failed = Callable[[Sequence[Pending], StorageError], None]


class Committer:
    """`published` and `failed` are called on the event loop; `keys_of` on the committer's thread.

    What was queued behind a group that fails, before the loop heard of it, fails with it: of the events of a stream
    none may be stored without those before it.
    """

    def __init__(
        self,
        log: Log,
        keys_of: Callable[[UInt32s], Sequence[bytes]],
        published: Published,
        failed: Failed,
    ) -> None:
        self._log = log
        self._next_commit = 0
        self._keys_of = keys_of
        self._published = published
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._inbox: SimpleQueue[_Work] = SimpleQueue()
        self._heard: SimpleQueue[None] = SimpleQueue()  # the loop knows of the group that failed
        self._defined = IdSet()  # series in the open segment; the thread's own, as is the next
        self._defined_streams: set[int] = set()
        self._repeated: dict[int, UInt32s] = {}  # arrays that cannot change and are defined wholly, by their id()
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    def start(self, next_commit: int) -> None:
        """Begin, with this number for the first commit. The log has been replayed to its end."""
        self._next_commit = next_commit
        self._mailbox = Mailbox(self._loop)
        self._thread.start()

    def submit(self, pending: Pending) -> None:
        """Queue an append. Loop thread."""
        self._inbox.put(pending)

    def run(self, task: Callable[[], None]) -> asyncio.Future[None]:
        """Run something on the log's thread, between two groups. Loop thread."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._inbox.put(_Task(task, done))
        return done

    def probe(self) -> asyncio.Future[None]:
        """Try whether the disk takes writes. Loop thread; the future has the StorageError when it does not."""
        return self.run(self._write_nothing)

    async def close(self) -> None:
        """Write what is queued, then end the thread."""
        self._inbox.put(None)
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)
            self._mailbox.close()

    def _run(self) -> None:
        work = self._inbox.get()
        while work is not None:
            if isinstance(work, _Task):
                self._perform(work.task, work.done)
                work = self._inbox.get()
            else:
                work = self._commit_with(work)

    def _commit_with(self, first: Pending) -> _Work:
        """Write an append together with those that are behind it, up to a bound; what is to be done next."""
        group = [first]
        rows, size = len(first.batch.series), sum(map(size_of, first.events))
        work: _Work = first
        while rows < MAX_GROUP_ROWS and size < MAX_GROUP_BYTES and not self._inbox.empty():
            work = self._inbox.get()
            if not isinstance(work, Pending):
                break
            group.append(work)
            rows += len(work.batch.series)
            size += sum(map(size_of, work.events))
        self._commit(group)
        return self._inbox.get() if isinstance(work, Pending) else work

    def _perform(self, task: Callable[[], None], done: asyncio.Future[None]) -> None:
        try:
            task()
        except Exception as error:
            self._mailbox.post(settle, done, error)
        else:
            self._mailbox.post(settle, done, None)

    def _commit(self, group: list[Pending]) -> None:
        try:
            commits = self._write(group)
        except StorageError as error:
            self._fail(group, error)
        except Exception as error:
            # A bug of ours must not end the thread that every writer waits for.
            failure = StorageError(f"the log could not be written: {error!r}")
            failure.__cause__ = error
            self._fail(group, failure)
        else:
            self._mailbox.post(self._published, commits, group)

    def _fail(self, group: list[Pending], error: StorageError) -> None:
        self._mailbox.post(self._hear_of_failure, group, error)
        self._heard.get()

    def _hear_of_failure(self, group: list[Pending], error: StorageError) -> None:
        """Loop thread, while the committer's waits."""
        queued = [self._inbox.get() for _ in range(self._inbox.qsize())]
        for work in queued:
            if not isinstance(work, Pending):
                self._inbox.put(work)
        self._heard.put(None)
        self._failed([*group, *(work for work in queued if isinstance(work, Pending))], error)

    def _write(self, group: list[Pending]) -> list[Commit]:
        """Write and sync a group, in commits of at most MAX_COMMIT_ROWS rows."""
        metadata = [entry for pending in group for entry in pending.metadata]
        commits = [Commit(self._number(), batch, batch.span()) for batch in _in_commits(group)]
        if has_events := any(pending.events for pending in group):
            commits += [Commit(self._number(), _NO_SAMPLES, events=events) for events in _events_in_commits(group)]
        if not commits and not metadata:
            return []
        first = commits[0].number if commits else self._number()
        body = [_record_of(commit) for commit in commits]
        if metadata:
            body.insert(0, Record(first, RecordKind.METADATA, encode_metadata(metadata)))
        records = self._definitions(commits, first) + body
        if self._log.reserve(sum(len(record.payload) for record in records)):
            self._forget_definitions()
            records = self._definitions(commits, first) + body
        self._log.append(records)
        if records[0].kind is RecordKind.SERIES:
            for commit in commits:
                self._defined.add(commit.batch.series)
        if has_events:
            self._defined_streams.update(batch.stream.id for commit in commits for batch in commit.events)
        return commits

    def _number(self) -> int:
        self._next_commit += 1
        return self._next_commit - 1

    def _forget_definitions(self) -> None:
        self._defined = IdSet()
        self._defined_streams = set()
        self._repeated = {}

    def _write_nothing(self) -> None:
        """Sync a record without content."""
        record = Record(self._number(), RecordKind.METADATA, encode_metadata([]))
        if self._log.reserve(len(record.payload)):
            self._forget_definitions()
        self._log.append([record])

    def _definitions(self, commits: Sequence[Commit], number: int) -> list[Record]:
        """The records that define every series and stream of `commits` that the open segment does not define yet."""
        records = []
        fresh = [self._undefined(commit.batch.series) for commit in commits]
        missing = fresh[0] if len(fresh) == 1 else np.concatenate([_NO_SAMPLES.series, *fresh])
        if len(missing):
            missing = np.unique(missing)
            payloads = encode_definitions(missing, self._keys_of(missing))
            records += [Record(number, RecordKind.SERIES, payload) for payload in payloads]
        if not commits or not commits[-1].events:  # those with events come last
            return records
        streams = {batch.stream.id: batch.stream for commit in commits for batch in commit.events}
        begun = [stream for key, stream in streams.items() if key not in self._defined_streams]
        if begun:
            records.append(Record(number, RecordKind.STREAMS, encode_streams(begun)))
        return records

    def _undefined(self, ids: UInt32s) -> UInt32s:
        """Those of the ids that the open segment does not define."""
        if id(ids) in self._repeated:
            return _NO_SAMPLES.series
        defined = self._defined.contains(ids)
        if np.count_nonzero(defined) < len(ids):
            return ids[~defined]
        if ids.base is None and not ids.flags.writeable and ids.nbytes <= _REPEATED_BYTES:
            if len(self._repeated) >= _REPEATED:
                self._repeated.clear()
            self._repeated[id(ids)] = ids
        return _NO_SAMPLES.series


_NO_SAMPLES = SampleBatch(np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0, np.float64))


def pending_events(batch: EventBatch, done: Done) -> Pending:
    """An append of events alone."""
    return Pending(_NO_SAMPLES, (), done, (batch,))


def _record_of(commit: Commit) -> Record:
    if commit.events:
        return Record(commit.number, RecordKind.EVENTS, encode_events(commit.events))
    return Record(commit.number, RecordKind.SAMPLES, encode_samples(commit.batch, commit.span))


def _events_in_commits(group: Sequence[Pending]) -> Iterator[tuple[EventBatch, ...]]:
    """The events of a group in order, put together as far as a commit may go."""
    gathered: list[EventBatch] = []
    events = size = 0
    for batch in (batch for pending in group for batch in pending.events):
        more = size_of(batch)
        if gathered and (events + len(batch) > MAX_COMMIT_EVENTS or size + more > MAX_COMMIT_BYTES):
            yield tuple(gathered)
            gathered, events, size = [], 0, 0
        gathered.append(batch)
        events += len(batch)
        size += more
    if gathered:
        yield tuple(gathered)


def _in_commits(group: Sequence[Pending]) -> list[SampleBatch]:
    """The batches of a group in order, small ones put together up to MAX_COMMIT_ROWS rows."""
    if len(group) == 1:
        return [group[0].batch] if len(group[0].batch.series) else []
    result: list[SampleBatch] = []
    gathered: list[SampleBatch] = []
    rows = 0
    for pending in group:
        more = len(pending.batch)
        if not more:
            continue
        if rows + more > MAX_COMMIT_ROWS and gathered:
            result.append(joined(gathered))
            gathered, rows = [], 0
        gathered.append(pending.batch)
        rows += more
    if gathered:
        result.append(joined(gathered))
    return result


def settle(done: asyncio.Future[None], error: Exception | None) -> None:
    """Whoever waits for it may have been cancelled."""
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
