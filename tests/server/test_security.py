"""A server with every kind of authentication, over TLS, and the programs that come to it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from streamgauge.auth.rules import AuthRules
from streamgauge.client import Writer
from streamgauge.commands.client import ask
from streamgauge.commands.server import Access, named_server
from streamgauge.errors import ConfigError, StreamgaugeError
from streamgauge.listeners import tls_files
from streamgauge.model.token import KEY_HEADER
from streamgauge.settings import Config, resolve
from streamgauge.start import check_addresses
from streamgauge.store.lock import holder
from streamgauge.store.token_file import write_tokens
from streamgauge.testing import requests
from streamgauge.testing.certificates import CertificateAuthority
from streamgauge.testing.requests import Series
from streamgauge.testing.server import SECONDS, ServerProcess, eventually, launch_command, run_command

PASSWORD = "a password that nobody sees"
FIXED = "a-fixed-token-that-nobody-sees"


@dataclass
class Site:
    """process: of the server. tokens: their texts by name, each a file of that name in `folder`, too."""

    process: ServerProcess
    folder: Path
    data: Path
    port: int
    internal: int
    tokens: dict[str, str]
    hash: str

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def ca(self) -> Path:
        return self.folder / "test-authority.pem"

    def ask(
        self,
        path: str,
        authorization: str = "",
        url: str = "",
        form: bytes | None = None,
        certificate: str = "",
        **headers: str,
    ) -> tuple[int, str, Any]:
        """Status, body and headers of an answer. certificate: the name of one to show."""
        request = urllib.request.Request((url or self.url) + path, form, headers)
        if authorization:
            request.add_header("Authorization", authorization)
        context = ssl.create_default_context(cafile=self.ca)
        if certificate:
            context.load_cert_chain(self.folder / f"{certificate}.pem", self.folder / f"{certificate}.key")
        try:
            with urllib.request.urlopen(request, timeout=SECONDS, context=context) as answer:
                return answer.status, answer.read().decode(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), error.headers

    def command(self, *arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
        more = ["--token-file", str(self.folder / token)] if token else []
        return run_command(*arguments, "--server", self.url, "--ca-file", str(self.ca), *more)

    def secrets(self) -> list[str]:
        held = holder(self.data)
        assert held is not None
        secrets = [text.rpartition("_")[2] for text in self.tokens.values()]
        return [*secrets, PASSWORD, FIXED, held.key, self.hash]


CONFIG = """
auth:
  tokens: [{{name: fixed, token_file: fixed, scopes: [write]}}]
  basic_users:
    alice: {{hash: {hash}, scopes: [read]}}
  certificates:
    - {{subject: "CN=agent,O=Example", scopes: [read]}}
federation:
  whitelist: '{{}}'
  client-certificates: true
