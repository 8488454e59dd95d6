"""Snapshots that misbehave, for spawned query workers to open."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamgauge.errors import QueryFailed
from streamgauge.model.frame import LabelFrame
from streamgauge.model.source import Matcher, Meter, Selection, Source, empty_selection

_kept: list[object] = []


@dataclass(frozen=True, slots=True)
class Trouble:
    """A snapshot whose `series` does as `what` says; a query for label names runs into it.

    answer: one series with the label `pid`, the worker's process id.
    wait: first connect to the loopback port `number`, send the process id and a line feed, and wait for a byte.
    many: `number` series. large: one with a value of `number` bytes.
    allocate: memory without end. keep: hold on to `number` bytes for ever. spin: never return, in Python.
    deaf: never return and never look at anything, in C with the interpreter lock held.
    abort, kill: end the process. refuse: raise QueryFailed. fail: raise a foreign exception.
    """

    what: str = "answer"
    number: int = 0

    def open(self, kept: MutableMapping[str, object]) -> Source:
        return _TroubledSource(self.what, self.number)


class _TroubledSource:
    def __init__(self, what: str, number: int) -> None:
        self._what = what
        self._number = number

    def select(self, matchers: Sequence[Matcher], start: int, end: int, meter: Meter) -> Selection:
        return empty_selection()

    def series(self, matcher_sets: Sequence[Sequence[Matcher]], start: int, end: int) -> LabelFrame:
        match self._what:
            case "wait":
                with socket.create_connection(("127.0.0.1", self._number)) as gate:
                    gate.sendall(b"%d\n" % os.getpid())
                    gate.recv(1)
            case "many":
                return LabelFrame.of([{"pid": str(i)} for i in range(self._number)])
            case "large":
                return LabelFrame.of([{"pid": "x" * self._number}])
            case "allocate":
                while True:
                    _kept.append(np.ones(1 << 20))
            case "keep":
                _kept.append(np.ones(self._number // 8))
            case "spin":
                while True:
                    pass
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
