"""A relay against a server that a test plays line by line."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

import pytest

from streamgauge.client import Relay
from streamgauge.commands.relay import TlsOptions
from streamgauge.errors import BadInput
from streamgauge.testing.certificates import CertificateAuthority
from streamgauge.testing.server import SECONDS, eventually


class Played:
    """A listener, and the connection that was accepted last."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(SECONDS)
        self._connection: socket.socket | None = None
        self.tls: ssl.SSLContext | None = None
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def accept(self, name: str, beat: str = "30") -> None:
        """The relay introduces itself, and is welcome."""
        self.hang_up()
        accepted, _ = self._listener.accept()
        self._connection = accepted if self.tls is None else self.tls.wrap_socket(accepted, server_side=True)
        self._connection.settimeout(SECONDS)
        self._lines = self._connection.makefile("rb")
        assert self.hears() == f"id {name}"
        self.say("ok", f"beat {beat}")

    def hears(self) -> str:
        return self._lines.readline().decode().removesuffix("\n")

    def say(self, *lines: str) -> None:
        assert self._connection is not None
        self._connection.sendall("".join(f"{line}\n" for line in lines).encode())

    def asks(self, *names: str) -> str:
        self.say(f"get {','.join(names)}")
        return self.hears()

    def hang_up(self) -> None:
        if self._connection is not None:
            self._lines.close()
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        self.hang_up()
        self._listener.close()


@pytest.fixture
def server() -> Iterator[Played]:
    with contextlib.closing(Played()) as played:
        yield played


def relay_of(server: Played) -> Relay:
    return Relay("web1", server.address, reconnect=0.01)


def test_it_says_who_it_is_and_what_it_has_and_answers(server: Played) -> None:
    with relay_of(server) as relay:
        relay.add_point("cpu", lambda: 1.5, {"dc": "a", "url": "http://x"})
        relay.add_set("disk", lambda: {"sda": -2, "sd-b": 1 / 3})
        server.accept("web1")
        assert server.hears() == "add cpu:dc:a,url:http://x"
        assert server.hears() == "add disk"
        assert server.asks("cpu", "disk", "nothing") == f"got cpu-cpu:1.5000,disk-sda:-2.0000,disk-sd-b:{1 / 3!r}"
        relay.add_point("later", lambda: 0)
        assert server.hears() == "add later"
        relay.remove("cpu")
        assert server.hears() == "remove cpu"
        assert server.asks("cpu", "later") == "got later-later:0.0000"
        info = relay.info()
        assert (info.connected, info.collectors, info.polls, info.values) == (True, ("disk", "later"), 2, 4)
    assert server.hears() == "close"
    assert server.hears() == ""


def test_it_comes_back_and_says_everything_again(server: Played) -> None:
    with relay_of(server) as relay:
        relay.add_point("cpu", lambda: 1)
        for number in range(1, 4):
            server.accept("web1")
            assert server.hears() == "add cpu"
            assert relay.info().connections == number
        server.say("ok", "what", "", "pong")  # any of which may come at any time
        assert server.asks("cpu") == "got cpu-cpu:1.0000"


def test_it_comes_back_when_a_ping_is_not_answered(server: Played) -> None:
    with relay_of(server):
        server.accept("web1", beat="0.05")
        assert server.hears() == "ping"
        server.say("pong")
        assert server.hears() == "ping"
        server.accept("web1")


def test_a_collector_that_fails_is_counted_and_the_others_answer(server: Played) -> None:
    with relay_of(server) as relay:
        relay.add_point("bad", lambda: 1 / 0)
        relay.add_point("none", lambda: float("nan"))
        relay.add_point("good", lambda: 2)
        server.accept("web1")
        assert [server.hears() for _ in range(3)] == ["add bad", "add none", "add good"]
        assert server.asks("bad", "none", "good") == "got good-good:2.0000"
        assert relay.info().failures == 2


def test_override_and_flush_are_obeyed(server: Played) -> None:
    counts = iter(range(1, 1000))
    with relay_of(server) as relay:
        relay.add_point("n", lambda: next(counts), interval=3600)
        server.accept("web1")
        assert server.hears() == "add n"
        assert [server.asks("n"), server.asks("n")] == ["got n-n:1.0000"] * 2
        server.say("override 3600 n:0.001,other:1")
        assert server.hears() == "ok"
        eventually(lambda: float(server.asks("n").rpartition(":")[2]) > 3)
        server.say("override 3600 n:1800")
        assert server.hears() == "ok"
        server.say("flush", "get n", "get n")
        answers = {server.hears()}
        relay.add_point("end", lambda: 0)
        while (line := server.hears()) != "add end":
            answers.add(line)
        assert answers == {"ok"}  # there is nothing to tell until the next collection


@pytest.mark.parametrize("name", ["", "a-b", "a:b", "a,b", "_connected", "cpu"])
def test_names_that_are_not_possible(server: Played, name: str) -> None:
    with relay_of(server) as relay:
        relay.add_point("cpu", lambda: 1)
        with pytest.raises(BadInput):
            relay.add_point(name, lambda: 1)
        with pytest.raises(BadInput):
            relay.add_point("other", lambda: 1, {"a:b": "c"})
        with pytest.raises(BadInput):
            relay.remove("nothing")


def test_what_is_refused_is_told(server: Played) -> None:
    with relay_of(server) as relay:
        server.hang_up()
        connection, _ = server._listener.accept()
        with connection:
            connection.sendall(b"missing id\n")
            eventually(lambda: relay.info().error)
            assert relay.info().error == "missing id"
            assert not relay.info().connected


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


def contexts(authority: CertificateAuthority) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server that asks for certificates, and of a relay that shows one."""
    pair = authority.issue("CN=server")
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    asking.load_cert_chain(pair.cert, pair.key)
    asking.load_verify_locations(authority.file)
    asking.verify_mode = ssl.CERT_REQUIRED
    shown = authority.issue("CN=web1")
    return asking, TlsOptions(ca=str(authority.file), cert=str(shown.cert), key=str(shown.key)).context()


def test_it_speaks_tls_and_shows_its_certificate(server: Played, authority: CertificateAuthority) -> None:
    server.tls, ours = contexts(authority)
    with Relay("web1", server.address, reconnect=0.01, tls=ours) as relay:
        relay.add_set("many", lambda: {f"n{number}": number for number in range(3_000)})
        for _ in range(2):
            server.accept("web1")
            assert server.hears() == "add many"
            server.say(*["what is longer than a record of TLS"] * 2_000)
            assert server.asks("many").count(":") == 3_000


def test_a_server_that_it_does_not_trust_hears_nothing(server: Played, authority: CertificateAuthority) -> None:
    server.tls, _ = contexts(authority)
    with Relay("web1", server.address, reconnect=0.01, tls=ssl.create_default_context()) as relay:
        with pytest.raises(ssl.SSLError):
            server.accept("web1")
        eventually(lambda: "certificate verify failed" in relay.info().error)


@pytest.mark.parametrize(
    ("options", "words"),
    [(TlsOptions(ca="/nowhere"), "cannot be used"), (TlsOptions(key="k"), "goes with --tls-cert")],
)
def test_files_that_are_none_are_told(options: TlsOptions, words: str) -> None:
    assert TlsOptions().context() is None
    with pytest.raises(BadInput, match=words):
        options.context()
