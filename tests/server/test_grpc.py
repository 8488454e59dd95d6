"""The gRPC listener of a real server, by a client that knows the definition and nothing of us."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from streamgauge.cli import cli
from streamgauge.client import Datum, Reader
from streamgauge.errors import BadInput, ConfigError
from streamgauge.model.source import Matcher, MatchOp, NoMeter
from streamgauge.rpc.channel import RpcFailed
from streamgauge.settings import Config, resolve
from streamgauge.start import check_addresses
from streamgauge.store.offline import open_folder
from streamgauge.testing.certificates import CertificateAuthority
from streamgauge.testing.requests import Series
from streamgauge.testing.server import SECONDS, ServerProcess, eventually, launch_command, run_command
from streamgauge.testing.time_series import datum, points, wanted
from streamgauge.wire.timeseries import SECOND

NOW = int(time.time())
GRPC = ("--grpc-listen", "127.0.0.1:0", "--no-self-monitoring", "--retention", "0")


def address_of(server: ServerProcess) -> str:
    return server.await_line("gRPC is answered on").split()[-1]


class Store:
    """A plain client of TStorage."""

    def __init__(self, channel: grpc.Channel, token: str = "") -> None:
        self.channel = channel
        self._metadata = [("authorization", f"Bearer {token}")] if token else []
        self._row = channel.unary_unary("/proto.TStorage/InsertRow")
        self._rows = channel.stream_unary("/proto.TStorage/InsertRows")
        self._select = channel.unary_stream("/proto.TStorage/Select")

    def row(self, message: bytes) -> Any:
        return self._row(message, timeout=SECONDS, metadata=self._metadata)

    def rows(self, *messages: bytes) -> Any:
        return self._rows(iter(messages), timeout=SECONDS, metadata=self._metadata)

    def select(self, message: bytes) -> list[tuple[float, float]]:
        return points(self._select(message, timeout=SECONDS, metadata=self._metadata))


def refused(call: Callable[[], object]) -> tuple[StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    data = [Datum("sensed", 21.5, {"room": "attic"}, NOW * SECOND + 123_456_789), Datum("sensed", 1.0)]
    with Reader(lambda: data, "127.0.0.1:0") as reader:
        yield reader


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, reader: Reader) -> Iterator[ServerProcess]:
    """Polls the reader each second."""
    folder = tmp_path_factory.mktemp("grpc")
    config = folder / "config.yml"
    config.write_text(f"grpc_poll_configs: [{{job_name: devices, targets: ['{reader.address}'], interval: 1s}}]")
    arguments = (*GRPC, "--tstorage-listen", "127.0.0.1:0", "--config", str(config))
    with ServerProcess.start(folder / "data", arguments) as running:
        yield running
        assert running.stop() == 0, "".join(running.output)
        assert not [line for line in running.output if "Traceback" in line], "".join(running.output)


@pytest.fixture(scope="module")
def store(server: ServerProcess) -> Iterator[Store]:
    with grpc.insecure_channel(address_of(server)) as channel:
        yield Store(channel)


def test_rows_come_back_as_they_went_in(store: Store, server: ServerProcess) -> None:
    labels = [("b", "2"), ("a", "1")]
    assert store.row(datum("temperature", labels, 1.5, NOW - 5)) == b""
    assert store.rows(*(datum("temperature", labels, float(at), NOW - 10 + at) for at in (4, 2, 3, 2))) == b""
    everything = [(NOW - 8, 2.0), (NOW - 7, 3.0), (NOW - 6, 4.0), (NOW - 5, 1.5)]
    assert store.select(wanted("temperature", reversed(labels), 0, NOW)) == everything
    assert store.select(wanted("temperature", labels, NOW - 8, NOW - 6)) == everything[:2]
    assert store.select(wanted("temperature", labels, NOW - 7.9995, NOW - 5.9999)) == everything[1:3]
    assert server.value('sum(count_over_time(temperature{a="1",b="2"}[1m]))', NOW) == 4


def test_a_series_is_found_by_all_of_its_labels_alone(store: Store) -> None:
    store.rows(
        datum("exact", [], 1.0, NOW),
        datum("exact", [("a", "1")], 2.0, NOW),
        datum("exact", [("a", "1"), ("b", "2")], 3.0, NOW),
    )
    for labels, value in (([], 1.0), ([("a", "1"), ("", "x"), ("x", "")], 2.0), ([("a", "1"), ("b", "2")], 3.0)):
        assert store.select(wanted("exact", labels, 0, NOW + 1)) == [(NOW, value)]
    for labels in ([("b", "2")], [("a", "2")], [("a", "1"), ("b", "2"), ("c", "3")]):
        assert store.select(wanted("exact", labels, 0, NOW + 1)) == []


def test_long_answers_come_whole(store: Store, server: ServerProcess) -> None:
    count = 2_500
    samples = [((NOW - count + at) * 1000, float(at)) for at in range(count)]
    assert server.write([Series({"__name__": "long"}, samples)]).status == 204
    assert store.select(wanted("long", [], 0, NOW)) == [(NOW - count + at, float(at)) for at in range(count)]


def test_errors_have_their_codes_and_name_the_row(store: Store) -> None:
    code, text = refused(lambda: store.rows(datum("m", [], 1.0, NOW), datum("m", [("a", "b")], 1.0, None)))
    assert (code, text) == (
        StatusCode.INVALID_ARGUMENT,
        'row 2: m{a="b"}: it has no timestamp; 1 of 2 rows were stored, and refused: 1 no_timestamp',
    )
    assert refused(lambda: store.row(datum("m", [], 1.0, None)))[0] == StatusCode.INVALID_ARGUMENT
    assert refused(lambda: store.row(datum("m", [], 1.0, NOW + 10**6)))[0] == StatusCode.OUT_OF_RANGE
    assert refused(lambda: store.row(b"garbage"))[0] == StatusCode.INVALID_ARGUMENT
    assert refused(lambda: store.row(bytes(300_000)))[0] == StatusCode.RESOURCE_EXHAUSTED
    assert refused(lambda: store.select(wanted("", [], 0, 1))) == (StatusCode.INVALID_ARGUMENT, "metric must be set")
    assert refused(lambda: store.select(wanted("m", [], 1, 1))) == (
        StatusCode.INVALID_ARGUMENT,
        "the given start is greater than end",
    )
    assert refused(lambda: store.select(b"\x0a\x01m")) == (StatusCode.INVALID_ARGUMENT, "the filter has no start")


def test_names_may_have_anything_in_them_that_is_text(store: Store) -> None:
    metric, labels = 'a\n"{},=\x00\U0001f600', [("\x00,=", "b\n|\\"), ("x" * 1_000, "y" * 60_000)]
    store.row(datum(metric, labels, 1.0, NOW))
    assert store.select(wanted(metric, labels, 0, NOW + 1)) == [(NOW, 1.0)]


def test_both_addresses_have_the_same_store(server: ServerProcess, store: Store) -> None:
    line = server.await_line("gRPC is answered on").split()
    with grpc.insecure_channel(line[-3]) as channel:
        Store(channel).row(datum("either", [], 1.0, NOW))
    assert line[-3] != line[-1]
    assert store.select(wanted("either", [], 0, NOW + 1)) == [(NOW, 1.0)]


def test_a_storm_of_connections_passes(server: ServerProcess, store: Store) -> None:
    host, _, port = address_of(server).rpartition(":")
    for number in range(300):
        with socket.create_connection((host, int(port))) as one:
            if number % 3:
                one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(number % 7))
    assert store.row(datum("storm", [], 1.0, NOW)) == b""


def test_garbage_for_the_services_about_it_is_no_page_in_the_log(store: Store, server: ServerProcess) -> None:
    lines = len(server.output)
    check = store.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert check(b"\xff\xff", timeout=SECONDS) == b"\x08\x01"
    info = store.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    assert len(list(info(iter([b"\xff", b"\x0a"]), timeout=SECONDS))) == 2
    assert server.output[lines:] == []


def test_it_says_what_it_is(store: Store) -> None:
    health = health_pb2_grpc.HealthStub(store.channel)
    for service in ("", "proto.TStorage"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=SECONDS)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    database = ProtoReflectionDescriptorDatabase(store.channel)
    assert "proto.TStorage" in database.get_services()
    (service,) = [each for each in database.FindFileByName("timeseries.proto").service if each.name == "TStorage"]
    assert [method.name for method in service.method] == ["InsertRow", "InsertRows", "Select"]


def test_a_hostile_client_disturbs_nobody_else(store: Store, server: ServerProcess) -> None:
    """Garbage, half of a connection, a stream that hangs, and one that is broken off."""
    host, _, port = address_of(server).rpartition(":")
    before = server.metric_sum("streamgauge_grpc_calls")

    over = threading.Event()

    def hanging() -> Iterator[bytes]:
        yield datum("hanging", [], 1.0, NOW)
        over.wait(SECONDS)

    with (
        socket.create_connection((host, int(port))) as garbage,
        socket.create_connection((host, int(port))) as silent,
        grpc.insecure_channel(address_of(server)) as other,
    ):
        garbage.sendall(b"\x00\xff" * 50_000)
        silent.sendall(b"PRI * HTTP/2.0\r\n")
        call = other.stream_unary("/proto.TStorage/InsertRows").future(hanging())
        eventually(lambda: store.select(wanted("hanging", [], 0, NOW + 1)) == [(NOW, 1.0)])
        assert server.metric("streamgauge_grpc_calls") == before + 1
        assert store.rows(datum("undisturbed", [], 1.0, NOW)) == b""
        assert store.select(wanted("undisturbed", [], 0, NOW + 1)) == [(NOW, 1.0)]
        call.cancel()
        over.set()
    eventually(lambda: server.metric("streamgauge_grpc_calls") == before)


def test_readers_are_polled_each_second_and_listed(server: ServerProcess, reader: Reader) -> None:
    eventually(lambda: server.metric_sum('streamgauge_ingested_samples_total{source="grpc_poll"}') > 0)
    (target,) = server.data_of("/api/v1/targets")["activeTargets"]
    assert (target["health"], target["scrapeUrl"]) == ("up", f"grpc://{reader.address}")
    up = server.samples('up{job="devices"}', time.time() + 1)
    assert {value for _, value in up} == {"1"}
    assert server.samples('sensed{job="devices",room="attic"}', NOW + 1) == [(NOW * 1000 + 123, "21.5")]


# ---- commands -------------------------------------------------------------------------------------------------------


def tstorage(*arguments: str) -> tuple[str, str]:
    """What it prints, to standard output and error. What it raises goes through."""
    done = CliRunner().invoke(cli, ["tstorage", *arguments], catch_exceptions=False, standalone_mode=False)
    return done.stdout, done.stderr


def test_the_command_writes_and_reads_as_the_reference_does(store: Store, server: ServerProcess) -> None:
    port = ("-p", address_of(server).rpartition(":")[2], "-m", "commanded")
    assert tstorage("insert_row", *port, "-v", "1.5", "-t", str(NOW - 3)) == ("", "1 row stored\n")
    rows = ("-v", "2", "-t", str(NOW - 2), "-v", "3", "-t", f"{NOW - 1}.25")
    assert tstorage("insert_rows", *port, *rows) == ("", "2 rows stored\n")
    store.row(datum("commanded", [], 4.0, NOW))
    times = ("-s", str(NOW - 9), "-e", str(NOW + 9))
    assert tstorage("select", *port, *times)[0] == f"{NOW - 3} 1.5\n{NOW - 2} 2.0\n{NOW - 1}.25 3.0\n"
    assert store.select(wanted("commanded", [("Source", "Command")], 0, NOW - 2)) == [(NOW - 3, 1.5)]
    assert tstorage("select", *port, *times, "--label", "a=b") == ("", "no data points found\n")


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("insert_rows", "-v", "1", "-v", "2", "-t", "1"), BadInput, "there are 2 values and 1 timestamps"),
        (("insert_row", "-v", "1", "-t", "soon"), BadInput, "is not a time"),
        (("insert_row", "-v", "1", "-t", "1", "--label", "x"), BadInput, "is no label"),
        (("insert_row", "-v", "1", "-t", str(NOW + 10**6)), RpcFailed, "OUT_OF_RANGE: commanded"),
        (("insert_rows", "-v", "1", "-t", str(NOW + 10**6)), RpcFailed, "OUT_OF_RANGE: commanded"),
        (("select", "-s", "2", "-e", "1"), RpcFailed, "INVALID_ARGUMENT: the given start is greater than end"),
    ],
)
def test_the_command_says_what_is_wrong(
    server: ServerProcess, arguments: tuple[str, ...], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        tstorage(*arguments, "--address", address_of(server), "-m", "commanded")


def test_a_reader_is_relayed_to_a_store(server: ServerProcess, reader: Reader, tmp_path: Path) -> None:
    before = server.metric_sum("streamgauge_ingested_samples_total")
    addresses = ("-i", reader.address, "-o", address_of(server))
    with launch_command(["poll", *addresses, "--interval", "200ms", "--timeout", "200ms"], {}) as relay:
        try:
            eventually(lambda: server.samples('sensed{job="",room="attic"}', NOW + 1))
            relay.terminate()
            out, _ = relay.communicate(timeout=SECONDS)
        finally:
            relay.kill()
    assert (relay.returncode, out) == (0, "Starting graceful shut down now.\n")
    assert server.samples('sensed{job="",room="attic"}', NOW + 1) == [(NOW * 1000 + 123, "21.5")]
    assert server.metric_sum("streamgauge_ingested_samples_total") > before


def test_what_is_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    with ServerProcess.start(tmp_path / "data", GRPC) as server:
        with grpc.insecure_channel(address_of(server)) as channel:
            Store(channel).row(datum("kept", [], 1.0, NOW))
        server.kill()
    with open_folder(tmp_path / "data") as (snapshot, damage):
        kept = snapshot.open({}).select([Matcher("__name__", MatchOp.EQUAL, "kept")], 0, NOW * 1000, NoMeter())
    assert (damage, kept.samples.values.tolist()) == ([], [1.0])


def test_a_taken_address_is_fatal_where_it_was_asked_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run_command("serve", "--data", str(tmp_path), "--listen", "127.0.0.1:0", "--grpc-listen", address)
    assert done.returncode == 1
    assert f"cannot listen on {address}" in done.stderr
    assert "--grpc-listen" in done.stderr


@pytest.mark.parametrize("name", ["grpc_listen", "tstorage_listen"])
def test_an_address_that_others_reach_needs_authentication(name: str, tmp_path: Path) -> None:
    settings = resolve({name: "0.0.0.0:4317", "data": str(tmp_path)}, {}, {})
    with pytest.raises(ConfigError, match=rf"--{name.replace('_', '-')} 0.0.0.0:4317 can be reached"):
        check_addresses(settings, Config())


# ---- who may ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, authority: CertificateAuthority) -> Iterator[ServerProcess]:
    """A server that asks everybody, over TLS, for a certificate too."""
    folder = tmp_path_factory.mktemp("guarded")
    tokens = [("reader", "read", ""), ("writer", "write", ""), ("tenant", "read, write", "labels: {team: a}")]
    lines = [
        f"{{name: {name}, token_file: {folder / name}, scopes: [{scopes}], {labels}}}"
        for name, scopes, labels in tokens
    ]
    for name, _, _ in tokens:
        (folder / name).write_text(f"the token of the {name}")
    config = folder / "config.yml"
    config.write_text(
        f"auth:\n  tokens: [{', '.join(lines)}]\n  certificates: [{{common_name: device, scopes: [write]}}]\n"
    )
    pair = authority.issue("CN=server", file="listener")
    tls = ("--tls-cert", pair.cert, "--tls-key", pair.key, "--tls-client-ca", authority.file)
    arguments = (*GRPC, *map(str, tls), "--tls-client-auth", "require", "--config", str(config))
    with ServerProcess.launch(folder / "data", arguments) as running:
        running.await_line("gRPC is answered on")
        yield running


@pytest.fixture(scope="module")
def channel(guarded: ServerProcess, authority: CertificateAuthority) -> Iterator[grpc.Channel]:
    with secure_channel(guarded, authority, "CN=device") as channel:
        yield channel


def secure_channel(server: ServerProcess, authority: CertificateAuthority, subject: str) -> grpc.Channel:
    pair = authority.issue(subject)
    credentials = grpc.ssl_channel_credentials(
        authority.file.read_bytes(), pair.key.read_bytes(), pair.cert.read_bytes()
    )
    return grpc.secure_channel(address_of(server), credentials)


def test_tokens_have_the_scopes_that_they_have_over_http(channel: grpc.Channel) -> None:
    reader, writer = Store(channel, "the token of the reader"), Store(channel, "the token of the writer")
    writer.row(datum("scoped", [], 1.0, NOW))
    assert reader.select(wanted("scoped", [], 0, NOW + 1)) == [(NOW, 1.0)]
    assert refused(lambda: writer.select(wanted("scoped", [], 0, NOW)))[0] == StatusCode.PERMISSION_DENIED
    assert refused(lambda: reader.rows(datum("scoped", [], 1.0, NOW)))[0] == StatusCode.PERMISSION_DENIED
    for call in (Store(channel, "another").row, Store(channel, "another").select):
        assert refused(lambda call=call: call(b""))[0] == StatusCode.UNAUTHENTICATED


def test_somebody_bound_to_labels_writes_and_reads_these(channel: grpc.Channel) -> None:
    tenant, writer = Store(channel, "the token of the tenant"), Store(channel, "the token of the writer")
    tenant.row(datum("bound", [], 1.0, NOW))
    writer.row(datum("bound", [("team", "b")], 2.0, NOW))
    for labels in ([], [("team", "a")]):
        assert tenant.select(wanted("bound", labels, 0, NOW + 1)) == [(NOW, 1.0)]
    foreign = [("team", "b")]
    assert refused(lambda: tenant.select(wanted("bound", foreign, 0, NOW)))[0] == StatusCode.PERMISSION_DENIED
    assert refused(lambda: tenant.row(datum("bound", foreign, 1.0, NOW)))[0] == StatusCode.PERMISSION_DENIED


def test_a_certificate_says_who_one_is(
    channel: grpc.Channel, guarded: ServerProcess, authority: CertificateAuthority
) -> None:
    assert Store(channel).row(datum("certified", [], 1.0, NOW)) == b""
    assert refused(lambda: Store(channel).select(wanted("certified", [], 0, NOW)))[0] == StatusCode.PERMISSION_DENIED
    with secure_channel(guarded, authority, "CN=nobody") as stranger:
        assert refused(lambda: Store(stranger).row(datum("m", [], 1.0, NOW)))[0] == StatusCode.UNAUTHENTICATED


def test_health_is_told_to_everybody_and_the_rest_to_those_who_are_known(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    metadata = [("authorization", "Bearer another")]
    asked = health_pb2.HealthCheckRequest()
    assert health.Check(asked, metadata=metadata).status == health_pb2.HealthCheckResponse.SERVING
    assert refused(lambda: list(health.Watch(asked, metadata=metadata)))[0] == StatusCode.UNAUTHENTICATED
    assert refused(lambda: list(health.Watch(asked)))[0] == StatusCode.PERMISSION_DENIED  # as a device


def test_a_certificate_that_is_renewed_is_used(guarded: ServerProcess, authority: CertificateAuthority) -> None:
    authority.issue("CN=renewed", file="listener")
    guarded.signal(1)
    guarded.await_line("the certificate was read again")
    host, _, port = address_of(guarded).rpartition(":")
    pair = authority.issue("CN=device")
    context = ssl.create_default_context(cafile=authority.file)
    context.load_cert_chain(pair.cert, pair.key)
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((host, int(port))) as plain, context.wrap_socket(plain, server_hostname=host) as tls:
        shown = tls.getpeercert()
    assert shown is not None
    assert shown["subject"] == ((("commonName", "renewed"),),)
