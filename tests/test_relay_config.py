from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest

from streamgauge.config import load_config, parse_config
from streamgauge.errors import ConfigError
from streamgauge.forward.live.target import MistTarget, MqttTarget, NatsTarget
from streamgauge.forward.remote_write.target import InfluxDatabase
from streamgauge.http.addresses import host_and_port
from streamgauge.ingest.relay.settings import RelaySettings
from streamgauge.relay_config import MIRROR, check_relays

REFERENCE = {
    "aggregate-interval": 15,
    "beat-interval": 30,
    "cors-allow": "*",
    "http-listen-address": "127.0.0.1:8080",
    "influx-address": "http://127.0.0.1:8086",
    "insecure": True,
    "kapacitor-address": "",
    "log-level": "INFO",
    "mist-address": "",
    "mist-token": "",
    "poll-interval": "60",
    "retention": 12,
    "server": True,
    "server-listen-address": "127.0.0.1:3000",
    "token": "secret",
}
EXPECTED = RelaySettings(
    explicit=True, http_listen="127.0.0.1:8080", retention=12, token="secret", cors_allow="*", aggregate=15
)


def relay_of(text: str) -> RelaySettings | None:
    return parse_config(text, "f.yml", {}).relay


def test_the_json_file_of_a_relay_server_is_taken_as_it_is(tmp_path: Path) -> None:
    whole = tmp_path / "pulse.json"
    whole.write_text(json.dumps(REFERENCE, indent=2))
    config = load_config(whole, {})
    assert config.relay == EXPECTED
    assert [warning.partition("relay.")[2].partition(" ")[0] for warning in config.warnings] == [
        "log-level",
    ]
    (mirror,) = config.remote_writes
    assert (mirror.name, mirror.url) == (MIRROR, "http://127.0.0.1:8086/write?db=statistics&precision=ms")
    assert "secret" not in config.text.replace("<secret>", "")
    named = tmp_path / "streamgauge.yml"
    named.write_text("relay: {config-file: pulse.json, retention: 2}\nstreamgauge: {retention: 90d}")
    relay = load_config(named, {}).relay
    assert relay is not None
    assert (relay.token, relay.retention) == ("secret", 2)


def test_the_mirror_is_a_destination_with_a_database_that_can_be_made() -> None:
    text = "relay: {influx-address: 'https://db:8086/', influx-database: 'a \"b', influx-user: u, influx-password: p}"
    (mirror,) = parse_config(text, "f.yml", {}).remote_writes
    assert mirror.url == "https://db:8086/write?db=a+%22b&precision=ms"
    assert mirror.influx == InfluxDatabase("https://db:8086/query", 'CREATE DATABASE "a \\"b"')
    assert mirror.http.authorization() == "Basic dTpw"
    for text in ("relay: {influx-address: ''}", "relay: {server: false, influx-address: 'http://db:8086'}"):
        assert not parse_config(text, "f.yml", {}).remote_writes


def test_where_live_values_are_published() -> None:
    text = """\
relay:
  mqtt-address: mqtts://broker
  mqtt-user: u
  mqtt-password: p
  nats-address: "[::1]:4223"
  nats-token: t
  nats-subject: live.{collector}.{name}
  mist-address: 127.0.0.1
  mist-token: m
"""
    config = parse_config(text, "f.yml", {})
    assert config.live_targets == (
        MqttTarget("broker", 8883, True, "u", "p"),
        NatsTarget("::1", 4223, token="t", subject="live.{collector}.{name}"),
        MistTarget("127.0.0.1", 1445, "m"),
    )
    assert not config.warnings
    assert [line for line in config.text.splitlines() if "password" in line or "token" in line] == [
        "  mqtt-password: <secret>",
        "  nats-token: <secret>",
        "  mist-token: <secret>",
    ]
    assert not parse_config("relay: {server: false, mqtt-address: 'h:1'}", "f.yml", {}).live_targets


@pytest.mark.parametrize("text", ["relay:", "relay: {}", "relay: {server: true}"])
def test_a_section_without_settings_listens_on_loopback(text: str) -> None:
    assert relay_of(text) == RelaySettings()
    assert RelaySettings().listen == "127.0.0.1:3000"


def test_without_a_section_nobody_listens() -> None:
    assert relay_of("streamgauge: {retention: 90d}") is None
    assert relay_of("relay: {server: false}") is None


