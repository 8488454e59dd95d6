"""The listener that relays dial: who is connected, and who of them is still there."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set

from streamgauge.clock import Clock
from streamgauge.ingest.departed import Departed
from streamgauge.ingest.relay.connection import RelayConnection, Values
from streamgauge.ingest.relay.polls import Polls
from streamgauge.ingest.relay.settings import RelaySettings
from streamgauge.ingest.relay.values import GATHER_SECONDS, RelayValues
from streamgauge.model.arrays import UInt32s
from streamgauge.model.sink import Sink
from streamgauge.stats import Reading, Stats

Protocols = Callable[[], asyncio.BaseProtocol]
Front = Callable[[Protocols], Protocols]

MAX_CONNECTIONS = 10_000
"""Of relays, identified or not: some 10 KiB of memory and a descriptor each."""
MAX_DEPARTED = 1_000_000
"""Series of relays that have gone, until they are marked. Those of more drop out of answers a little later by
themselves."""
READ_BYTES = 16_384
"""Read at once from one relay: a millisecond or two of values."""
ACCEPT_AT_ONCE = 32
"""Connections accepted in one turn of the loop, so that a storm of them holds nothing else up."""
BACKLOG = 1_024
CHECK_SECONDS = 1.0


class RelayListener:
    """Implements connection.Table. Everything is on the event loop. gather: seconds from one append to the next."""

    def __init__(
        self, settings: RelaySettings, sink: Sink, stats: Stats, clock: Clock, gather: float = GATHER_SECONDS
    ) -> None:
        self.clock = clock
        self.values = RelayValues(sink, stats, clock, gather)
        self.live: Values | None = None
        self.beat = settings.beat
        self.buffer = memoryview(bytearray(READ_BYTES))
        self._settings = settings
        self._connections: set[RelayConnection] = set()
        self._relays: dict[str, RelayConnection] = {}
        self._sink = sink
        self._departed = Departed(sink, clock)
        self._stopping = False
        self._polls = Polls(clock, settings.poll)
        self._ended: Counter[str] = Counter()
        self._servers: list[asyncio.Server] = []

    @property
    def relays(self) -> Mapping[str, RelayConnection]:
        """Those connected now, by their ids."""
        return self._relays

    async def start(self, sockets: Sequence[socket.socket], front: Front = lambda protocols: protocols) -> None:
        """Listen on sockets that are bound. front: what connections are before they are ours."""
        loop = asyncio.get_running_loop()
        protocols = front(lambda: RelayConnection(self))
        for sock in sockets:
            self._servers.append(await loop.create_server(protocols, sock=sock, backlog=ACCEPT_AT_ONCE))
            sock.listen(BACKLOG)  # asyncio has one number for both

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.values.run())
            tasks.create_task(self._polls.run())
            tasks.create_task(self._departed.run())
            tasks.create_task(self._check())

    async def stop(self) -> None:
        """Hear nobody any more, and store what has come."""
        self._stopping = True
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.end("stopped", abort=True)
        await self.values.finish()

    def override(self, seconds: float, intervals: Mapping[str, float]) -> int:
        """Have collectors of the relays connected now collected at other intervals for a while; how many relays have
        any of them."""
        encoded = {name.encode(): each for name, each in intervals.items()}
        return sum([relay.override(seconds, encoded) for relay in list(self._relays.values())])

    def flush(self) -> int:
        """Have the relays connected now forget their present values; how many these are."""
        relays = list(self._relays.values())
        for relay in relays:
            relay.write(b"flush\n")
        return len(relays)

    async def _check(self) -> None:
        while True:
            await self.clock.sleep(min(CHECK_SECONDS, self.beat / 4))
            now = self.clock.monotonic()
            for connection in list(self._connections):
                connection.check(now)

    # ---- connection.Table -------------------------------------------------------------------------------------------

    def arrived(self, connection: RelayConnection) -> str | None:
        self._connections.add(connection)
        if len(self._connections) > MAX_CONNECTIONS:
            return "connection_limit"
        return None if self.allows(connection.peer) else "not_allowed"

    def allows(self, peer: str) -> bool:
        """Whether relays may come from an address; it is "" of one that is gone already."""
        if not self._settings.allow:
            return True
        if not peer:
            return False
        address = ipaddress.ip_address(peer.partition("%")[0])
        return any(address in network for network in self._settings.allow)

    def may_be(self, name: str, names: Set[str]) -> bool:
        return name in names or not self._settings.tls_client_ids

    def identified(self, connection: RelayConnection) -> None:
        if (before := self._relays.get(connection.name)) is not None:
            before.end("replaced", abort=True)
        self._relays[connection.name] = connection

    def offers(self, connection: RelayConnection) -> None:
        if not connection.polling:
            connection.polling = True
            self._polls.add(connection)

    def retired(self, connection: RelayConnection, series: UInt32s) -> None:
        if len(series) and not self._stopping:
            self._depart(connection.name, series)

    def gone(self, connection: RelayConnection, reason: str) -> None:
        self._connections.discard(connection)
        self._ended[reason] += 1
        if self._relays.get(connection.name) is connection:
            del self._relays[connection.name]
        if connection.name and not self._stopping:
            self._depart(connection.name, connection.series(self._sink.generation))

    def _depart(self, name: str, series: UInt32s) -> None:
        """A relay's series are marked as stale, as those of a target that is gone, unless it brings them again."""
        if self._departed.waiting + len(series) > MAX_DEPARTED:
            self.values.refuse("marker_limit", len(series))
            return
        interval = round(self._settings.poll * 1000)

        def present() -> Iterator[UInt32s]:
            if (again := self._relays.get(name)) is not None:
                yield again.series(self._sink.generation)

        self._departed.add([series], self.clock.now_ms() + interval, interval, present)

    def readings(self) -> Iterator[Reading]:
        yield Reading.of("streamgauge_relays", "gauge", "Relays connected at this moment.", len(self._relays))
        yield Reading(
            "streamgauge_relay_connections_ended_total",
            "counter",
            "Connections of relays that have ended, by reason.",
            {(reason,): count for reason, count in self._ended.items()},
            ("reason",),
        )
