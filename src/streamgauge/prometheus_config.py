"""The shape of prometheus.yml, so that an existing file is understood key by key.

Only the shape: what is acted on is decided by whoever uses the parsed values; `ACTED_ON` in config.py names that.
Discovery kinds other than static, file, HTTP and DNS are accepted whole, without looking inside.
Source: the configuration reference of Prometheus 3.
"""

from __future__ import annotations

from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from streamgauge.auth_config import AuthSection
from streamgauge.durations import parse_duration, parse_size
from streamgauge.errors import BadInput
from streamgauge.event_config import EventDestinationSection, EventMetricSection
from streamgauge.federation_config import FederationSection
from streamgauge.forward.remote_write.target import Protocol as WriteProtocol
from streamgauge.host_history_config import HostHistorySection
from streamgauge.http.options import VERSIONS
from streamgauge.ingest.scrape.negotiation import PROTOCOLS
from streamgauge.relabel import Action, Rule, check
from streamgauge.relay_config import RelaySection


def _duration(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int) or (isinstance(value, int) and value != 0):
        raise ValueError("expected a duration such as 30s, 5m or 1h30m")
    return int(_translated(parse_duration, str(value)))


def _interval(value: object) -> int:
    if not (interval := _duration(value)):
        raise ValueError("an interval cannot be 0")
    return interval


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("expected a size such as 512MB")
    return int(_translated(parse_size, str(value)))


def _translated(parse: Any, given: Any) -> Any:
    try:
        return parse(given)
    except BadInput as error:
        raise ValueError(error.message) from None


def check_regex(pattern: str) -> str:
    """The pattern itself when RE2 accepts it; a ValueError with RE2's reason when not."""
    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        raise ValueError(f"bad regular expression: {str(error).removeprefix('Invalid regular expression: ')}") from None
    return pattern


def _label_name(name: str) -> str:
    if not name:
        raise ValueError("a label name must not be empty")
    return name


Duration = Annotated[int, BeforeValidator(_duration)]
Interval = Annotated[int, BeforeValidator(_interval)]
Size = Annotated[int, BeforeValidator(_size)]
Regex = Annotated[str, AfterValidator(check_regex)]
LabelName = Annotated[str, AfterValidator(_label_name)]
Labels = dict[LabelName, str]
Limit = Annotated[int, Field(ge=0)]


def _one_of(*words: str) -> Any:
    def check_word(word: str) -> str:
        if word not in words:
            raise ValueError(f'"{word}" is not one of {", ".join(words)}')
        return word

    return AfterValidator(check_word)


TlsVersion = Annotated[str, _one_of(*VERSIONS)]
Scheme = Annotated[str, AfterValidator(str.lower), _one_of("http", "https")]
Protocol = Annotated[str, _one_of(*PROTOCOLS)]
EscapingScheme = Annotated[str, _one_of("allow-utf-8", "underscores", "dots", "values")]