def test_retention_is_a_week_at_least() -> None:
    relay = relay_of("relay: {retention: 0, allow: [10.0.0.0/8, '::1']}")
    assert relay is not None
    assert relay.retention == 1
    assert relay.allow == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("relay:\n  pol-interval: 3", 'f.yml:2: unknown key "relay.pol-interval"; did you mean "poll-interval"?'),
        ("relay:\n  poll-interval: 0", "expected a number above 0"),
        ("relay:\n  poll-interval: soon", "expected a number"),
        ("relay:\n  aggregate-interval: 1500", "f.yml:2: relay.aggregate-interval: must be 1 to 1440 minutes"),
        ("relay:\n  allow: [10.0.0.1/8]", "write for example 10.0.0.0/8"),
        ("relay:\n  influx-address: 127.0.0.1:8086", "expected http://HOST:PORT"),
        ("relay:\n  influx-address: http://user:secret@host:8086", "expected http://HOST:PORT"),
        ("relay:\n  mqtt-address: http://broker", "expected mqtt://HOST:PORT or mqtts://HOST:PORT"),
        ("relay:\n  nats-address: 'nats://u:p@host'", "expected nats://HOST:PORT or tls://HOST:PORT"),
        ("relay:\n  mist-address: 'a:99999'", "expected tcp://HOST:PORT"),
        ("relay:\n  mqtt-topic: 'pulse/#'", "expected words with / between them"),
        ("relay:\n  mqtt-topic: 'pulse/{stat}'", "expected words with / between them"),
        ("relay:\n  nats-subject: 'pulse..x'", "expected words with . between them"),
        ("relay:\n  server-listen-address: nowhere", "is not an address"),
        ("relay: {insecure: false, http-listen-address: '127.0.0.1:8080'}", "is plain HTTP"),
        ("relay:\n  tls-cert: a.pem", "f.yml:2: relay.tls-cert and relay.tls-key go together"),
        ("relay:\n  tls-client-ca: a.pem", "and tls-client-ca with both"),
        ("relay:\n  tls-client-ids: true", "relay.tls-client-ids goes with relay.tls-client-ca"),
        ("relay:\n  config-file: missing.json", "f.yml:2: relay.config-file: missing.json cannot be read: No such"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        relay_of(text)
    assert words in refused.value.message


@pytest.mark.parametrize(
    "settings",
    [
        RelaySettings(listen="0.0.0.0:3000"),
        RelaySettings(listen=":3000", token="t"),
        RelaySettings(http_listen="10.0.0.1:8080"),
        RelaySettings(live_listen=":1445", allow=(ipaddress.ip_network("10.0.0.0/8"),)),
    ],
)
def test_what_others_reach_needs_a_list_or_a_token(settings: RelaySettings) -> None:
    with pytest.raises(ConfigError):
        check_relays(settings, insecure=False)
    check_relays(settings, insecure=True)


def test_files_of_certificates_are_beside_the_configuration() -> None:
    keys = "tls-cert: a.pem, tls-key: /b.key, tls-client-ca: ca.pem, http-listen-address: ':8080'"
    relay = parse_config(f"relay: {{{keys}, server-listen-address: ':3000'}}", "etc/f.yml", {}).relay
    assert relay is not None
    assert (relay.tls_cert, relay.tls_key, relay.tls_client_ca) == ("etc/a.pem", "/b.key", "etc/ca.pem")
    assert relay.http_tls
    check_relays(relay, insecure=False)  # everybody shows a certificate
    for insecure, tls in (("true", False), ("false", True)):
        relay = parse_config(f"relay: {{{keys}, insecure: {insecure}}}", "f.yml", {}).relay
        assert relay is not None
        assert relay.http_tls is tls
    with pytest.raises(ConfigError, match="http-listen-address"):
        check_relays(RelaySettings(listen=":3000", http_listen=":8080", tls_client_ca="ca"), insecure=False)


def test_what_is_guarded_may_be_reached_by_others() -> None:
    networks = (ipaddress.ip_network("10.0.0.0/8"),)
    check_relays(RelaySettings(listen=":3000", http_listen=":8080", token="t", allow=networks), insecure=False)
    assert host_and_port("[::1]:3000") == ("::1", 3000)
    assert host_and_port(":3000") == ("", 3000)
