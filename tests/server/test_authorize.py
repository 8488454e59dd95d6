"""Who may push, end to end: our server beside the reference's programs, which ask and share as it does."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import http.client
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from streamgauge.auth.answer_cache import AnswerCache
from streamgauge.auth.authority_stats import AuthorityStats
from streamgauge.auth.memcached import Memcached
from streamgauge.auth.receive_credentials import read_credentials
from streamgauge.auth.signing_keys import generate_key
from streamgauge.auth.upstream import Upstream, read_assent
from streamgauge.clock import SystemClock
from streamgauge.errors import Overloaded
from streamgauge.http.client import Resolver
from streamgauge.stats import Stats
from streamgauge.testing.programs import find_program
from streamgauge.testing.server import ServerProcess

DIGEST = hashlib.sha256(b"a token of ours").hexdigest()
BEARER = {"authorization": "Bearer a token of ours"}


def test_a_reload_changes_who_gets_a_token_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "streamgauge.yml"
    file.write_text(f"federation:\n  whitelist: '{{}}'\n  push-tokens: [{{name: me, sha256: {DIGEST}}}]\n")
    arguments = ["--config", str(file), "--no-self-monitoring"]
    with ServerProcess.start(tmp_path / "data", arguments) as server:
        answer = server.request("POST", "/authorize?id=c", headers=BEARER)
        assert (answer.status, json.loads(answer.body)["labels"]) == (200, {"_id": "c"})
        assert server.metric('streamgauge_cluster_authorizations_total{path="authorize",result="granted"}') == 1
        shown = server.data_of("/api/v1/status/config")["yaml"]
        assert DIGEST not in shown
        file.write_text("federation:\n  whitelist: '{}'\n  nonsense: 1\n")
        refused = server.post("/-/reload")
        assert "federation.nonsense" in refused.text
        assert server.request("POST", "/authorize?id=c", headers=BEARER).status == 200
        file.write_text("global: {}\n")
        assert server.post("/-/reload").status == 200
        assert server.request("POST", "/authorize?id=c", headers=BEARER).status == 404


# ---- beside the reference --------------------------------------------------------------------------------------------


@dataclass
class Peers:
    """The reference's authority and server, and a memcached."""

    authority: int
    server: int
    memcached: int
    authority_process: subprocess.Popen[bytes]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