class Section(BaseModel):
    """Unknown keys are refused; nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TlsConfig(Section):
    ca: str | None = None
    cert: str | None = None
    key: SecretStr | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None
    insecure_skip_verify: bool = False
    min_version: TlsVersion | None = None
    max_version: TlsVersion | None = None

    @model_validator(mode="after")
    def _whole(self) -> TlsConfig:
        for name in ("ca", "cert", "key"):
            if getattr(self, name) is not None and getattr(self, f"{name}_file") is not None:
                raise ValueError(f"give {name} or {name}_file, not both")
        if (self.cert is None and self.cert_file is None) != (self.key is None and self.key_file is None):
            raise ValueError("a certificate and its key are given together, or neither")
        return self


class BasicAuth(Section):
    username: str | None = None
    username_file: str | None = None
    password: SecretStr | None = None
    password_file: str | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> BasicAuth:
        if self.password is not None and self.password_file is not None:
            raise ValueError("give password or password_file, not both")
        if self.username is not None and self.username_file is not None:
            raise ValueError("give username or username_file, not both")
        return self


class Authorization(Section):
    type: str = "Bearer"
    credentials: SecretStr | None = None
    credentials_file: str | None = None
    credentials_ref: str | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> Authorization:
        if self.credentials is not None and self.credentials_file is not None:
            raise ValueError("give credentials or credentials_file, not both")
        if self.type.strip().lower() == "basic":
            raise ValueError("for user and password there is basic_auth")
        return self


class ProxyConfig(Section):
    proxy_url: str | None = None
    no_proxy: str | None = None
    proxy_from_environment: bool = False
    proxy_connect_header: dict[str, list[SecretStr]] | None = None


class Header(Section):
    values: list[str] | None = None
    secrets: list[SecretStr] | None = None
    files: list[str] | None = None


class OAuth2(ProxyConfig):
    client_id: str
    client_secret: SecretStr | None = None
    client_secret_file: str | None = None
    client_certificate_key_id: str | None = None
    client_certificate_key: SecretStr | None = None
    client_certificate_key_file: str | None = None
    grant_type: str | None = None
    signature_algorithm: str | None = None
    iss: str | None = None
    audience: str | None = None
    claims: dict[str, Any] | None = None
    scopes: list[str] | None = None
    token_url: str
    endpoint_params: dict[str, SecretStr] | None = None  # a client may show itself by one of them
    tls_config: TlsConfig | None = None


class HttpConfig(ProxyConfig):
    basic_auth: BasicAuth | None = None
    authorization: Authorization | None = None
    oauth2: OAuth2 | None = None
    bearer_token: SecretStr | None = None
    bearer_token_file: str | None = None
    follow_redirects: bool = True
    enable_http2: bool | None = None
    tls_config: TlsConfig | None = None
    http_headers: dict[str, Header] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> HttpConfig:
        ways = ("basic_auth", "authorization", "oauth2", "bearer_token", "bearer_token_file")
        given = [way for way in ways if getattr(self, way) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {' and '.join(given)}")
        return self


class RelabelConfig(Section):
    source_labels: list[LabelName] | None = None
    separator: str = ";"
    target_label: str | None = None
    regex: Regex = "(.*)"
    modulus: Annotated[int, Field(ge=0)] | None = None
    replacement: str = "$1"
    action: str = "replace"

    @model_validator(mode="after")
    def _sensible(self) -> RelabelConfig:
        _translated(check, self.rule())
        return self

    def rule(self) -> Rule:
        try:
            action = Action(self.action.lower())
        except ValueError:
            raise ValueError(f'unknown relabel action "{self.action}"; there are {", ".join(Action)}') from None
        return Rule(
            action,
            tuple(self.source_labels or ()),
            self.separator,
            self.regex,
            self.target_label or "",
            self.replacement,
            self.modulus or 0,
        )


class StaticConfig(Section):
    targets: list[str] = Field(default_factory=list)
    labels: Labels | None = None


def _discovery_file(pattern: str) -> str:
    last = pattern.rpartition("/")[2]
    if not last.endswith((".json", ".yml", ".yaml")) or "*" in pattern.removesuffix(last):
        raise ValueError(f'"{pattern}" must end in .json, .yml or .yaml; a * may stand in its last part only')
    return pattern


class FileDiscovery(Section):
    files: Annotated[list[Annotated[str, AfterValidator(_discovery_file)]], Field(min_length=1)]
    refresh_interval: Interval = 300_000


def _http_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("expected a URL that begins with http:// or https://")
    if url.partition("://")[2].startswith(("/", "?", "#")) or url.endswith("://"):
        raise ValueError("the URL has no host")
    return url


class HttpDiscovery(HttpConfig):
    url: Annotated[str, AfterValidator(_http_url)]
    refresh_interval: Interval = 60_000


class DnsDiscovery(Section):
    names: Annotated[list[str], Field(min_length=1)]
    type: str = "SRV"
    port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    refresh_interval: Interval = 30_000

    @model_validator(mode="after")
    def _sensible(self) -> DnsDiscovery:
        if self.type.upper() not in ("A", "AAAA", "SRV", "MX"):
            raise ValueError(f'unknown record type "{self.type}"; there are A, AAAA, SRV and MX')
        if self.type.upper() != "SRV" and not self.port:
            raise ValueError(f"records of type {self.type} need a port")
        return self


def _distinct(protocols: list[str]) -> list[str]:
    if len(set(protocols)) < len(protocols):
        raise ValueError("a protocol is given twice")
    return protocols


Opaque = list[dict[str, Any]]


class Discovery(HttpConfig):
    """Every way in which targets are found; shared by scrape configs and Alertmanager configs."""

    static_configs: list[StaticConfig] | None = None
    file_sd_configs: list[FileDiscovery] | None = None
    http_sd_configs: list[HttpDiscovery] | None = None
    dns_sd_configs: list[DnsDiscovery] | None = None
    aws_sd_configs: Opaque | None = None
    azure_sd_configs: Opaque | None = None
    consul_sd_configs: Opaque | None = None
    digitalocean_sd_configs: Opaque | None = None
    docker_sd_configs: Opaque | None = None
    dockerswarm_sd_configs: Opaque | None = None
    ec2_sd_configs: Opaque | None = None
    eureka_sd_configs: Opaque | None = None
    gce_sd_configs: Opaque | None = None
    hetzner_sd_configs: Opaque | None = None
    ionos_sd_configs: Opaque | None = None
    kubernetes_sd_configs: Opaque | None = None
    kuma_sd_configs: Opaque | None = None
    lightsail_sd_configs: Opaque | None = None
    linode_sd_configs: Opaque | None = None
    marathon_sd_configs: Opaque | None = None
    nerve_sd_configs: Opaque | None = None
    nomad_sd_configs: Opaque | None = None
    oci_sd_configs: Opaque | None = None
    openstack_sd_configs: Opaque | None = None
    outscale_sd_configs: Opaque | None = None
    ovhcloud_sd_configs: Opaque | None = None
    puppetdb_sd_configs: Opaque | None = None
    scaleway_sd_configs: Opaque | None = None
    serverset_sd_configs: Opaque | None = None
    stackit_sd_configs: Opaque | None = None
    triton_sd_configs: Opaque | None = None
    uyuni_sd_configs: Opaque | None = None
    vultr_sd_configs: Opaque | None = None


class ScrapeLimits(Section):
    """Keys that stand in `global:` and in each scrape config."""

    scrape_protocols: Annotated[list[Protocol], Field(min_length=1), AfterValidator(_distinct)] | None = None
    body_size_limit: Size | None = None
    sample_limit: Limit | None = None
    label_limit: Limit | None = None
    label_name_length_limit: Limit | None = None
    label_value_length_limit: Limit | None = None
    target_limit: Limit | None = None
    keep_dropped_targets: Limit | None = None
    metric_name_validation_scheme: str | None = None
    metric_name_escaping_scheme: EscapingScheme | None = None
    scrape_native_histograms: bool | None = None
    convert_classic_histograms_to_nhcb: bool | None = None
    always_scrape_classic_histograms: bool | None = None
    scrape_failure_log_file: str | None = None
    extra_scrape_metrics: bool | None = None


DEFAULT_INTERVAL_MS = 60_000
"""Between two scrapes, where neither the job nor the section `global` says it."""


class GlobalConfig(ScrapeLimits):
    scrape_interval: Duration = DEFAULT_INTERVAL_MS
    scrape_timeout: Duration = 10_000
    evaluation_interval: Duration = 60_000
    rule_query_offset: Duration = 0
    external_labels: Labels | None = None
    query_log_file: str | None = None

    @model_validator(mode="after")
    def _in_time(self) -> GlobalConfig:
        """The default timeout gives way to a short interval; one that is given does not."""
        given = "scrape_timeout" in self.model_fields_set
        if given and self.scrape_timeout > (self.scrape_interval or DEFAULT_INTERVAL_MS):
            raise ValueError("scrape_timeout is longer than scrape_interval")
        return self


class ScrapeConfig(Discovery, ScrapeLimits):
    job_name: Annotated[str, Field(min_length=1)]
    scrape_interval: Duration | None = None
    scrape_timeout: Duration | None = None
    fallback_scrape_protocol: Protocol | None = None
    metrics_path: str = "/metrics"
    honor_labels: bool = False
    honor_timestamps: bool = True
    track_timestamps_staleness: bool = False
    scheme: Scheme = "http"
    params: dict[str, list[str]] | None = None
    enable_compression: bool = True
    native_histogram_bucket_limit: Limit | None = None
    native_histogram_min_bucket_factor: float | None = None
    relabel_configs: list[RelabelConfig] | None = None
    metric_relabel_configs: list[RelabelConfig] | None = None


def _grpc_address(target: str) -> str:
    if "://" in target or "/" in target:
        raise ValueError(f'"{target}" is no address of a reader; write host:port')
    return target


class GrpcPollConfig(Discovery):
    """Data readers that are polled over gRPC. targets and labels: short for one group of static_configs."""

    job_name: Annotated[str, Field(min_length=1)]
    targets: list[Annotated[str, AfterValidator(_grpc_address)]] | None = None
    labels: Labels | None = None
    interval: Duration = 60_000
    timeout: Duration | None = None
    honor_labels: bool = False
    body_size_limit: Size | None = None
    sample_limit: Limit | None = None
    label_limit: Limit | None = None
    label_name_length_limit: Limit | None = None
    label_value_length_limit: Limit | None = None
    target_limit: Limit | None = None
    keep_dropped_targets: Limit | None = None
    relabel_configs: list[RelabelConfig] | None = None
    metric_relabel_configs: list[RelabelConfig] | None = None


class AlertmanagerConfig(Discovery):
    timeout: Duration = 10_000
    api_version: str = "v2"
    path_prefix: str = "/"
    scheme: str = "http"
    sigv4: dict[str, Any] | None = None
    relabel_configs: list[RelabelConfig] | None = None
    alert_relabel_configs: list[RelabelConfig] | None = None


class AlertingConfig(Section):
    alert_relabel_configs: list[RelabelConfig] | None = None
    alertmanagers: list[AlertmanagerConfig] | None = None


Count = Annotated[int, Field(ge=1)]


class QueueConfig(Section):
    capacity: Count = 10_000
    max_shards: Count = 50
    min_shards: Count = 1
    max_samples_per_send: Count = 2000
    batch_send_deadline: Duration = 5000
    min_backoff: Duration = 30
    max_backoff: Duration = 5000
    retry_on_http_429: bool = True  # in Prometheus false: a destination that is busy would lose samples
    sample_age_limit: Duration = 0


class MetadataConfig(Section):
    send: bool = True
    send_interval: Duration = 60_000
    max_samples_per_send: Count = 2000


class RemoteWrite(HttpConfig):
    url: Annotated[str, AfterValidator(_http_url)]
    protobuf_message: Annotated[str, _one_of(*WriteProtocol)] = WriteProtocol.V1.value
    remote_timeout: Duration = 30_000
    headers: dict[str, SecretStr] | None = None
    write_relabel_configs: list[RelabelConfig] | None = None
    name: str | None = None
    send_exemplars: bool = False
    send_native_histograms: bool = False
    round_robin_dns: bool = False
    sigv4: dict[str, Any] | None = None
    azuread: dict[str, Any] | None = None
    google_iam: dict[str, Any] | None = None
    queue_config: QueueConfig | None = None
    metadata_config: MetadataConfig | None = None


class RemoteRead(HttpConfig):
    url: str
    name: str | None = None
    required_matchers: Labels | None = None
    remote_timeout: Duration = 60_000
    headers: dict[str, SecretStr] | None = None
    read_recent: bool = False
    filter_external_labels: bool = True
    chunked_read_limit: Limit | None = None


class TsdbRetention(Section):
    time: Duration | None = None
    size: Size | None = None
    percentage: Limit | None = None


class TsdbConfig(Section):
    out_of_order_time_window: Duration | None = None
    stale_series_compaction_threshold: float | None = None
    chunk_encoding: dict[str, str] | None = None
    retention: TsdbRetention | None = None


class ExemplarsConfig(Section):
    max_exemplars: int | None = None


class StorageConfig(Section):
    tsdb: TsdbConfig | None = None
    exemplars: ExemplarsConfig | None = None


class ScrapeConfigFile(Section):
    """A file that `scrape_config_files` names."""

    scrape_configs: list[ScrapeConfig] | None = None


class PrometheusConfig(Section):
    """The top level of prometheus.yml. `global` is a Python keyword, hence the alias."""

    global_: GlobalConfig | None = Field(default=None, alias="global")
    runtime: dict[str, Any] | None = None
    rule_files: list[str] | None = None
    scrape_config_files: list[str] | None = None
    scrape_configs: list[ScrapeConfig] | None = None
    grpc_poll_configs: list[GrpcPollConfig] | None = None  # ours
    alerting: AlertingConfig | None = None
    remote_write: list[RemoteWrite] | None = None
    remote_read: list[RemoteRead] | None = None
    otlp: dict[str, Any] | None = None
    event_destinations: list[EventDestinationSection] | None = None  # ours
    event_metrics: list[EventMetricSection] | None = None  # ours
    federation: FederationSection | None = None  # ours
    auth: AuthSection | None = None  # ours
    relay: RelaySection | None = None  # ours
    host_history: HostHistorySection | None = None  # ours
    storage: StorageConfig | None = None
    tracing: dict[str, Any] | None = None
