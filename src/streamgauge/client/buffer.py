"""What a writer holds that no server has acknowledged: bounded, and given indexes only as it is about to be sent.

    numbered   the oldest: events of one stream with consecutive indexes, sent or about to be
    spill      files, each of consecutive events of one stream; only with a folder for them
    waiting    the newest: no index yet, so that the oldest of them can be dropped without a gap

Events leave `numbered` when they are acknowledged. The next come from the oldest file if there is one, else from
`waiting`. All of it is guarded by one lock; any thread may put, one thread sends.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from streamgauge.client.encoding import encode, rfc3339
from streamgauge.client.spill import Segment, Spill

WhenFull = Literal["block", "drop-oldest", "spill"]

WINDOW_EVENTS = 4096
WINDOW_BYTES = 4 << 20
"""Sent and not acknowledged, at most. A reference server acknowledges when it has nothing more to read, so a sender
must stop at some point; 200,000 events a second still fit through at 20 ms for an acknowledgement."""
SEGMENT_BYTES = 1 << 20
"""Of events that are written to a file at once: a millisecond for the caller who finds the buffer full."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of what is held in memory, of a single event, and of how long a full buffer makes a caller wait."""

    events: int = 100_000
    bytes: int = 64 << 20
    event_bytes: int = 16 << 20  # what a reference server takes in one message
    block_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Counts:
    """Of events since the writer was made. What is in none of the others was acknowledged or is held."""

    accepted: int = 0  # taken from callers or from an earlier program's files, and notices in place of others
    acknowledged: int = 0
    lost: int = 0  # for want of room, or too late; accepted before only where the oldest are dropped
    refused: int = 0  # too large, or the server does not want them
    held: int = 0  # in memory
    spilled_bytes: int = 0  # on disk


@dataclass(frozen=True, slots=True)
class Undelivered:
    """What `close` could not bring to the server."""

    events: int = 0  # lost with this program, though the last of them may have arrived
    kept_bytes: int = 0  # on disk, for the next start

    def __bool__(self) -> bool:
        return bool(self.events or self.kept_bytes)


class Run:
    """Consecutive events of one stream."""

    def __init__(self, stream: str, first: int) -> None:
        self.stream = stream
        self.first = first  # index of events[0]
        self.events: deque[bytes] = deque()
        self.size = 0  # bytes of them
        self.files: deque[tuple[int, Segment]] = deque()  # from which events were loaded: behind their last index

    def append(self, event: bytes) -> None:
        self.events.append(event)
        self.size += len(event)

    def pop(self) -> bytes:
        event = self.events.popleft()
        self.first += 1
        self.size -= len(event)
        return event

    @property
    def end(self) -> int:
        return self.first + len(self.events)


