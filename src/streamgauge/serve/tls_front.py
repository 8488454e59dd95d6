"""TLS before listeners that do not speak HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from streamgauge.clock import Clock
from streamgauge.serve.connections import ConnectionLimits, ConnectionTable
from streamgauge.serve.handshake import Handshake
from streamgauge.serve.tls import Tls, TlsFiles
from streamgauge.stats import Reading

HANDSHAKES = 1_024
"""Under way at a time; the next are hung up on. Each is a millisecond or two of work."""
SWEEP_SECONDS = 1.0

Protocols = Callable[[], asyncio.BaseProtocol]


class TlsFront:
    """Used on the event loop. tls: the certificate, for listeners that do without the rest of this."""

    def __init__(self, files: TlsFiles, clock: Clock) -> None:
        """Raises ConfigError for files that are no certificate and key."""
        self.tls = Tls(files, clock)
        self._clock = clock
        self._table = ConnectionTable(ConnectionLimits(connections=HANDSHAKES))
        self._table.now = clock.monotonic()

    def before(self, connection: Protocols, admits: Callable[[str], bool] = lambda peer: True) -> Protocols:
        """What a connection is until its handshake is over; then it is what `connection` makes. admits: whether
        somebody of an address may come at all; others take up no place."""
        loop = asyncio.get_running_loop()
        return lambda: Handshake(connection, self.tls.context, self._table, loop, admits)

    async def run(self) -> None:
        """Until cancelled: end handshakes that take too long, and read the certificate anew."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.tls.run())
            tasks.create_task(self._sweep())

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep(SWEEP_SECONDS)
            self._table.sweep(self._clock.monotonic())

    def stop(self) -> None:
        for member in self._table.members():
            member.break_off()

    def readings(self) -> Iterator[Reading]:
        yield Reading(
            "streamgauge_relay_handshakes_failed_total",
            "counter",
            "TLS handshakes at the listeners of relays that came to nothing, by reason.",
            {(reason,): count for reason, count in self._table.closed.items()},
            ("reason",),
        )
