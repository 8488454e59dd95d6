"""The `relay:` section of the configuration file: settings under the names that relay servers have, and a few of ours.

The configuration file of such a server, which is JSON, is taken as it is: as the section, as the file that the section
names in `config-file`, or as the whole file.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from pydantic import BeforeValidator, Field, SecretStr

from streamgauge.errors import BadInput, ConfigError
from streamgauge.forward.remote_write.target import InfluxDatabase, MetadataPolicy, RemoteWriteTarget
from streamgauge.http.addresses import host_and_port, is_loopback
from streamgauge.http.options import HttpOptions, Secret
from streamgauge.ingest.relay.settings import DEFAULT_LISTEN, Network, RelaySettings
from streamgauge.live_config import LiveSection
from streamgauge.relabel import Action, Rule
from streamgauge.settings import parse_address

MAX_FILE_BYTES = 1 << 20
MINUTES_A_DAY = 1_440

MIRROR = "relay.influx-address"
"""What the mirror is called as a destination of samples."""

_NOT_YET = {
    "kapacitor-address": "alerts need no other program here",
    "log-level": "log_level of the section streamgauge: says what is logged",
}
"""What is accepted and changes nothing, and what to say of it."""

Complain = Callable[[tuple[str | int, ...], str], ConfigError]


def _number(value: object) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        number = float(value)
    except ValueError:
        raise ValueError("expected a number") from None
    if not 0 < number <= 1e7:
        raise ValueError("expected a number above 0")
    return number


def _whole(value: object) -> int:
    number = _number(value) if value not in (0, "0") else 0.0
    if number != int(number):
        raise ValueError("expected a whole number")
    return int(number)


def _truth(value: object) -> bool:
    word = str(value).strip().lower()
    if word not in ("true", "false"):
        raise ValueError("expected true or false")
    return word == "true"


def _address(value: object) -> str:
    """HOST:PORT; without a host all addresses, as where the settings come from."""
    text = "" if value is None else str(value).strip()
    if not text:
        return ""
    try:
        return text if parse_address("any" + text if text.startswith(":") else text) else ""
    except BadInput as error:
        raise ValueError(error.message) from None


def _url(value: object) -> str:
    text = "" if value is None else str(value).strip().rstrip("/")
    if text and not re.fullmatch(r"https?://[^/?#@\s]+", text):
        raise ValueError("expected http://HOST:PORT or https://HOST:PORT")
    return text


def _networks(value: object) -> tuple[Network, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        raise ValueError("expected a list of networks such as 10.0.0.0/8")
    try:
        return tuple(ipaddress.ip_network(str(text).strip()) for text in texts)
    except ValueError as error:
        raise ValueError(f"{error}; write for example 10.0.0.0/8") from None


Seconds = Annotated[float, BeforeValidator(_number)]
Whole = Annotated[int, BeforeValidator(_whole)]
Truth = Annotated[bool, BeforeValidator(_truth)]
Address = Annotated[str, BeforeValidator(_address)]
Url = Annotated[str, BeforeValidator(_url)]


class RelaySection(LiveSection):
    server: Truth = True
    server_listen_address: Address = Field("", alias="server-listen-address")
    http_listen_address: Address = Field("", alias="http-listen-address")
    live_listen_address: Address = Field("", alias="live-listen-address")  # ours
    allow: Annotated[tuple[Network, ...], BeforeValidator(_networks)] = ()  # ours
    poll_interval: Seconds = Field(60.0, alias="poll-interval")
    beat_interval: Seconds = Field(30.0, alias="beat-interval")
    aggregate_interval: Whole = Field(15, alias="aggregate-interval")
    retention: Whole = 1
    token: SecretStr = SecretStr("")
    cors_allow: str = Field("", alias="cors-allow")
    insecure: Truth = True
    tls_cert: str = Field("", alias="tls-cert")  # ours
    tls_key: str = Field("", alias="tls-key")  # ours
    tls_client_ca: str = Field("", alias="tls-client-ca")  # ours
    tls_client_ids: Truth = Field(False, alias="tls-client-ids")  # ours
    config_file: str = Field("", alias="config-file")
    influx_address: Url = Field("", alias="influx-address")
    influx_database: str = Field("statistics", alias="influx-database")  # ours
    influx_user: str = Field("", alias="influx-user")  # ours
    influx_password: SecretStr = Field(SecretStr(""), alias="influx-password")  # ours
    kapacitor_address: str | None = Field(None, alias="kapacitor-address")
    log_level: str | None = Field(None, alias="log-level")


KEYS = frozenset(info.alias or name for name, info in RelaySection.model_fields.items())


def as_section(values: Mapping[str, Any]) -> dict[str, Any]:
    """A whole configuration: one of a relay server alone becomes the section `relay` of one."""
    alone = KEYS.issuperset(values) and any("-" in key for key in values)
    return {"relay": dict(values)} if alone else dict(values)


def with_file(section: object, base: Path, complain: Complain) -> object:
    """The section, before it is checked, with what the file has that it names in `config-file`. Raises ConfigError."""
    if section is None:
        return {}
    if not isinstance(section, dict) or not section.get("config-file"):
        return section
    path = base / str(section["config-file"])
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_FILE_BYTES))
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or f"no JSON: {error}"
        raise complain(("relay", "config-file"), f"relay.config-file: {path} cannot be read: {reason}") from None
    if not isinstance(found, dict):
        raise complain(("relay", "config-file"), f"relay.config-file: {path} is no JSON object")
    return found | section


def relay_settings(section: RelaySection | None, base: Path, complain: Complain) -> RelaySettings | None:
    """None where no relays are listened for. Paths are relative to `base`. Raises ConfigError."""
    if section is None or not section.server:
        return None
    if section.http_listen_address and not section.insecure and not section.tls_cert:
        raise complain(
            ("relay", "insecure"),
            "relay.insecure: without tls-cert and tls-key the stats API on http-listen-address is plain HTTP; give "
            "these, leave the address out, or write true",
        )
    if bool(section.tls_cert) != bool(section.tls_key) or (section.tls_client_ca and not section.tls_cert):
        raise complain(
            ("relay", "tls-cert"), "relay.tls-cert and relay.tls-key go together, and tls-client-ca with both"
        )
    if section.tls_client_ids and not section.tls_client_ca:
        raise complain(("relay", "tls-client-ids"), "relay.tls-client-ids goes with relay.tls-client-ca")
    if not 1 <= section.aggregate_interval <= MINUTES_A_DAY:
        raise complain(("relay", "aggregate-interval"), "relay.aggregate-interval: must be 1 to 1440 minutes")
    return RelaySettings(
        listen=section.server_listen_address or DEFAULT_LISTEN,
        explicit=bool(section.server_listen_address),
        http_listen=section.http_listen_address,
        live_listen=section.live_listen_address,
        poll=section.poll_interval,
        beat=section.beat_interval,
        aggregate=section.aggregate_interval,
        retention=max(section.retention, 1),
        token=section.token.get_secret_value(),
        cors_allow=section.cors_allow,
        allow=section.allow,
        tls_cert=_path(section.tls_cert, base),
        tls_key=_path(section.tls_key, base),
        tls_client_ca=_path(section.tls_client_ca, base),
        tls_client_ids=section.tls_client_ids,
        http_tls=bool(section.tls_cert) and not (section.insecure and "insecure" in section.model_fields_set),
    )


def _path(name: str, base: Path) -> str:
    return str(base / name) if name else ""


def mirror(section: RelaySection | None) -> Iterator[RemoteWriteTarget]:
    """The InfluxDB that gets what relays say, too."""
    if section is None or not section.server or not section.influx_address:
        return
    address, database = section.influx_address, section.influx_database
    quoted = database.replace("\\", "\\\\").replace('"', '\\"')
    yield RemoteWriteTarget(
        name=MIRROR,
        url=f"{address}/write?{urlencode({'db': database, 'precision': 'ms'})}",
        http=HttpOptions(Secret(section.influx_user), Secret(section.influx_password.get_secret_value())),
        relabel=(Rule(Action.KEEP, ("host",), regex=".+"),),
        metadata=MetadataPolicy(0),
        influx=InfluxDatabase(f"{address}/query", f'CREATE DATABASE "{quoted}"'),
    )


def notices(section: RelaySection | None) -> Iterator[tuple[str, str]]:
    """Of each setting that is given and changes nothing: its key, and a sentence."""
    if section is None:
        return
    for name in sorted(section.model_fields_set):
        key = RelaySection.model_fields[name].alias or name
        if key in _NOT_YET and getattr(section, name):
            yield key, f"relay.{key} changes nothing: {_NOT_YET[key]}"


def check_relays(settings: RelaySettings | None, insecure: bool) -> None:
    """Raises ConfigError for an address that others reach, unless that is wanted."""
    if settings is None or insecure:
        return
    host, _ = host_and_port(settings.listen)
    if settings.tls_client_ca and (settings.http_tls or not settings.http_listen):
        return  # whoever connects shows a certificate
    if not is_loopback(host) and not settings.allow and not settings.tls_client_ca:
        raise ConfigError(
            f"relay.server-listen-address {settings.listen} can be reached from other machines: name in relay.allow "
            "the networks that relays come from, or in relay.tls-client-ca what signs their certificates, or add "
            "--insecure if everybody who reaches it may send values"
        )
    for key, address in (("http", settings.http_listen), ("live", settings.live_listen)):
        if address and not is_loopback(host_and_port(address)[0]) and not settings.token:
            raise ConfigError(
                f"relay.{key}-listen-address {address} can be reached from other machines: set relay.token, or add "
                "--insecure if everybody who reaches this address may read"
            )