class Buffer:
    """See the module. `wake` is called when the sending thread sleeps and there is something to send."""

    def __init__(
        self,
        bounds: Bounds,
        when_full: WhenFull,
        spill: Spill | None,
        wake: Callable[[], None],
        report: Callable[[str, str], None],
    ) -> None:
        self._bounds = bounds
        self._when_full = when_full
        self._spill = spill
        self._wake = wake
        self._report = report
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)  # something left, or it was closed
        self._waiting: deque[bytes] = deque()
        self._stream = str(uuid.uuid4())
        self._next = 1  # index in that stream for the first event that waits
        self._run = Run(self._stream, 1)
        self._held_events = 0
        self._held_bytes = 0
        self._dropped = 0  # oldest ones, of which the stream is to be told before the next that waits
        self._missed = 0  # newest ones, of which it is to be told behind the last that waits
        self._accepted = self._acknowledged = self._lost = self._refused = 0
        self._sleeping = True  # the sending thread found nothing more to send
        self.window = min(WINDOW_EVENTS, max(1, bounds.events // 2))  # so many events may have an index
        self._window_bytes = min(WINDOW_BYTES, max(1, bounds.bytes // 2))  # but for a single event
        self._sender = 0  # the thread that sends, which must not wait for itself
        self._sealed = False  # nothing more is taken
        self._closed = False  # nothing more is handed out

    # ---- any thread ----

    def put(self, event: bytes) -> bool:
        """Take an event; false when it is lost, which is counted and reported."""
        size = len(event)
        if size > self._bounds.event_bytes:
            return self._refuse(
                f"an event of {size:,} bytes is larger than {self._bounds.event_bytes:,} and is not sent"
            )
        with self._lock:
            taken = not self._sealed and (self._has_room(size) or self._make_room(size))
            if taken:
                if self._missed:
                    self._tell_missed()
                self._waiting.append(event)
                self._held_events += 1
                self._held_bytes += size
                self._accepted += 1
                sleeping, self._sleeping = self._sleeping, False
            else:
                self._lost += 1
                self._missed += 1
        if not taken:
            why = "the writer is closed" if self._sealed else "the buffer is full"
            self._report(why, f"{why}: an event is lost")
        elif sleeping:
            self._wake()
        return taken

    def is_full(self) -> bool:
        with self._lock:
            return not self._has_room(1)

    @property
    def sealed(self) -> bool:
        return self._sealed

    @property
    def closed(self) -> bool:
        return self._closed

    def seal(self) -> None:
        """Take nothing more."""
        with self._lock:
            self._sealed = True
            self._room.notify_all()

    def counts(self) -> Counts:
        with self._lock:
            on_disk = 0 if self._spill is None else self._spill.bytes
            return Counts(self._accepted, self._acknowledged, self._lost, self._refused, self._held_events, on_disk)

    def drain(self, seconds: float) -> bool:
        """Wait until nothing is held, in memory or in files; false when that takes longer or it was closed."""
        with self._lock:
            self._room.wait_for(lambda: self._closed or self._is_empty(), seconds)
            return self._is_empty()

    def close(self) -> Undelivered:
        """Take nothing more, hand out nothing more, and keep on disk what can be kept."""
        with self._lock:
            if self._closed:
                return Undelivered()
            self._sealed = self._closed = True
            lost = self._held_events
            if self._spill is not None:
                lost -= self._keep(self._spill)
                kept = self._spill.bytes
                self._spill.close()
            else:
                kept = 0
            self._lost += lost
            self._held_events = self._held_bytes = 0
            self._run.events.clear()
            self._waiting.clear()
            self._room.notify_all()
            return Undelivered(lost, kept)

    # ---- the sending thread ----

    def run(self) -> Run | None:
        """The events to be sent now; None when there are none, and then `wake` is called when there are again.

        What it returns is the sending thread's to read until it calls `acknowledge` or the like.
        """
        with self._lock:
            if self._closed:
                return None
            self._sender = threading.get_ident()
            self._extend_run(1)
            if not self._run.events and not self._is_empty():
                self._run = Run(*self._spill.next_stream()) if self._spill else Run(self._stream, self._next)
                self._extend_run(1)
            self._sleeping = not self._run.events
            return self._run if self._run.events else None

    def unsent(self, sent: int, events: int, size: int) -> list[bytes]:
        """Of the current run, what follows the first `sent`: at most so many, and so many bytes but for a first one."""
        with self._lock:
            if self._closed:
                return []
            self._extend_run(sent + events)
            batch = list[bytes]()
            for event in islice(self._run.events, sent, sent + events):
                size -= len(event)
                if size < 0 and batch:
                    break
                batch.append(event)
            self._sleeping = len(self._run.events) <= sent and not (self._waiting or self._spill)
            return batch

    def is_finished(self) -> bool:
        """Whether the run is over while other streams' events are to come."""
        with self._lock:
            return not self._run.events and not self._is_empty()

    def acknowledge(self, count: int) -> None:
        """The first `count` of the run are stored."""
        with self._lock:
            if self._closed:
                return
            for _ in range(count):
                self._leave(self._run.pop())
            self._acknowledged += count
            while self._run.files and self._run.files[0][0] <= self._run.first:
                self._remove(self._run.files.popleft()[1])
            self._room.notify_all()

    def replace_first(self, reason: str) -> None:
        """The server does not want the first event of the run: in its place the stream says so."""
        with self._lock:
            if self._closed or not self._run.events:
                return
            notice = _notice(1, reason)
            self._leave(self._run.events[0])
            self._run.size += len(notice) - len(self._run.events[0])
            self._run.events[0] = notice
            self._join(lambda _: None, notice)
            self._accepted += 1
            self._refused += 1

    def rename(self) -> None:
        """The server lacks what was before this run: let it be a stream of its own."""
        with self._lock:
            if self._closed:
                return
            run, old = self._run, self._run.stream
            run.stream, run.first = str(uuid.uuid4()), 1
            if old == self._stream:
                self._stream, self._next = run.stream, run.end
            if self._spill is not None and run.files:
                self._keep_run(self._spill)

    def _refuse(self, why: str) -> bool:
        with self._lock:
            self._refused += 1
        self._report("too large", why)
        return False

    # ---- with the lock held ----

    def _has_room(self, size: int) -> bool:
        events, held = self._held_events, self._held_bytes
        if self._when_full == "spill":  # apart from what waits, there are a window of events and at most one file
            events = len(self._waiting) + self.window if self._waiting else 0
            held += self._window_bytes - self._run.size
        return not events or (events < self._bounds.events and held + size <= self._bounds.bytes)

    def _make_room(self, size: int) -> bool:
        if self._when_full == "drop-oldest":
            while self._waiting and not self._has_room(size):
                self._leave(self._waiting.popleft())
                self._dropped += 1
                self._lost += 1
        elif self._when_full == "spill":
            while self._waiting and not self._has_room(size) and self._spill_oldest():
                pass
        elif threading.get_ident() != self._sender:
            self._room.wait_for(lambda: self._sealed or self._has_room(size), self._bounds.block_seconds)
        return not self._sealed and self._has_room(size)

    def _spill_oldest(self) -> bool:
        """Write the oldest that wait to a file."""
        assert self._spill is not None
        count = size = 0
        for event in self._waiting:
            if count and size + len(event) > SEGMENT_BYTES:
                break
            count += 1
            size += len(event) + 1
        try:
            written = self._spill.add(self._stream, self._next, list(islice(self._waiting, count)))
        except OSError as error:
            self._report("spill", f"events cannot be written to disk: {error}")
            return False
        if written:
            self._next += count
            for _ in range(count):
                self._leave(self._waiting.popleft())
        return written

    def _extend_run(self, events: int) -> None:
        """Number what follows on the run, up to so many events, as far as the window goes."""
        run, limit = self._run, min(events, self.window)
        while len(run.events) < limit and run.size < self._window_bytes:
            if self._spill:
                if self._spill.next_stream() != (run.stream, run.end):
                    return
                self._load(self._spill)
            elif self._waiting and (run.stream, run.end) == (self._stream, self._next):
                if self._dropped:
                    reason = "the buffer of the sender was full; these were its oldest events"
                    self._join(run.append, _notice(self._dropped, reason))
                    self._accepted += 1
                    self._dropped = 0
                else:
                    run.append(self._waiting.popleft())
                self._next += 1
            else:
                return

    def _load(self, spill: Spill) -> None:
        """The oldest file goes to the end of the run."""
        try:
            segment, events = spill.load()
        except OSError as error:
            self._report("spill", f"events on disk cannot be read: {error}")
            return
        for event in events:
            self._join(self._run.append, event)
        if segment.adopted:
            self._accepted += len(events)
        if events:
            self._run.files.append((self._run.end, segment))
        else:
            self._remove(segment)

    def _keep(self, spill: Spill) -> int:
        """Write what is in memory to files; the number of events that are."""
        kept = 0
        try:
            if self._run.events and self._keep_run(spill):
                kept += len(self._run.events)
            if self._waiting and spill.add(self._stream, self._next, self._waiting):
                kept += len(self._waiting)
        except OSError as error:
            self._report("spill", f"events cannot be written to disk: {error}")
        return kept

    def _keep_run(self, spill: Spill) -> bool:
        run = self._run
        try:
            kept = spill.keep(run.stream, run.first, run.events, [segment for _, segment in run.files])
        except OSError as error:
            self._report("spill", f"events cannot be written to disk: {error}")
            return False
        if kept is not None:
            run.files = deque([(run.end, kept)])
        return kept is not None

    def _remove(self, segment: Segment) -> None:
        assert self._spill is not None
        try:
            self._spill.remove(segment)
        except OSError as error:
            self._report("spill", f"a file whose events were sent cannot be removed: {error}")

    def _tell_missed(self) -> None:
        notice = _notice(self._missed, "the buffer of the sender was full; these were its newest events")
        self._join(self._waiting.append, notice)
        self._accepted += 1
        self._missed = 0

    def _join(self, put: Callable[[bytes], object], event: bytes) -> None:
        self._held_events += 1
        self._held_bytes += len(event)
        put(event)

    def _leave(self, event: bytes) -> None:
        self._held_events -= 1
        self._held_bytes -= len(event)

    def _is_empty(self) -> bool:
        return not (self._run.events or self._waiting or self._spill)


def _notice(count: int, reason: str) -> bytes:
    """The event that stands where others are missing."""
    return encode(
        {"type": "lost", "time": rfc3339(time.time_ns()), "level": "WARNING", "lost": count, "message": reason}
    )
