"""The addresses of the gRPC listener at the start: a default that is taken is done without."""

from __future__ import annotations

import asyncio
import logging
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import ListenFailed
from streamgauge.grpc_listener import GrpcListener
from streamgauge.settings import resolve
from streamgauge.stats import Stats
from streamgauge.testing.until import until

NOTHING: Any = None


def listener(given: bool, services: Any = NOTHING, **addresses: str) -> GrpcListener:
    """given: whether somebody asked for these addresses, or they are the defaults."""
    settings = resolve({"grpc_listen": "", **addresses}, {}, {})
    settings = settings if given else type(settings)(**{**_values(settings), "given": frozenset()})
    return GrpcListener(settings, services, NOTHING, None, Stats(), ManualClock())


def _values(settings: Any) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


@pytest.fixture
def taken() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_default_that_is_taken_is_warned_of(taken: str, caplog: pytest.LogCaptureFixture) -> None:
    made = listener(False, grpc_listen=taken)
    made.reserve()
    assert made.addresses == []
    assert f"cannot listen on {taken}" in caplog.text
    assert "there is no gRPC listener" in caplog.text


def test_one_that_was_asked_for_is_needed(taken: str) -> None:
    with pytest.raises(ListenFailed, match="--tstorage-listen"):
        listener(True, tstorage_listen=taken).reserve()


async def _run(made: GrpcListener) -> None:
    await made.run()
    await made.stop(0)


@pytest.mark.anyio
async def test_off_is_nothing_at_all() -> None:
    made = listener(True)
    made.reserve()
    assert made.addresses == []
    await _run(made)


@pytest.mark.anyio
async def test_an_address_is_held_until_it_is_used_and_let_go_at_the_stop() -> None:
    made = listener(True, grpc_listen="127.0.0.1:0", tstorage_listen="127.0.0.1:0")
    made.reserve()
    first, second = made.addresses
    assert first != second
    host, _, port = first.rpartition(":")
    with pytest.raises(OSError), socket.socket() as other:
        other.bind((host, int(port)))
    await made.stop(0)
    with socket.create_server((host, int(port))):
        pass


async def _begun(made: GrpcListener, caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Run it until the log says `text`."""
    caplog.set_level(logging.INFO)
    running = asyncio.create_task(made.run())
    await until(lambda: text in caplog.text or running.done())
    assert text in caplog.text, running
    running.cancel()
    await made.stop(0)


@pytest.mark.anyio
async def test_every_address_of_the_machine_is_one_listener_of_the_library(caplog: pytest.LogCaptureFixture) -> None:
    made = listener(True, SimpleNamespace(query_limits=None), grpc_listen="*:0")
    made.reserve()
    await _begun(made, caplog, "gRPC is answered on")


@pytest.mark.anyio
async def test_one_that_is_lost_before_it_is_used_is_an_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    made = listener(True, SimpleNamespace(query_limits=None), grpc_listen="127.0.0.1:0")
    made.reserve()
    with socket.create_server(("127.0.0.1", 0)) as other:
        made.addresses = [f"127.0.0.1:{other.getsockname()[1]}"]
        await _begun(made, caplog, "there is no gRPC listener")
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
