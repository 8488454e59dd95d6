"""wss:// and https://."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamgauge.client import HostCounters, HostPusher, Writer
from streamgauge.testing.event_server import EventServer, Store
from streamgauge.testing.server import eventually

SCHEMES = pytest.mark.parametrize("scheme", ["wss", "https"])


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `server.pem`, of 127.0.0.1, signed by itself, and `server.key`."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    command += ["-keyout", str(folder / "server.key"), "-out", str(folder / "server.pem")]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture
def server(certificate: Path) -> Iterator[EventServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "server.pem", certificate / "server.key")
    with EventServer(Store(numbered=True), tls=context) as server:
        yield server


@SCHEMES
def test_events_arrive_encrypted(
    server: EventServer, certificate: Path, new_writer: Callable[..., Writer], scheme: str
) -> None:
    trusted = ssl.create_default_context(cafile=str(certificate / "server.pem"))
    writer = new_writer(server.url(scheme), tls=trusted)
    for n in range(3_000):
        writer.write({"n": n, "text": "x" * 1_000})
    assert not writer.close(60)
    assert [value["n"] for value in server.store.values()] == list(range(3_000))


def test_counters_are_pushed_to_whom_one_trusts(server: EventServer, certificate: Path) -> None:
    counters = HostCounters()
    counters.observe(b"shop.example", 200, 0.1)
    errors: list[str] = []
    for trusted in (certificate / "server.pem", None):
        HostPusher(server.url("https"), counters, ca_file=trusted, interval=3600, on_error=errors.append).close()
    answered, refused = errors
    assert answered.startswith("the server answered"), "which takes events alone"
    assert "certificate" in refused


@SCHEMES
def test_a_certificate_that_is_not_trusted_gets_nothing(
    server: EventServer, new_writer: Callable[..., Writer], errors: list[str], scheme: str
) -> None:
    writer = new_writer(server.url(scheme))
    writer.write({"n": 1})
    eventually(lambda: errors)
    assert "certificate" in errors[0]
    assert server.store.streams == []
