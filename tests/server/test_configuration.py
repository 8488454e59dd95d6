"""How the server is set up: where it listens, who may call it, and how it takes a new configuration."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from streamgauge.testing import requests
from streamgauge.testing.requests import Series
from streamgauge.testing.server import ServerProcess, run_command

NOW = int(time.time() * 1000)

StartServer = Callable[..., ServerProcess]

# ---- who may call -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:4318", "localhost.evil.example", "127.0.0.1.evil.example"]
)
@pytest.mark.parametrize("path", ["/api/v1/query?query=1", "/api/v1/write", "/metrics", "/", "/-/reload", "/federate"])
def test_a_foreign_host_is_refused(server: ServerProcess, host: str, path: str) -> None:
    method = "POST" if path in ("/api/v1/write", "/-/reload") else "GET"
    answer = server.request(method, path, headers={"host": host})
    assert answer.status == 403
    assert host.partition(":")[0] in answer.text
    assert "--allow-host" in answer.text


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "a.localhost", "127.0.0.1", "[::1]:80", "192.168.1.2:4318"]
)
def test_our_own_names_are_accepted(server: ServerProcess, host: str) -> None:
    assert server.get("/api/v1/query?query=1", headers={"host": host}).status == 200
    assert server.get("/api/v1/query?query=1", headers={"host": socket.gethostname()}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
    ],
)
def test_a_foreign_page_is_refused(server: ServerProcess, headers: dict[str, str]) -> None:
    for method, path in (
        ("POST", "/api/v1/query"),
        ("POST", "/api/v1/write"),
        ("POST", "/-/reload"),
        ("GET", "/metrics"),
    ):
        answer = server.request(method, path, b"", headers)
        assert answer.status == 403
        assert "--allow-origin" in answer.text
        assert "access-control-allow-origin" not in answer.headers
    body = requests.snappy(requests.v1([Series({"__name__": "forged"}, [(NOW, 1.0)])]))
    assert server.request("POST", "/api/v1/write", body, requests.headers() | headers).status == 403
    assert server.query("forged") == []


def test_names_and_origins_that_were_allowed(start_server: StartServer) -> None:
    server = start_server("--allow-host", "metrics.example", "--allow-origin", "https://grafana.example")
    assert server.get("/api/v1/query?query=1", headers={"host": "metrics.example:80"}).status == 200
    assert server.get("/api/v1/query?query=1", headers={"host": "other.example"}).status == 403
    answer = server.get("/api/v1/query?query=1", headers={"origin": "https://grafana.example"})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "https://grafana.example")
    assert server.get("/api/v1/query?query=1", headers={"origin": "https://grafana.example.evil"}).status == 403


# ---- where it listens ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.com:4318"])
def test_other_than_loopback_needs_insecure(tmp_path: Path, address: str) -> None:
    done = run_command("serve", "--data", str(tmp_path / "data"), "--listen", address)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"streamgauge: --listen {address} can be reached from other machines")
    assert "--insecure" in line
    assert not (tmp_path / "data").exists()


def test_insecure_listens_everywhere(start_server: StartServer) -> None:
    server = start_server("--insecure", "--listen", "0.0.0.0:0")
    assert server.query("1 + 1")[1] == "2"


def test_an_address_that_is_taken(tmp_path: Path, server: ServerProcess) -> None:
    address = f"127.0.0.1:{server.port}"
    done = run_command("serve", "--data", str(tmp_path / "data"), "--listen", address)
    assert done.returncode == 1
    assert done.stderr.startswith(f"streamgauge: cannot listen on {address}: another program listens there, ")
    assert done.stderr.endswith("with --listen, such as 127.0.0.1:0 for any port that is free\n")
    done = run_command("serve", "--data", str(tmp_path / "data"), "--listen", "192.0.2.1:4318", "--insecure")
    assert done.returncode == 1
    assert done.stderr.endswith("this machine does not have that address\n")


def test_a_folder_that_is_in_use(server: ServerProcess) -> None:
    done = run_command("serve", "--data", str(server.data), "--listen", "127.0.0.1:0")
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert str(server.process.pid) in line
    assert f"127.0.0.1:{server.port}" in line


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--listen", "4318"], "HOST:PORT"),
        (["--listen", "::1:4318"], "brackets"),
        (["--retention", "soon"], "soon"),
        (["--query-timeout", "-1s"], "-1s"),
        (["--config", "missing.yml"], "missing.yml"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_flags_that_are_refused(tmp_path: Path, arguments: list[str], part: str) -> None:
    done = run_command("serve", "--data", str(tmp_path / "data"), *arguments)
    assert done.returncode == 2
    assert part in done.stderr
    assert "Traceback" not in done.stderr


# ---- reloading ----------------------------------------------------------------------------------------------------

GOOD = "global:\n  external_labels: {site: a}\nstreamgauge:\n  query_max_samples: 1000\n"
BETTER = GOOD.replace("1000", "5000").replace("site: a", "site: b")
BAD = {
    "not YAML": "global: [\n",
    "an unknown key": "globl: {}\n",
    "a wrong type": "streamgauge:\n  query_max_samples: many\n",
    "a bad regex": "scrape_configs:\n- job_name: a\n  relabel_configs: [{source_labels: [a], regex: '('}]\n",
    "a variable that is not set": "global: {external_labels: {a: '${NOT_SET_ANYWHERE}'}}\n",
    "not UTF-8": "\udcff",
}


def limit_and_label(server: ServerProcess) -> tuple[str, str]:
    flags = server.data_of("/api/v1/status/flags")
    federated = server.get("/federate", {"match[]": "reloaded"}).text
    return flags["query-max-samples"], federated.partition('site="')[2].partition('"')[0]


def test_reload(start_server: StartServer, tmp_path: Path) -> None:
    """By request and by signal; a bad file is refused with its reason, and everything stays as it was."""
    config = tmp_path / "streamgauge.yml"
    config.write_text(GOOD)
    server = start_server("--config", str(config))
    server.write([Series({"__name__": "reloaded"}, [(int(time.time() * 1000), 1.0)])])  # seen for five minutes
    assert limit_and_label(server) == ("1000", "a")

    for name, text in BAD.items():
        config.write_bytes(text.encode(errors="surrogateescape"))
        answer = server.post("/-/reload")
        assert answer.status == 500, name
        assert str(config) in answer.text
        assert limit_and_label(server) == ("1000", "a"), name
        assert server.data_of("/api/v1/status/runtimeinfo")["reloadConfigSuccess"] is False
        assert server.data_of("/api/v1/status/config")["yaml"].endswith("site: a\n")

    config.write_text(BETTER)
    assert server.post("/-/reload").status == 200
    assert limit_and_label(server) == ("5000", "b")
    assert server.data_of("/api/v1/status/runtimeinfo")["reloadConfigSuccess"] is True

    printed = len(server.output)
    config.write_text(BAD["an unknown key"])
    server.signal(signal.SIGHUP)
    server.await_line("the configuration was not reloaded", after=printed)
    assert limit_and_label(server) == ("5000", "b")

    config.write_text(GOOD)
    server.signal(signal.SIGHUP)
    server.await_line("the configuration was reloaded", after=printed)
    assert limit_and_label(server) == ("1000", "a")

    config.unlink()
    assert server.post("/-/reload").status == 500
    assert limit_and_label(server) == ("1000", "a")
    assert server.stop() == 0


def test_a_bad_file_does_not_start(tmp_path: Path) -> None:
    config = tmp_path / "streamgauge.yml"
    for name, text in BAD.items():
        config.write_bytes(text.encode(errors="surrogateescape"))
        done = run_command(
            "serve", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0", "--config", str(config)
        )
        assert done.returncode == 2, name
        assert str(config) in done.stderr
        assert "Traceback" not in done.stderr


# ---- stopping and logging -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_and_what_was_stored_stays(start_server: StartServer, number: int) -> None:
    server = start_server()
    server.write([Series({"__name__": "kept"}, [(NOW, 1.0)])])
    server.signal(number)
    assert server.wait() == 0
    assert start_server(data=server.data).samples("kept", NOW / 1000) == [(NOW, "1")]


def test_log_lines_for_programs(start_server: StartServer) -> None:
    server = start_server("--log-format", "json")
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.output if line.startswith("{")]
    assert {"ready; 0 samples read back from the log"} <= {line["message"] for line in lines}
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
