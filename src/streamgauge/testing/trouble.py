"""Snapshots that misbehave, for spawned query workers to open."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Collection, MutableMapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamgauge.errors import QueryFailed
from streamgauge.model.event_source import EventSource, NoEvents
from streamgauge.model.frame import LabelFrame
from streamgauge.model.source import (
    AggregateKind,
    Horizon,
    Lifetimes,
    Matcher,
    Meter,
    Selection,
    Source,
    empty_selection,
)

_held: list[object] = []


@dataclass(frozen=True, slots=True)
class Trouble:
    """A snapshot whose `series` does as `what` says; a query for label names or cardinality runs into it.

    answer: one series with the label `pid`, the worker's process id. large: one with a value of `number` bytes.
    allocate: memory without end. keep: hold on to `number` bytes for ever, then answer. hold: the same, then spin.
    spin: never return, in Python. deaf: never return, in C, with the interpreter lock held.
    abort, kill: end the process. refuse: raise QueryFailed. fail: raise a foreign exception.

    With `gate` it first connects to that loopback port, sends its process id and a line feed, and waits for a byte. The
    connection stays open for as long as the process lives.
    """

    what: str = "answer"
    number: int = 0
    gate: int = 0

    def open(self, kept: MutableMapping[str, object]) -> Source:
        return _TroubledSource(self)


class _TroubledSource:
    def __init__(self, trouble: Trouble) -> None:
        self._trouble = trouble

    @property
    def horizons(self) -> Sequence[Horizon]:
        return ()

    def select(
        self,
        matchers: Sequence[Matcher],
        start: int,
        end: int,
        meter: Meter,
        aggregate: AggregateKind = AggregateKind.LAST,
    ) -> Selection:
        return empty_selection()

    def series(
        self,
        matcher_sets: Sequence[Sequence[Matcher]],
        start: int,
        end: int,
        meter: Meter,
        names: Collection[str] | None = None,
    ) -> LabelFrame:
        trouble = self._trouble
        if trouble.gate:
            connection = socket.create_connection(("127.0.0.1", trouble.gate))
            _held.append(connection)
            connection.sendall(b"%d\n" % os.getpid())
            connection.recv(1)
        match trouble.what:
            case "large":
                return LabelFrame.of([{"pid": "x" * trouble.number}])
            case "allocate":
                while True:
                    _held.append(np.ones(1 << 20))
            case "keep":
                _held.append(np.ones(trouble.number // 8))
            case "hold":
                _held.append(np.ones(trouble.number // 8))
                _spin()
            case "spin":
                _spin()
            case "deaf":
                sum(range(1 << 62))
            case "abort":
                os.abort()
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "refuse":
                raise QueryFailed("refused")
            case "fail":
                raise ZeroDivisionError("a detail that is nobody's business")
        return LabelFrame.of([{"pid": str(os.getpid())}])

    def lifetimes(self, matcher_sets: Sequence[Sequence[Matcher]], meter: Meter) -> Lifetimes:
        return Lifetimes(self.series(matcher_sets, 0, 0, meter), np.zeros(1, np.int64), np.zeros(1, np.int64))

    def events(self) -> EventSource:
        return NoEvents()


def _spin() -> None:
    while True:
        pass
