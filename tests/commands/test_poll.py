"""`streamgauge poll`: from a reader to a store that knows nothing of us, in which nothing may be lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from streamgauge.client import Datum, Reader
from streamgauge.clock import ManualClock
from streamgauge.commands.grpc_peer import peer
from streamgauge.commands.poll import Relay, run_poll
from streamgauge.errors import BadInput
from streamgauge.testing.time_series import messages
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio

TIME = 1_700_000_000_123_456_789
DATA = [Datum("m", 1.0, {"a": "b", "c": "d"}, TIME), Datum("m", 2.0, {}, TIME + 1)]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class OtherStore:
    """Keeps rows. code: with which it answers."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, dict[str, str], float, int]] = []
        self.code = grpc.StatusCode.OK
        self._server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
        handler = grpc.stream_unary_rpc_method_handler(self._insert)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("proto.TStorage", {"InsertRows": handler}),)
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _insert(self, rows: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        if self.code is not grpc.StatusCode.OK:
            context.abort(self.code, "no room")
        for row in map(messages()["TimeSeriesDatum"].FromString, rows):
            labels = {label.name: label.value for label in row.labels}
            self.rows.append((row.metric, labels, row.value, row.timestamp.ToNanoseconds()))
        return b""

    def close(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture
def store() -> Iterator[OtherStore]:
    store = OtherStore()
    yield store
    store.close()


@pytest.fixture
def relay_of(store: OtherStore) -> Callable[[str], Relay]:
    return lambda reader: Relay(peer(reader, token=False), peer(store.address), 10.0)


async def test_labels_and_nanoseconds_survive(store: OtherStore, relay_of: Callable[[str], Relay]) -> None:
    with Reader(lambda: DATA, "127.0.0.1:0") as reader:
        relay = relay_of(reader.address)
        await relay.poll()
        assert store.rows == [("m", {"a": "b", "c": "d"}, 1.0, TIME), ("m", {}, 2.0, TIME + 1)]
        await relay.close()


async def test_the_first_poll_is_at_the_next_boundary(store: OtherStore, relay_of: Callable[[str], Relay]) -> None:
    clock = ManualClock(1_700_000_001_234)
    with Reader(lambda: DATA[:1], "127.0.0.1:0") as reader:
        running = asyncio.create_task(relay_of(reader.address).run(60_000, clock))
        await until(lambda: clock.sleepers)
        await clock.advance(38.765)
        assert store.rows == []
        for count in (1, 2):
            await clock.advance(0.001 if count == 1 else 60.0)
            await until(lambda count=count: len(store.rows) == count and clock.sleepers)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_whoever_is_down_is_named_once_and_nothing_ends(
    store: OtherStore, relay_of: Callable[[str], Relay], capsys: pytest.CaptureFixture[str]
) -> None:
    with Reader(lambda: DATA, "127.0.0.1:0") as reader:
        address = reader.address
    relay = relay_of(address)
    for _ in range(2):
        await relay.poll()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"the reader at {address}: UNAVAILABLE")
    with Reader(lambda: DATA, address):
        store.code = grpc.StatusCode.RESOURCE_EXHAUSTED
        await relay.poll()
        assert capsys.readouterr().err == f"the store at {store.address}: RESOURCE_EXHAUSTED: no room\n"
        store.code = grpc.StatusCode.OK
        store.rows.clear()
        await relay.poll()
        assert (len(store.rows), capsys.readouterr().err) == (2, "2 rows are relayed again\n")
    await relay.close()


@pytest.mark.parametrize(("interval", "timeout"), [("1s", "2s"), ("0s", None), ("soon", None)])
def test_times_that_make_no_sense_are_refused(interval: str, timeout: str | None) -> None:
    with pytest.raises(BadInput):
        run_poll("localhost:1", "localhost:2", interval, timeout, None, None, None)
