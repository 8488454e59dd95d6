"""From the scrape sections of prometheus.yml, once their shape is checked, to the jobs that are scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from streamgauge.errors import ConfigError
from streamgauge.http.options import HttpOptions, Secret, Tls
from streamgauge.ingest.discovery.groups import ADDRESS, Group
from streamgauge.ingest.scrape.job import (
    DEFAULT_PROTOCOLS,
    DnsSource,
    FileSource,
    HttpSource,
    Limits,
    ScrapeJob,
    Source,
)
from streamgauge.prometheus_config import (
    DEFAULT_INTERVAL_MS,
    Discovery,
    GlobalConfig,
    GrpcPollConfig,
    HttpConfig,
    RelabelConfig,
    ScrapeConfig,
    TlsConfig,
)
from streamgauge.relabel import Rule

_SHORTEST_POLL_MS = 1_000
"""Of the time that a reader has where that is not said; else it has a tenth of the interval."""

Complain = Callable[[str, str], ConfigError]
"""An error about a key of the scrape configuration: its name, and what is wrong."""


class JobMaker:
    """Makes jobs of the configurations of one server, whichever files they stand in.

    Names of files are relative to the file that names them.
    """

    def __init__(self, defaults: GlobalConfig) -> None:
        self._defaults = defaults
        self._names: set[str] = set()

    def job(self, config: ScrapeConfig, base: Path, complain: Complain) -> ScrapeJob:
        """Raises what `complain` makes."""
        self._name(config.job_name, complain)
        interval, timeout = self._times(config, complain)
        return ScrapeJob(
            name=config.job_name,
            interval=interval,
            timeout=timeout,
            metrics_path=config.metrics_path,
            scheme=config.scheme,
            params=tuple((name, tuple(values)) for name, values in (config.params or {}).items()),
            honor_labels=config.honor_labels,
            honor_timestamps=config.honor_timestamps,
            track_timestamps_staleness=config.track_timestamps_staleness,
            compression=config.enable_compression,
            protocols=tuple(self._either(config, "scrape_protocols", list(DEFAULT_PROTOCOLS))),
            fallback_protocol=config.fallback_scrape_protocol or "",
            extra_metrics=self._either(config, "extra_scrape_metrics", False),
            escaping=self._either(config, "metric_name_escaping_scheme", "allow-utf-8"),
            limits=Limits(
                self._either(config, "body_size_limit", 0),
                self._either(config, "sample_limit", 0),
                self._either(config, "label_limit", 0),
                self._either(config, "label_name_length_limit", 0),
                self._either(config, "label_value_length_limit", 0),
            ),
            target_limit=self._either(config, "target_limit", 0),
            keep_dropped=self._either(config, "keep_dropped_targets", 0),
            http=http_options(config, base),
            relabel=rules(config.relabel_configs),
            metric_relabel=rules(config.metric_relabel_configs),
            static=_static(config),
            sources=tuple(_sources(config, base)),
        )

    def poll_job(self, config: GrpcPollConfig, base: Path, complain: Complain) -> ScrapeJob:
        """Of data readers, which are polled as targets are scraped. Raises what `complain` makes."""
        self._name(config.job_name, complain)
        if not config.interval:
            raise complain("interval", "the interval cannot be 0")
        timeout = config.timeout or min(max(_SHORTEST_POLL_MS, config.interval // 10), config.interval)
        if timeout > config.interval:
            raise complain("timeout", "the timeout is longer than the interval")
        options = http_options(config, base)
        check_grpc_tls(options.tls, complain)
        own = tuple({ADDRESS: target} for target in config.targets or ())
        return ScrapeJob(
            name=config.job_name,
            over_grpc=True,
            interval=config.interval,
            timeout=timeout,
            metrics_path="",
            scheme="grpc" if config.tls_config is None else "grpcs",
            honor_labels=config.honor_labels,
            limits=Limits(
                config.body_size_limit or 0,
                config.sample_limit or 0,
                config.label_limit or 0,
                config.label_name_length_limit or 0,
                config.label_value_length_limit or 0,
            ),
            target_limit=config.target_limit or 0,
            keep_dropped=config.keep_dropped_targets or 0,
            http=options,
            relabel=rules(config.relabel_configs),
            metric_relabel=rules(config.metric_relabel_configs),
            static=((Group("targets", own, config.labels or {}),) if own else ()) + _static(config),
            sources=tuple(_sources(config, base)),
        )

    def _name(self, name: str, complain: Complain) -> None:
        if name in self._names:
            raise complain("job_name", f'there are two scrape configs with the job name "{name}"')
        self._names.add(name)

    def _times(self, config: ScrapeConfig, complain: Complain) -> tuple[int, int]:
        """Interval and timeout. A timeout that is not given is never longer than the interval."""
        interval = config.scrape_interval or self._defaults.scrape_interval or DEFAULT_INTERVAL_MS
        timeout = config.scrape_timeout
        if timeout is not None and timeout > interval:
            raise complain("scrape_timeout", "the timeout is longer than the scrape interval")
        return interval, timeout or min(self._defaults.scrape_timeout or 10_000, interval)

    def _either(self, config: ScrapeConfig, name: str, default: Any) -> Any:
        """The value that the job has, or else all jobs have, or else the default."""
        for section in (config, self._defaults):
            value = getattr(section, name)
            if value is not None:
                return value
        return default


def rules(configs: Sequence[RelabelConfig] | None) -> tuple[Rule, ...]:
    return tuple(config.rule() for config in configs or ())


def check_grpc_tls(tls: Tls, complain: Complain) -> None:
    """Raises what `complain` makes for what the library of gRPC does not offer."""
    if not tls.verify:
        raise complain("tls_config", "insecure_skip_verify cannot be had over gRPC: name the certificate in ca_file")
    if tls.oldest or tls.newest:
        raise complain("tls_config", "min_version and max_version cannot be had over gRPC, which takes TLS 1.2 and 1.3")


def _static(config: Discovery) -> tuple[Group, ...]:
    return tuple(
        Group(f"static_configs.{number}", tuple({ADDRESS: target} for target in group.targets), group.labels or {})
        for number, group in enumerate(config.static_configs or ())
    )


def _sources(config: Discovery, base: Path) -> Iterator[Source]:
    for file in config.file_sd_configs or ():
        yield FileSource(tuple(str(base / pattern) for pattern in file.files), file.refresh_interval)
    for http in config.http_sd_configs or ():
        yield HttpSource(http.url, http.refresh_interval, http_options(http, base))
    for dns in config.dns_sd_configs or ():
        yield DnsSource(tuple(dns.names), dns.type.upper(), dns.port or 0, dns.refresh_interval)


def http_options(config: HttpConfig, base: Path) -> HttpOptions:
    """How to reach what a section configures. base: the folder of the file in which it stands."""
    basic, bearer, authorization = config.basic_auth, "Bearer", config.authorization
    credentials = secret(config.bearer_token, config.bearer_token_file, base)
    if authorization is not None:
        bearer = authorization.type.strip()
        credentials = secret(authorization.credentials, authorization.credentials_file, base)
    return HttpOptions(
        user=secret(basic.username, basic.username_file, base) if basic else Secret(),
        password=secret(basic.password, basic.password_file, base) if basic else Secret(),
        scheme=bearer,
        credentials=credentials,
        tls=tls(config.tls_config, base),
        headers=tuple(_headers(config, base)),
        follow_redirects=config.follow_redirects,
    )


def _headers(config: HttpConfig, base: Path) -> Iterator[tuple[str, Secret]]:
    for name, header in (config.http_headers or {}).items():
        for value in [*(header.values or ()), *(header.secrets or ())]:
            yield name, secret(value, None, base)
        for file in header.files or ():
            yield name, secret(None, file, base)


def tls(config: TlsConfig | None, base: Path) -> Tls:
    """What `tls_config` comes to."""
    if config is None:
        return Tls()
    return Tls(
        ca=secret(config.ca, config.ca_file, base),
        cert=secret(config.cert, config.cert_file, base),
        key=secret(config.key, config.key_file, base),
        server_name=config.server_name or "",
        verify=not config.insecure_skip_verify,
        oldest=config.min_version or "",
        newest=config.max_version or "",
    )


def secret(text: str | SecretStr | None, file: str | None, base: Path) -> Secret:
    """What a key and its twin `…_file` come to."""
    plain = text.get_secret_value() if isinstance(text, SecretStr) else text
    return Secret(plain or "", str(base / file) if file else "")