"""


def made(data: Path, name: str, *scopes: str) -> str:
    """The first token of a folder."""
    options = [word for scope in scopes for word in ("--scope", scope)]
    done = run_command("token", "create", name, *options, "--data", str(data))
    assert done.returncode == 0, done.stderr
    assert "from now on the server asks everybody for one" in done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    data = folder / "data"
    authority = CertificateAuthority(folder)
    server = authority.issue("CN=localhost", file="server")
    authority.issue("CN=agent,O=Example", file="agent")
    authority.issue("CN=stranger,O=Example", file="stranger")
    tokens = {"admin": made(data, "admin", "admin", "read", "write"), "fixed": FIXED}
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)).decode()
    (folder / "fixed").write_text(FIXED)
    (folder / "admin").write_text(tokens["admin"])
    (folder / "config.yml").write_text(CONFIG.format(hash=hashed))
    arguments = ["--config", str(folder / "config.yml"), "--internal-listen", "127.0.0.1:0", "--no-self-monitoring"]
    arguments += ["--retention", "0"]
    arguments += ["--tls-cert", str(server.cert), "--tls-key", str(server.key), "--tls-client-ca", str(authority.file)]
    with ServerProcess.launch(data, arguments) as process:
        found = [
            re.search(r"https://127\.0\.0\.1:(\d+)", process.await_line(t)) for t in ("remote_write", "federation")
        ]
        assert found[0] is not None
        assert found[1] is not None
        process.await_line("everybody is asked for a token")
        process.await_line("ready; ")
        site = Site(process, folder, data, int(found[0][1]), int(found[1][1]), tokens, hashed)
        yield site
        secrets = site.secrets()
        assert process.stop() == 0, "".join(process.output)
        printed = "".join(process.output)
        assert not [secret for secret in secrets if secret in printed]
        assert "Traceback" not in printed


@pytest.fixture(scope="module")
def reader(site: Site) -> str:
    """A token that was made through the server; it is good at once."""
    done = site.command("token", "create", "reader", "--scope", "read", token="admin")
    assert done.returncode == 0, done.stderr
    assert "from now on" not in done.stderr
    site.tokens["reader"] = done.stdout.strip()
    (site.folder / "reader").write_text(site.tokens["reader"])
    return site.tokens["reader"]


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def test_everybody_is_asked_and_told_how_to_answer(site: Site) -> None:
    for path in ("/", "/api/v1/query?query=1", "/api/v1/write", "/ui/console.js"):
        status, _, headers = site.ask(path, form=b"" if "write" in path else None)
        assert status == 401
        bearer, basic_ = headers.get_all("www-authenticate")
        assert (bearer, basic_.partition(",")[0]) == ('Bearer realm="streamgauge"', 'Basic realm="streamgauge"')


def test_each_may_do_what_is_theirs(site: Site, reader: str) -> None:
    query, reload = "/api/v1/query?query=1", "/-/reload"
    for authorization in (f"Bearer {reader}", basic("anybody", reader), basic("alice", PASSWORD)):
        assert site.ask(query, authorization)[0] == 200
        status, body, _ = site.ask(reload, authorization, form=b"")
        assert (status, "permission admin" in body) == (403, True)
    assert site.ask(query, f"Bearer {FIXED}")[0] == 403
    assert site.ask(reload, f"Bearer {site.tokens['admin']}", form=b"")[0] == 200
    assert site.ask(query, basic("alice", reader[:-1]))[0] == 401
    assert site.ask(query, basic("alice", "guess"))[0] == 401


def test_the_internal_listener_has_its_paths_and_the_other_has_them_no_more(site: Site, reader: str) -> None:
    internal = f"https://localhost:{site.internal}"
    for path in ("/-/healthy", "/-/ready", "/metrics", "/federate?match[]=up"):
        assert site.ask(path, url=internal)[0] == 200
        assert site.ask(path, f"Bearer {reader}")[0] == 404
    for path in ("/", "/api/v1/query?query=1", "/api/v1/write"):
        assert site.ask(path, f"Bearer {site.tokens['admin']}", url=internal)[0] == 404
    assert site.ask("/api/v1/labels")[0] == 401
    metrics = site.ask("/metrics", url=internal)[1]
    assert 'streamgauge_auth_refused_total{reason="none"}' in metrics


def test_no_secret_is_shown(site: Site, reader: str) -> None:
    shown = [site.ask(f"/api/v1/status/{page}", f"Bearer {reader}")[1] for page in ("config", "flags", "runtimeinfo")]
    shown.append(site.ask("/metrics", url=f"https://localhost:{site.internal}")[1])
    shown.append(site.ask("/api/v1/admin/tokens", f"Bearer {site.tokens['admin']}")[1])
    assert "alice" in shown[0]
    for text in (*shown, *site.process.output):
        assert not [secret for secret in site.secrets() if secret in text]


def test_a_key_of_another_folder_opens_nothing(site: Site) -> None:
    assert site.ask("/api/v1/admin/tokens", **{KEY_HEADER: "0" * 32})[0] == 401


# ---- our own programs -----------------------------------------------------------------------------------------------


def test_commands_show_their_token_to_the_server_and_explain_its_answer(site: Site, reader: str) -> None:
    def asked(token: str = "", environment: Mapping[str, str] | None = None, ca: Path | str = site.ca) -> str:
        access = Access(token and str(site.folder / token), str(ca))
        try:
            return str(ask(named_server(site.url, access, environment or {}), "/api/v1/query?query=1")["status"])
        except StreamgaugeError as error:
            return error.message

    assert site.command("query", "1 + 1", token="reader").returncode == 0
    assert asked("reader") == "success"
    assert asked(environment={"STREAMGAUGE_TOKEN": f"{reader}\n"}) == "success"
    assert "--token-file" in asked()
    assert "permission read" in asked("fixed")
    assert "--ca-file" in asked("reader", ca="")
    (site.folder / "bad").write_text("two words")
    assert "holds no token" in asked("bad")
    assert "two words" not in asked("bad")
    assert reader not in repr(named_server(site.url, Access(str(site.folder / "reader"))))


def test_commands_on_the_folder_need_no_token(site: Site, tmp_path: Path) -> None:
    assert run_command("check", str(site.data)).returncode == 0
    backup = run_command("backup", str(tmp_path / "backups"), "--data", str(site.data))
    assert backup.returncode == 0, backup.stderr
    restored = run_command("restore", str(tmp_path / "backups"), str(tmp_path / "restored"))
    assert restored.returncode == 0, restored.stderr
    name = "tokens.json"
    assert (tmp_path / "restored" / name).read_bytes() == (site.data / name).read_bytes()


def test_events_are_imported_with_a_token(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "x.prom"
    file.write_text("imported 1 1700000000000\n")
    done = site.command("import", str(file), "--format", "prometheus", token="admin")
    assert done.returncode == 0, done.stderr


def test_a_command_that_forgets_tls_is_told_so(site: Site) -> None:
    done = run_command("query", "1", "--server", f"http://localhost:{site.port}")
    assert done.returncode == 1
    assert "if it speaks TLS, write https" in done.stderr


def test_a_token_that_may_only_write_imports(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "y.prom"
    file.write_text("imported_too 1 1700000000000\n")
    done = site.command("import", str(file), "--format", "prometheus", token="fixed")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("scheme", ["wss", "https"])
def test_writers_that_are_embedded(site: Site, scheme: str) -> None:
    errors: list[str] = []
    writer = Writer(f"{scheme}://localhost:{site.port}", token=FIXED, ca_file=site.ca, on_error=errors.append)
    writer.write({"n": 1})
    assert not writer.close(60)
    assert errors == []
    writer = Writer(f"{scheme}://localhost:{site.port}", token="nonsense", ca_file=site.ca, on_error=errors.append)
    writer.write({"n": 1})
    eventually(lambda: errors)
    assert "401" in errors[0]
    assert "nonsense" not in errors[0]
    writer.close(0)


def test_a_tail_ends_when_its_token_is_revoked(site: Site) -> None:
    made = site.command("token", "create", "brief", "--scope", "read", token="admin")
    environment = {"STREAMGAUGE_TOKEN": made.stdout.strip()}
    tail = launch_command(["tail", "--since", "1h", "--server", site.url, "--ca-file", str(site.ca)], environment)
    try:
        assert tail.stdout is not None
        assert tail.stdout.readline()  # an event of those before: it follows
        revoked = site.command("token", "revoke", "brief", token="admin")
        assert revoked.returncode == 0, revoked.stderr
        _, error = tail.communicate(timeout=SECONDS)
    finally:
        tail.kill()
    assert tail.returncode == 1
    assert "revoked" in error


# ---- others' programs -----------------------------------------------------------------------------------------------


def curl(site: Site, *arguments: str) -> str:
    """The status of an answer."""
    command = ["curl", "--silent", "--cacert", str(site.ca), "--write-out", "%{http_code}", "--output", os.devnull]
    done = subprocess.run(
        [*command, *arguments, f"{site.url}/api/v1/labels"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.stdout


def test_a_certificate_says_which_cluster_a_remote_write_is_of(site: Site, reader: str) -> None:
    body = requests.snappy(requests.v1([Series({"__name__": "pushed"}, [(time.time_ns() // 1_000_000, 7.0)])]))
    other = requests.snappy(requests.v1([Series({"__name__": "pushed", "_id": "agent"}, [(0, 7.0)])]))
    path, headers = "/metrics/v1/receive", requests.headers()
    assert site.ask(path, "", "", body, "stranger", **headers)[0] == 200  # it is signed, and listed nowhere
    assert site.ask(path, "", "", other, "stranger", **headers)[0] == 422
    assert site.ask(path, "", "", body, "", **headers)[0] == 400
    found = json.loads(site.ask("/api/v1/query?query=pushed", f"Bearer {reader}")[1])["data"]["result"]
    assert [(each["metric"], each["value"][1]) for each in found] == [({"__name__": "pushed", "_id": "stranger"}, "7")]


@pytest.mark.peer("curl")
def test_curl(site: Site, reader: str) -> None:
    agent, stranger = ([str(site.folder / f"{name}.{end}") for end in ("pem", "key")] for name in ("agent", "stranger"))
    assert curl(site) == "401"
    assert curl(site, "--oauth2-bearer", reader) == "200"
    assert curl(site, "--user", f"x:{reader}") == "200"
    assert curl(site, "--user", f"alice:{PASSWORD}") == "200"
    assert curl(site, "--cert", agent[0], "--key", agent[1]) == "200"
    assert curl(site, "--cert", stranger[0], "--key", stranger[1]) == "401"
    assert curl(site, "--cert", stranger[0], "--key", stranger[1], "--oauth2-bearer", reader) == "200"
    assert curl(site, "--header", f"Authorization: Bearer {reader}", "--header", "Authorization: Bearer x") == "401"


@pytest.mark.peer("prometheus")
def test_prometheus_writes_with_a_token_and_with_a_password(site: Site, reader: str, tmp_path: Path) -> None:
    config = f"""
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- job_name: ours
  scheme: https
  tls_config: {{ca_file: {site.ca}}}
  static_configs: [{{targets: ["localhost:{site.internal}"]}}]
