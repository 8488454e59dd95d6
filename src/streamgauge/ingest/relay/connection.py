"""One relay's connection: what it says, and what it is told."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from streamgauge.clock import Clock
from streamgauge.errors import BadInput
from streamgauge.ingest.relay.values import Collector, RelayValues, Stat
from streamgauge.model.arrays import UInt32s
from streamgauge.wire import relay as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Set

MAX_COLLECTORS = 1_000
"""Of one relay. Their names go into one line each time that it is asked."""
MAX_COLLECTORS_BYTES = 2 << 20
"""Of memory that the collectors of one relay take: a thousand of four tags each."""
MAX_STATS = 10_000
"""Series of one relay: a host has some hundreds of values, and one that makes up names must not fill the index."""
MAX_ID_BYTES = 255
MAX_ITEM_BYTES = 2 * wire.MAX_NAME_BYTES + 1
"""Of what stands before a value: a collector, a hyphen and a name."""
AT_ONCE = 200
"""Values and lines of one relay in one turn of the loop: a millisecond."""
TOLD_AT_ONCE = 32
"""The same while somebody follows values, which takes 10 µs each, and with 64 long tags a third of a millisecond."""
TOLD_SHARE = 64
"""A value that is told counts, beside what is sent, as this part of what its collector takes in memory: 30 bytes with
four tags, 1,300 with the most there may be. So nobody has a few bytes become work without end."""
RATE_BYTES = 131_072
BURST_BYTES = 1 << 20
"""What a relay may send in a second, and at once, before it is read slower. One of 20 values each 10 s sends 50 bytes a
second."""
_AHEAD_SECONDS = BURST_BYTES / RATE_BYTES
UNREAD_BYTES = 262_144
"""Written to a relay that does not read it: hundreds of polls. Into an empty buffer any line goes: the longest, of
MAX_COLLECTORS names, is not much longer than this."""

HOST = b"host"


class Values(Protocol):
    """Told of each value as it comes: the id of its relay, collector, name, and the value as text."""

    def __call__(self, host: str, collector: Collector, name: bytes, text: bytes) -> None: ...


class Table(Protocol):
    """What a connection needs of the listener."""

    clock: Clock
    values: RelayValues
    live: Values | None  # None while nobody listens
    beat: float
    buffer: memoryview  # that all connections read into, as none of them keeps what is in it

    def arrived(self, connection: RelayConnection) -> str | None:
        """Why the connection is not to be kept; None when it is."""

    def may_be(self, name: str, names: Set[str]) -> bool:
        """Whether a relay may have an id. names: in its certificate."""

    def identified(self, connection: RelayConnection) -> None: ...

    def offers(self, connection: RelayConnection) -> None:
        """It has a collector that it can be asked for."""

    def retired(self, connection: RelayConnection, series: UInt32s) -> None:
        """It does not bring these any more."""

    def gone(self, connection: RelayConnection, reason: str) -> None: ...


class RelayConnection(asyncio.BufferedProtocol):
    """name: the relay's id; "" until it has said that."""

    def __init__(self, table: Table) -> None:
        self.name = ""
        self.collectors: dict[bytes, Collector] = {}
        self.heard = table.clock.monotonic()
        self.peer = ""
        self.polling = False  # it has its place among those who are polled
        self.ended = ""  # why we do not want to hear of it any more
        self._table = table
        self._lines = wire.LineReader()
        self._too_long = 0
        self._said: deque[bytes] = deque()  # lines that are not handled yet
        self._items: Iterator[bytes] | None = None  # of the line that is being handled
        self._busy = False  # `_go_on` is to be called
        self._known: dict[bytes, Stat] = {}  # by collector and name as the wire has them
        self._retired: list[Stat] = []  # of collectors that are no more; nobody else has been told yet
        self._collectors_bytes = 0
        self._told = 0  # of the present turn, in bytes of memory
        self._asked: float | None = None
        self._due = self.heard  # when all that came would have come at RATE_BYTES
        self._paused = False
        self._transport: asyncio.Transport | None = None
        self._commands: dict[bytes, Callable[[bytes], None]] = {
            wire.GOT: self._got,
            wire.PING: lambda rest: self.write(b"pong\n"),
            wire.ADD: self._add,
            wire.REMOVE: self._remove,
            wire.CLOSE: lambda rest: self.end("closed"),
        }

    # ---- asyncio ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if address else ""
        if (reason := self._table.arrived(self)) is not None:
            self.end(reason, abort=True)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._table.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.ended:
            return
        self.heard = now = self._table.clock.monotonic()
        self._slow(now, nbytes)
        self._said += self._lines.feed(bytes(self._table.buffer[:nbytes]))
        if self._lines.too_long > self._too_long:
            self._table.values.refuse("line_too_long", self._lines.too_long - self._too_long)
            self._too_long = self._lines.too_long
        if not self._busy:
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hand_over_retired()
        self._table.gone(self, self.ended or "closed")
        self.ended = self.ended or "closed"
        self._known.clear()
        self._said.clear()

    def _go_on(self) -> None:
        """Handle what was said: AT_ONCE of it, and the rest in later turns, until which nothing more is read."""
        assert self._transport is not None
        self._busy, was_busy = False, self._busy
        left = AT_ONCE if self._table.live is None else TOLD_AT_ONCE
        while not self.ended and (self._items is not None or self._said):
            if left <= 0:
                self._busy = True
                self._transport.pause_reading()
                asyncio.get_running_loop().call_soon(self._go_on)
                return
            if self._items is not None:
                left -= self._some_items(left)
            else:
                self._take(self._said.popleft())
                left -= 1
        if was_busy:
            self._read_on()

    def _read_on(self) -> None:
        if not self._paused and not self._busy and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _slow(self, now: float, size: int) -> None:
        """Read no more until so much may have come; `check` resumes."""
        self._due = max(self._due, now) + size / RATE_BYTES
        if self._due > now + _AHEAD_SECONDS and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
            self._table.values.refuse("slowed_down")

    # ---- from the listener ------------------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Called once a second or so."""
        self._hand_over_retired()
        if self.ended and self._transport is not None:
            self._transport.abort()  # what we said last has had its time
        elif self._paused:
            self.heard = now  # it is we who do not listen
            if self._due <= now + _AHEAD_SECONDS:
                self._paused = False
                self._read_on()
        elif now - self.heard > 2 * self._table.beat:
            self.end("silent" if self.name else "unidentified", abort=True)

    def ask(self) -> bool:
        """Send one `get` with all collectors. False when there is nothing to ask for."""
        if self.ended or not self.collectors:
            return False
        self._asked = self._table.clock.monotonic()
        self.write(wire.get_line(self.collectors))
        return True

    def override(self, seconds: float, intervals: dict[bytes, float]) -> bool:
        """False when it has none of these collectors."""
        known = {name: each for name, each in intervals.items() if name in self.collectors}
        if known:
            self.write(wire.override_line(seconds, known))
        return bool(known)

    def series(self, generation: int) -> UInt32s:
        """Ids of the series that it brings, as they are in a generation of the sink."""
        return _numbers(self._known.values(), generation)

    def write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        unread = self._transport.get_write_buffer_size()
        if unread and unread + len(data) > UNREAD_BYTES:
            self.end("not_reading", abort=True)
        else:
            self._transport.write(data)

    def end(self, reason: str, abort: bool = False) -> None:
        """Close, after what has been written or, with `abort`, at once."""
        if self.ended or self._transport is None:
            return
        self.ended = reason
        if abort:
            self._transport.abort()
        else:
            self._transport.close()

    # ---- lines ------------------------------------------------------------------------------------------------------

    def _take(self, line: bytes) -> None:
        """One line, of whose values `_some_items` is to take care."""
        word, rest = wire.command(line)
        if not self.name:
            self._identify(word, rest)
        elif (handle := self._commands.get(word)) is not None:
            handle(rest)
        elif word != wire.OK:
            self._table.values.refuse("unknown_command")

    def _identify(self, word: bytes, rest: bytes) -> None:
        if word != wire.ID:
            self.write(wire.IDENTIFY_FIRST)
            self.end("unidentified")
            return
        name = rest.decode(errors="replace")
        if not rest or len(rest) > MAX_ID_BYTES or "\ufffd" in name:
            self.write(wire.MISSING_ID)
            self.end("missing_id")
            return
        if not self._table.may_be(name, self._certified()):
            self.write(wire.FOREIGN_ID)
            self.end("foreign_id")
            return
        self.name = name
        self._table.identified(self)
        self.write(b"ok\n" + wire.beat_line(self._table.beat))

    def _certified(self) -> Set[str]:
        """The names in the certificate that the relay showed."""
        assert self._transport is not None
        return names_of(self._transport.get_extra_info("peercert") or {})

    def _add(self, rest: bytes) -> None:
        try:
            added = wire.added(rest)
        except BadInput:
            self._table.values.refuse("invalid_collector")
            return
        known = self.collectors.get(added.name)
        if known is None and len(self.collectors) >= MAX_COLLECTORS:
            self._table.values.refuse("collector_limit")
            return
        if known is None or known.tags != added.words:
            labels = dict(added.tags) | {HOST: self.name.encode()}
            labels.pop(b"__name__", None)
            collector = Collector(added.name, added.words, tuple(labels.items()))
            if self._collectors_bytes - (known.size if known else 0) + collector.size > MAX_COLLECTORS_BYTES:
                self._table.values.refuse("collector_limit")
                return
            self._retire(added.name)
            self.collectors[added.name] = collector
            self._collectors_bytes += collector.size
        self.write(b"ok\n")
        self._table.offers(self)

    def _remove(self, rest: bytes) -> None:
        self._retire(rest)
        self.write(b"ok\n")

    def _retire(self, name: bytes) -> None:
        """A collector is no more, or has other tags: nothing of its series comes any more."""
        collector = self.collectors.pop(name, None)
        if collector is None:
            return
        self._collectors_bytes -= collector.size
        collector.retired = True
        self._retired += [self._known.pop(item) for item in collector.items]
        if len(self._retired) >= MAX_STATS:
            self._hand_over_retired()

    def _hand_over_retired(self) -> None:
        retired, self._retired = self._retired, []
        if retired:
            self._table.retired(self, _numbers(retired, self._table.values.generation))

    def _got(self, rest: bytes) -> None:
        self._items = iter(rest.split(b","))

    def _some_items(self, most: int) -> int:
        """Take so many values of the present line at most; how many there were, or 1 when it is over."""
        assert self._items is not None
        known, values = self._known, self._table.values
        items = list(islice(self._items, most))
        if not items:
            self._items = None
            return 1
        stats: list[Stat] = []
        numbers: list[float] = []
        invalid = 0
        for item in items:
            name, _, text = item.partition(b":")
            stat = known.get(name)
            if stat is None:
                self._new(item, name, text)
                continue
            if (number := wire.number(text)) is None:
                invalid += 1
                continue
            stats.append(stat)
            numbers.append(number)
            self._tell(stat.collector, stat.name, text)
        if self._told:
            self._slow(self._table.clock.monotonic(), self._told // TOLD_SHARE)
            self._told = 0
        if invalid:
            values.refuse("invalid_number", invalid)
        values.put(stats, numbers, self._asked)
        self._asked = None
        return len(items)

    def _new(self, item: bytes, name: bytes, text: bytes) -> None:
        """A value of a name that was not in an answer before."""
        if not item.strip():
            return
        values = self._table.values
        spelt, hyphen, stat = name.strip().partition(b"-")
        collector = self.collectors.get(spelt)
        if not hyphen or not stat or b":" not in item or len(name) > MAX_ITEM_BYTES or len(stat) > wire.MAX_NAME_BYTES:
            values.refuse("invalid_item")
        elif collector is None:
            values.refuse("unknown_collector")
        elif (number := wire.number(text)) is None:
            values.refuse("invalid_number")
        elif len(self._known) >= MAX_STATS:
            values.refuse("stat_limit")
        else:
            values.put_new(self._known, name, collector, stat, number)
            self._tell(collector, stat, text)

    def _tell(self, collector: Collector, name: bytes, text: bytes) -> None:
        """Whoever follows values."""
        if self._table.live is not None:
            self._table.live(self.name, collector, name, text)
            self._told += collector.size


def names_of(certificate: Mapping[str, Any]) -> Set[str]:
    """The common names and DNS names of a certificate, as `ssl.SSLSocket.getpeercert` describes it."""
    subject = {value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"}
    return subject | {value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}


def _numbers(stats: Iterable[Stat], generation: int) -> UInt32s:
    return np.array([stat.number for stat in stats if stat.generation == generation], np.uint32)