REFERENCE = ("authorization-server", "telemeter-server", "memcached")


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    """Nobody can install the reference's programs from a package: without them tests are skipped everywhere."""
    missing = [name for name in REFERENCE if find_program(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    folder = tmp_path_factory.mktemp("peers")
    (folder / "tokens.json").write_text('[{"token":"a"}]')
    authority, external, internal, memcached = (free_port() for _ in range(4))
    commands = [
        ["authorization-server", f"127.0.0.1:{authority}", str(folder / "tokens.json")],
        ["memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", str(memcached), "-U", "0"],
        [
            "telemeter-server",
            f"--listen=127.0.0.1:{external}",
            f"--listen-internal=127.0.0.1:{internal}",
            f"--authorize=http://127.0.0.1:{authority}/",
            f"--memcached=127.0.0.1:{memcached}",
            f"--shared-key={signing_key(folder)}",
            "--forward-url=http://127.0.0.1:9/",
        ],
    ]
    running = [
        subprocess.Popen(
            [str(find_program(words[0])), *words[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for words in commands
    ]
    try:
        for port, process in zip((authority, memcached, external), running, strict=True):
            while not listens(port):
                assert process.poll() is None
        yield Peers(authority, external, memcached, running[0])
    finally:
        for process in running:
            process.kill()
            process.wait()


def signing_key(folder: Path) -> Path:
    file = folder / "key.pem"
    if not file.exists():
        file.write_bytes(generate_key())
        os.chmod(file, 0o600)
    return file


@pytest.fixture(scope="module")
def ours(peers: Peers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("ours")
    key = next(tmp_path_factory.getbasetemp().glob("peers*/key.pem"))
    file = folder / "streamgauge.yml"
    file.write_text(
        f"federation:\n  whitelist: '{{}}'\n  authorize: http://127.0.0.1:{peers.authority}/\n  shared-key: {key}\n"
        f"  memcached: 127.0.0.1:{peers.memcached}\n"
    )
    arguments = ["--config", str(file), "--no-self-monitoring"]
    with ServerProcess.start(folder / "data", arguments) as server:
        yield server


def ask(port: int, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, str, str]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("content-type", ""), answer.read().decode()


def claims_of(token: str) -> dict[str, object]:
    header, payload, _ = token.split(".")
    assert base64.urlsafe_b64decode(header + "==") == b'{"alg":"ES256"}'
    claims: dict[str, object] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return {name: value for name, value in claims.items() if name not in ("iat", "nbf", "exp")}


def test_both_answer_alike_and_take_each_others_tokens(peers: Peers, ours: ServerProcess) -> None:
    answers = [ask(port, "/authorize?id=c%20x", {"authorization": "bearer a"}) for port in (peers.server, ours.port)]
    (status, kind, theirs), (our_status, our_kind, our_text) = answers
    assert (status, kind) == (our_status, our_kind) == (200, "text/plain; charset=utf-8")
    reference, own = json.loads(theirs), json.loads(our_text)
    assert claims_of(reference["token"]) == claims_of(own["token"])
    assert list(reference) == list(own)
    assert reference | {"token": ""} == own | {"token": ""}
    # Past its authorisation the reference stops at a body that is no text: theirs was good, a foreign one is not.
    upload = {"content-type": "text/plain"}
    good = ask(peers.server, "/upload", upload | {"authorization": f"Bearer {own['token']}"}, b"{")
    bad = ask(peers.server, "/upload", upload | {"authorization": f"Bearer {own['token'][:-6]}AAAAAA"}, b"{")
    assert (good[0] != 401, bad[0]) == (True, 401)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/authorize", {}),
        ("/authorize?id=", {"authorization": "Bearer a"}),
        ("/authorize?id=%zz", {"authorization": "Bearer a"}),
        ("/authorize?id=c", {}),
        ("/authorize?id=c", {"authorization": "Basic a"}),
        ("/authorize?id=c", {"authorization": "Bearer"}),
        ("/authorize?id=c", {"authorization": "Bearer unknown"}),
    ],
)
def test_both_refuse_alike(peers: Peers, ours: ServerProcess, path: str, headers: dict[str, str]) -> None:
    assert ask(ours.port, path, headers) == ask(peers.server, path, headers)


def shown(cluster: str) -> str:
    text = json.dumps({"authorization_token": "a", "cluster_id": cluster}).encode()
    return f"Bearer {base64.b64encode(text).decode()}"


def confirmed(peers: Peers, cluster: str, authority: int) -> str:
    """Whose a cluster is by what a server like ours finds, with nothing in its memory."""

    async def confirm() -> str:
        clock, stats, resolver = SystemClock(), AuthorityStats(Stats()), Resolver()
        shared = Memcached([("127.0.0.1", peers.memcached)], 60, 10, resolver, clock)
        cache = AnswerCache(read_assent, clock, stats, 0, shared)
        upstream = Upstream(f"http://127.0.0.1:{authority}/", resolver, cache, clock, stats)
        try:
            return await upstream.confirm(read_credentials(shown(cluster)))
        finally:
            upstream.close()
            resolver.close()
            await asyncio.sleep(0)

    return asyncio.run(confirm())


def test_both_keep_answers_where_the_other_finds_them(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference's receiver stops at a body that is no remote write, once it knows who comes."""
    monkeypatch.setattr("streamgauge.auth.memcached.TIMEOUT_SECONDS", 30)

    def received(cluster: str) -> int:
        return ask(peers.server, "/metrics/v1/receive", {"authorization": shown(cluster)})[0]

    nowhere = free_port()
    assert received("theirs") == 400
    account = confirmed(peers, "ours", peers.authority)
    peers.authority_process.kill()
    peers.authority_process.wait()
    assert received("ours") == 400
    assert received("nobody's") == 401
    assert confirmed(peers, "ours", nowhere) == account
    assert confirmed(peers, "theirs", nowhere) not in ("", account)
    with pytest.raises(Overloaded):
        confirmed(peers, "nobody's", nowhere)
