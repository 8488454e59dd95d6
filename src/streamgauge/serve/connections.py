"""How many connections there may be and how long each may stay as it is.

    accepted ──→ HEADER ──→ REQUEST ──→ IDLE ──→ HEADER …
                    └──────────┴──────────┴────→ ENDING ──→ gone

One sweep a second, not a timer a request, finds what has outstayed its stage: in every stage but REQUEST all
connections have the same time, so each stage is a queue and the sweep looks only at its head. Times are those of the
last sweep, so a limit is held to within a second.
"""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from streamgauge.serve.websocket import WebSocket

HELD_BODY = 65_536
"""Bytes of a body that is waited for before anybody is called who would take them: what a connection buffers anyway."""
HELD_BODIES = 16 << 20
"""Bytes of all bodies of a listener that are waited for so."""
PATIENT = "streamgauge.patient"
"""Set in the state of a request's scope by who expects a body that is sent as slowly as its sender likes."""
UPGRADE = "streamgauge.upgrade"
"""Among the extensions of a scope: the Upgrade, where the connection can become a WebSocket."""


@dataclass(slots=True)
class Upgrade:
    """limit: bytes of a message, set before 101 is answered. socket: set by that; none where the client has gone."""

    limit: int = 0
    socket: WebSocket | None = None


class Stage(enum.Enum):
    HEADER = "header"  # a request's header section is awaited or has begun
    REQUEST = "request"  # a request is being received, handled or answered
    IDLE = "idle"  # kept alive between requests
    ENDING = "ending"  # answered; the rest of what the client sends is thrown away

    __hash__ = object.__hash__  # Enum's own is a call of Python's each time


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of one listener. Rates are bytes a second, counted only while the other side is waited for."""

    connections: int = 16_384  # lowered to what the descriptors allow; 10 KiB of memory each when idle
    header_bytes: int = 65_536  # request line and headers; browsers and proxies stay below 16 KiB
    target_bytes: int = 32_768  # path and query; the parser's offsets into it have 16 bits
    header_seconds: float = 10.0
    idle_seconds: float = 120.0  # longer than the 90 s of Go's clients, so that they are the ones to close
    ending_seconds: float = 10.0
    body_rate: int = 1_000  # one byte a second would hold a connection for weeks; the slowest modem sends 1.2 kB
    answer_rate: int = 10_000  # an answer not read holds a snapshot's files
    grace_seconds: float = 10.0  # before the rates count: a burst of lost packets is no attack
    pipelined: int = 32  # requests sent ahead of their answers; nobody but a test does that


class Member(Protocol):
    """What the table needs of a connection."""

    stage: Stage
    since: float  # when the stage was entered

    def expire(self) -> None:
        """The time of the stage is up: close."""

    def check_rates(self, seconds: float) -> None:
        """Close if the client sends or reads too slowly; `seconds` have passed since the last check."""

    def evict(self) -> None:
        """Close an idle connection because another needs its place."""

    def break_off(self) -> None:
        """Close now, so that the client cannot take what it has for a whole answer."""


class ConnectionTable:
    """The connections of one listener. Used on the event loop's thread."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.now = 0.0  # monotonic seconds at the last sweep
        self.closed: Counter[str] = Counter()  # connections closed by a limit, by reason
        self._held = 0  # bytes of bodies that are waited for
        self._stages: dict[Stage, dict[Member, None]] = {stage: {} for stage in Stage}
        self._accepting = True
        self._empty = asyncio.Event()
        self._empty.set()
        self._seconds = {
            Stage.HEADER: limits.header_seconds,
            Stage.IDLE: limits.idle_seconds,
            Stage.ENDING: limits.ending_seconds,
        }

    def __len__(self) -> int:
        return sum(map(len, self._stages.values()))

    def members(self) -> list[Member]:
        return [member for stage in self._stages.values() for member in stage]

    def add(self, member: Member) -> bool:
        """Take in a new connection. False when there is no room and no idle connection to close for it."""
        member.since = self.now
        full = len(self) >= self.limits.connections
        self._stages[member.stage][member] = None
        self._empty.clear()
        return self._accepting and (not full or self._make_room(member))

    def discard(self, member: Member) -> None:
        self._stages[member.stage].pop(member, None)
        if not len(self):
            self._empty.set()

    def hold(self, size: int) -> bool:
        """Whether a body of so many bytes may be waited for; then `let_go` of it."""
        if self._held + size > HELD_BODIES:
            return False
        self._held += size
        return True

    def let_go(self, size: int) -> None:
        self._held -= size

    def stop_accepting(self) -> None:
        """From now on every newcomer is turned away."""
        self._accepting = False

    async def wait_empty(self) -> None:
        """Return when no connection is left."""
        await self._empty.wait()

    def move(self, member: Member, stage: Stage) -> None:
        del self._stages[member.stage][member]
        member.stage = stage
        member.since = self.now
        self._stages[stage][member] = None

    def sweep(self, now: float) -> None:
        """Close what has outstayed its stage or is too slow."""
        elapsed, self.now = now - self.now, now
        for stage, seconds in self._seconds.items():
            due = []
            for member in self._stages[stage]:
                if now - member.since < seconds:
                    break
                due.append(member)
            for member in due:
                member.expire()
        for member in list(self._stages[Stage.REQUEST]):
            member.check_rates(elapsed)

    def _make_room(self, newcomer: Member) -> bool:
        """Close whichever has waited longest: among thousands that only wait, the newest may be the one that asks."""
        heads = [next(iter(self._stages[stage]), newcomer) for stage in (Stage.HEADER, Stage.IDLE)]
        oldest = min(heads, key=lambda member: member.since if member is not newcomer else float("inf"))
        if oldest is newcomer:
            return False
        self.closed["evicted"] += 1
        self.discard(oldest)  # now, not when its socket is gone: the next newcomer of this turn needs another
        oldest.evict()
        return True
