"""A mirror in a real InfluxDB: what is stored is there, too, whatever happens to it."""

from __future__ import annotations

import asyncio
import math
import struct
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from streamgauge.clock import ManualClock
from streamgauge.config import parse_config
from streamgauge.forward.remote_write.manager import RemoteWriteManager
from streamgauge.forward.remote_write.target import QueuePolicy, RemoteWriteTarget
from streamgauge.model.arrays import STALE_BITS
from streamgauge.model.labels import key_of
from streamgauge.stats import Stats
from streamgauge.store.feed import StoreSampleFeed
from streamgauge.store.names import remote_write_file
from streamgauge.store.store import Store
from streamgauge.testing.influxd import Influxd
from streamgauge.testing.lives import NOON, Row, batch_of, opened
from streamgauge.testing.programs import required
from streamgauge.testing.until import until

pytestmark = [pytest.mark.anyio, pytest.mark.peer("influxd")]

QUEUE = QueuePolicy(capacity=20, max_shards=2, max_samples_per_send=7, batch_send_deadline=100)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Mirror:
    """A destination as the configuration has it, at work; its numbers, and the clock that it waits by."""

    def __init__(self, store: Store, data: Path, clock: ManualClock, port: int) -> None:
        config = parse_config(f"relay: {{influx-address: 'http://127.0.0.1:{port}'}}", "f.yml", {})
        target: RemoteWriteTarget = replace(config.remote_writes[0], queue=QUEUE)
        self._stats = Stats()
        self._clock = clock
        self._manager = RemoteWriteManager(
            StoreSampleFeed(store), store.listen, partial(remote_write_file, data), clock, self._stats
        )
        self._manager.apply([target])
        self._work = asyncio.create_task(self._manager.run())

    def dropped(self, reason: str) -> float:
        lines = self._stats.exposition().decode().splitlines()
        name = f'samples_dropped_total{{reason="{reason}",remote="relay.influx-address"}} '
        return sum(float(line.rpartition(" ")[2]) for line in lines if name in line)

    async def follows(self) -> None:
        """Until all that was stored is sent."""
        found = self._manager.destinations
        while not found or not all(each.caught_up and not each.pending for each in found.values()):
            await self._clock.advance(0.5)
            await asyncio.sleep(0.001)

    async def begins(self) -> None:
        await until(lambda: any(each.caught_up for each in self._manager.destinations.values()))

    async def stop(self) -> None:
        self._work.cancel()
        await asyncio.gather(self._work, return_exceptions=True)


def row(labels: dict[str, str], second: int, value: float | int) -> Row:
    """value: an int is its bits."""
    bits = value if isinstance(value, int) else struct.unpack("<q", struct.pack("<d", value))[0]
    return key_of(labels), NOON + 1000 * second, bits


def stored(influxd: Influxd, metric: str) -> dict[tuple[str, int], float]:
    """What the database has: values by host and second."""
    return {
        (series["tags"]["host"], values[0] // 10**9 - NOON // 1000): values[series["columns"].index("value")]
        for series in influxd.ask(f'SELECT value FROM "{metric}" GROUP BY *', "statistics")
        for values in series["values"]
    }


async def test_what_relays_say_is_there_after_an_outage_and_a_restart(tmp_path: Path) -> None:
    clock = ManualClock(NOON)
    folder = tmp_path / "influxd"
    async with opened(tmp_path / "data", clock) as (store, _):

        async def append(*rows: Row) -> None:
            await store.append(batch_of(store, rows))

        cpu = {"__name__": "cpu, used", "host": "a b"}
        await append(row(cpu, 0, 1.0))  # before there is a mirror
        with Influxd(required("influxd"), folder) as influxd:
            port = influxd.port
            mirror = Mirror(store, tmp_path, clock, port)
            await mirror.begins()
            await append(
                row(cpu, 1, 2.5),
                row({"__name__": "elsewhere"}, 1, 1.0),
                row(cpu, 2, STALE_BITS),
                row(cpu, 3, math.inf),
                row({"__name__": "elsewhere"}, 3, math.inf),
                row({**cpu, "x": "a\nb"}, 3, 1.0),
            )
            await mirror.follows()
            assert stored(influxd, "cpu, used") == {("a b", 1): 2.5}
            assert influxd.ask("SHOW MEASUREMENTS", "statistics")[0]["values"] == [["cpu, used"]]
            assert mirror.dropped("unwritable") == 3
            assert mirror.dropped("relabelled") == 2
        for second in range(10, 60):  # nobody waits for it, and nothing is lost
            await append(row(cpu, second, float(second)))
        await mirror.stop()
        mirror = Mirror(store, tmp_path, clock, port)
        await append(row(cpu, 60, 60.0))
        with Influxd(required("influxd"), folder, port) as influxd:
            await mirror.follows()
            expected = {("a b", 1): 2.5} | {("a b", second): float(second) for second in range(10, 61)}
            assert stored(influxd, "cpu, used") == expected
        await mirror.stop()
