"""A sink for events that keeps what it is given."""

from __future__ import annotations

import asyncio

import pyarrow as pa

from streamgauge.clock import Clock
from streamgauge.errors import IndexConflict, StreamgaugeError
from streamgauge.model.events import Stream


class MemoryEventSink:
    """A `model.events.EventSink` that keeps everything in memory.

    failure: raised by appends, which then store nothing; None stores. `fail_after`: so many appends succeed before.
    refusal: raised by `open_stream` and `resume_stream`.
    gate: an append waits for it, as for a disk.
    """

    def __init__(self, clock: Clock) -> None:
        self.failure: StreamgaugeError | None = None
        self.fail_after = 0
        self.refusal: StreamgaugeError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0  # appends at the gate
        self.appends: list[int] = []  # events of each
        self.streams: dict[int, Stream] = {}  # that are stored
        self._clock = clock
        self._opened = 0
        self._events: dict[int, dict[int, bytes]] = {}
        self._named: dict[str, Stream] = {}
        self._expected: dict[str, int] = {}

    def open_stream(self, transport: str, headers: str) -> Stream:
        if self.refusal is not None:
            raise self.refusal
        self._opened += 1
        return Stream(self._opened, self._clock.now_ns(), transport, headers)

    def resume_stream(self, name: str, transport: str, headers: str) -> tuple[Stream, int]:
        if name not in self._named:
            plain = self.open_stream(transport, headers)
            self._named[name] = Stream(plain.id, plain.started, transport, headers, name)
        return self._named[name], self._expected.get(name, 1)

    async def append_events(self, stream: Stream, first: int, payloads: pa.BinaryArray) -> int:
        if self.failure is not None and len(self.appends) >= self.fail_after:
            raise self.failure
        if stream.name:
            expected = self._expected.get(stream.name, 1)
            if first > expected:
                raise IndexConflict(f"the next event of {stream.name} is {expected}", expected)
            payloads = payloads.slice(max(0, expected - first))
            first = self._expected[stream.name] = max(first, expected)
            self._expected[stream.name] += len(payloads)
        self.waiting += 1
        await self.gate.wait()
        self.waiting -= 1
        await asyncio.sleep(0)
        self.appends.append(len(payloads))
        self.streams[stream.id] = stream
        events = self._events.setdefault(stream.id, {})
        for index, payload in enumerate(payloads, first):
            assert index not in events, "an event was stored twice"
            events[index] = payload.as_buffer().to_pybytes()
        return first + len(payloads)

    def payloads(self, stream: int = 1) -> list[bytes]:
        """Those of a stream, in order of their indexes, which are 1, 2, 3…"""
        events = self._events.get(stream, {})
        assert sorted(events) == list(range(1, len(events) + 1))
        return [events[index] for index in sorted(events)]
