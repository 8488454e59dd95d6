"""From the `remote_write` sections of prometheus.yml, once their shape is checked, to where samples are sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from streamgauge.errors import ConfigError
from streamgauge.forward.remote_write.target import MetadataPolicy, Protocol, QueuePolicy, RemoteWriteTarget
from streamgauge.http.options import ClientCredentials, HttpOptions, Secret
from streamgauge.prometheus_config import MetadataConfig, OAuth2, PrometheusConfig, QueueConfig, RemoteWrite
from streamgauge.scrape_config import http_options, rules, secret, tls

MAX_NAME_BYTES = 80
"""Of a destination: it is part of a file's name, in which a byte may take three."""
_OURS = frozenset(
    (
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "www-authenticate",
        "x-prometheus-remote-write-version",
    )
)
"""Headers that are set by what is sent, or have a section of their own."""

Complain = Callable[[tuple[str | int, ...], str], ConfigError]
"""Makes the error that names the line of a place in the file."""


def remote_writes(parsed: PrometheusConfig, base: Path, complain: Complain) -> tuple[RemoteWriteTarget, ...]:
    """Those that are configured; paths are relative to `base`. Raises ConfigError."""
    external = tuple(((parsed.global_.external_labels if parsed.global_ else None) or {}).items())
    found: dict[str, RemoteWriteTarget] = {}
    for number, section in enumerate(parsed.remote_write or ()):
        at: tuple[str | int, ...] = ("remote_write", number)
        name = section.name or hashlib.sha256(section.url.encode()).hexdigest()[:6]
        if name in found:
            raise complain(at, f'remote_write.{number}: there are two named "{name}"; name each')
        if len(name.encode()) > MAX_NAME_BYTES:
            raise complain((*at, "name"), f"remote_write.{number}.name: longer than {MAX_NAME_BYTES} bytes")
        try:
            found[name] = _target(section, name, external, base)
        except _WrongKey as wrong:
            path = (*at, *wrong.key)
            raise complain(path, f"{'.'.join(map(str, path))}: {wrong}") from None
    return tuple(found.values())


class _WrongKey(Exception):
    def __init__(self, key: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.key = key


def _target(section: RemoteWrite, name: str, external: tuple[tuple[str, str], ...], base: Path) -> RemoteWriteTarget:
    return RemoteWriteTarget(
        name=name,
        url=section.url,
        timeout=section.remote_timeout,
        protocol=Protocol(section.protobuf_message),
        http=_http(section, base),
        oauth2=None if section.oauth2 is None else _oauth2(section.oauth2, base),
        relabel=rules(section.write_relabel_configs),
        external=external,
        queue=_queue(section.queue_config or QueueConfig()),
        metadata=_metadata(section.metadata_config or MetadataConfig()),
    )


def _http(section: RemoteWrite, base: Path) -> HttpOptions:
    options = http_options(section, base)
    given = {name: secret(value, None, base) for name, value in (section.headers or {}).items()}
    return HttpOptions(
        options.user,
        options.password,
        options.scheme,
        options.credentials,
        options.tls,
        (
            *options.headers,
            *_headers(given),
        ),
        options.follow_redirects,
    )


def _headers(given: Mapping[str, Secret]) -> Iterator[tuple[str, Secret]]:
    for name, value in given.items():
        if name.lower() in _OURS:
            raise _WrongKey(("headers", name), "this header cannot be set here")
        yield name, value


def _oauth2(section: OAuth2, base: Path) -> ClientCredentials:
    if section.grant_type not in (None, "client_credentials"):
        raise _WrongKey(("oauth2", "grant_type"), f'"{section.grant_type}" is not spoken; client_credentials is')
    if section.client_secret is not None and section.client_secret_file is not None:
        raise _WrongKey(("oauth2", "client_secret"), "give client_secret or client_secret_file, not both")
    return ClientCredentials(
        section.client_id,
        secret(section.client_secret, section.client_secret_file, base),
        section.token_url,
        tuple(section.scopes or ()),
        tuple((name, value.get_secret_value()) for name, value in (section.endpoint_params or {}).items()),
        tls(section.tls_config, base),
    )


def _queue(section: QueueConfig) -> QueuePolicy:
    if section.max_shards < section.min_shards:
        raise _WrongKey(("queue_config", "max_shards"), "must not be below min_shards")
    if section.max_backoff < section.min_backoff:
        raise _WrongKey(("queue_config", "max_backoff"), "must not be below min_backoff")
    return QueuePolicy(
        section.capacity,
        section.max_shards,
        section.min_shards,
        section.max_samples_per_send,
        section.batch_send_deadline,
        section.min_backoff,
        section.max_backoff,
        section.retry_on_http_429,
        section.sample_age_limit,
    )


def _metadata(section: MetadataConfig) -> MetadataPolicy:
    return MetadataPolicy(section.send_interval if section.send else 0, section.max_samples_per_send)