remote_write:
- url: {site.url}/api/v1/write
  authorization: {{credentials_file: {site.folder / "fixed"}}}
  tls_config: {{ca_file: {site.ca}}}
  queue_config: {{batch_send_deadline: 100ms}}
  write_relabel_configs: [{{target_label: via, replacement: token}}]
- url: {site.url}/api/v1/write
  basic_auth: {{username: x, password_file: {site.folder / "fixed"}}}
  tls_config: {{ca_file: {site.ca}}}
  queue_config: {{batch_send_deadline: 100ms}}
  write_relabel_configs: [{{target_label: via, replacement: password}}]
"""
    with ServerProcess.start_prometheus(tmp_path, config):
        for via in ("token", "password"):
            query = f"/api/v1/query?query=up%7Bvia%3D%22{via}%22%7D==1"
            eventually(lambda query=query: '"via":"' in site.ask(query, f"Bearer {reader}")[1])


@pytest.mark.peer("chromium")
def test_the_page_works_in_a_browser_that_was_given_a_token(site: Site, reader: str, tmp_path: Path) -> None:
    document = page(site, reader, "/graph?g0.expr=40%2B2&g0.tab=1", tmp_path)
    assert "<svg" in document
    assert ">42<" in document


@pytest.mark.peer("chromium")
def test_the_page_shows_somebody_bound_to_labels_what_is_theirs(site: Site, tmp_path: Path) -> None:
    made = site.command(
        "token", "create", "team", "--scope", "read", "--scope", "write", "--label", "t=a", token="admin"
    )
    team = made.stdout.strip()
    for authorization, text in (
        (f"Bearer {team}", b'{"message":"ours"}'),
        (f"Bearer {FIXED}", b'{"message":"theirs"}'),
    ):
        assert site.ask("/api/v1/events", authorization, form=text, **{"content-type": "application/json"})[0] == 200
    document = page(site, team, "/", tmp_path)
    assert "ours" in document
    assert "theirs" not in document
    assert "concerns the whole server" not in document


def page(site: Site, token: str, path: str, profile: Path) -> str:
    """The document as it is after five seconds of virtual time."""
    quiet = "--disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", *quiet.split(), "--ignore-certificate-errors"]
    command += [f"--user-data-dir={profile}", "--virtual-time-budget=5000", "--dump-dom"]
    browser = subprocess.Popen(
        [*command, f"https://browser:{token}@localhost:{site.port}{path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        document, _ = browser.communicate(timeout=SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(browser.pid, signal.SIGKILL)
    return document


# ---- the start ------------------------------------------------------------------------------------------------------


def test_a_token_is_enough_to_listen_where_others_reach_us(tmp_path: Path) -> None:
    text = made(tmp_path / "data", "ci", "read")
    with ServerProcess.launch(tmp_path / "data", ["--listen", "0.0.0.0:0", "--no-self-monitoring"]) as server:
        assert "in the clear" in server.await_line("WARNING")
        found = re.search(r":(\d+)/", server.await_line("http://"))
        assert found is not None
        server.port = int(found[1])
        server.await_line("ready; ")
        assert server.get("/api/v1/query?query=1").status == 401
        assert server.get("/-/ready").status == 200
        assert server.get("/api/v1/query?query=1", headers={"authorization": f"Bearer {text}"}).status == 200


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"listen": "0.0.0.0:0"}, "--listen 0.0.0.0:0 can be reached"),
        ({"internal_listen": "[::]:0"}, "--internal-listen [::]:0 can be reached"),
        ({"tls_cert": "x"}, "goes with --tls-key"),
        ({"tls_key": "x"}, "goes with --tls-cert"),
        ({"tls_client_ca": "x"}, "tls_cert"),
        ({"tls_cert": "x", "tls_key": "x", "tls_client_auth": "require"}, "tls_client_ca"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, given: dict[str, str], part: str) -> None:
    settings = resolve({"data": str(tmp_path), **given}, {}, {})
    with pytest.raises(ConfigError) as raised:
        check_addresses(settings, Config())
        tls_files(settings)
    assert part in raised.value.message


def test_what_permits_other_addresses(tmp_path: Path) -> None:
    given = {"data": str(tmp_path), "listen": "0.0.0.0:0", "internal_listen": "0.0.0.0:0"}
    check_addresses(resolve({**given, "insecure": True}, {}, {}), Config())
    check_addresses(resolve(given, {}, {}), Config(auth=AuthRules()))
    write_tokens(tmp_path, ())
    check_addresses(resolve(given, {}, {}), Config())
