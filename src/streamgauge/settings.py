"""Every setting of the server, in one table: its name, type, default and meaning.

A setting has the same name everywhere: `query_timeout` is the key in the configuration file's `streamgauge:` section,
STREAMGAUGE_QUERY_TIMEOUT in the environment and --query-timeout as a flag. A flag wins over the environment, which wins
over the file, which wins over the default. docs/configuration.md is held against this table by a test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streamgauge.durations import format_duration, format_size, parse_duration, parse_size
from streamgauge.errors import BadInput, ConfigError
from streamgauge.event_rules import split_event_rules
from streamgauge.model.series_limits import CountLimit, SeriesLimits, parse_limit
from streamgauge.retention_rules import split_rules

if TYPE_CHECKING:
    from streamgauge.auth.rules import AuthRules
    from streamgauge.derive.rule import EventMetric
    from streamgauge.federation_config import FederationConfig
    from streamgauge.forward.destination import EventDestination
    from streamgauge.forward.live.target import LiveTarget
    from streamgauge.forward.remote_write.target import RemoteWriteTarget
    from streamgauge.ingest.relay.settings import RelaySettings
    from streamgauge.ingest.scrape.job import ScrapeJob
    from streamgauge.model.host_history import HostSettings

_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}

ENVIRONMENT_PREFIX = "STREAMGAUGE_"
DEFAULT_LISTEN = "127.0.0.1:4318"
DEFAULT_GRPC_LISTEN = "127.0.0.1:4317"

GENERAL, ACCESS, LOGGING, QUERIES, STORAGE = "General", "Who may call", "Log", "Limits of queries", "Limits of storage"


@dataclass(frozen=True, slots=True)
class Setting:
    """`parse` turns text into the value and raises BadInput; `metavar` is how --help shows the value, with its choices
    separated by bars, and `group` the heading under which it does."""

    name: str
    default: Any
    parse: Callable[[str], Any]
    metavar: str
    help: str
    reloadable: bool = False
    group: str = GENERAL

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()


@dataclass(frozen=True, slots=True)
class Settings:
    """The values in force. Durations are ms, sizes are bytes."""

    data: str
    listen: str
    retention: int
    downsampling: tuple[tuple[int, int], ...]
    event_retention: int
    event_retention_rules: tuple[str, ...]
    retention_size: int
    retention_rules: tuple[str, ...]
    self_monitoring: bool
    insecure: bool
    internal_listen: str
    grpc_listen: str
    tstorage_listen: str
    grpc_missing_time: str
    tls_cert: str
    tls_key: str
    tls_client_ca: str
    tls_client_auth: str
    enable_admin_api: bool
    allow_host: tuple[str, ...]
    allow_origin: tuple[str, ...]
    log_level: str
    log_format: str
    query_timeout: int
    query_concurrency: int
    query_queue: int
    query_max_samples: int
    query_max_bytes: int
    query_lookback: int
    max_tails: int
    tail_buffer_bytes: int
    head_samples: int
    index_max_bytes: int
    max_series_per_metric: CountLimit
    max_label_values: CountLimit
    min_free_bytes: int
    write_max_bytes: int
    write_max_decoded_bytes: int
    scrape_max_bytes: int
    event_max_bytes: int
    event_max_rate: int
    event_max_streams: int
    given: frozenset[str] = frozenset()
    """Names that were set by a flag, the environment or the file, and are not defaults."""

    @property
    def series_limits(self) -> SeriesLimits:
        return SeriesLimits(self.max_series_per_metric, self.max_label_values)


@dataclass(frozen=True, slots=True)
class Config:
    """A file that was read and understood. `own` holds parsed settings by name, `text` is safe to show, `jobs` are what
    is to be scraped, `destinations` what events are handed on to, `event_metrics` what is made of them, `remote_writes`
    what samples are sent to, `federation` who may push and what becomes of it, `auth` who may come in, None where that
    is not said, `live_targets` where live values are published."""

    own: Mapping[str, Any] = field(default_factory=dict)
    external_labels: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    text: str = ""
    jobs: tuple[ScrapeJob, ...] = ()
    destinations: tuple[EventDestination, ...] = ()
    event_metrics: tuple[EventMetric, ...] = ()
    remote_writes: tuple[RemoteWriteTarget, ...] = ()
    federation: FederationConfig | None = None
    auth: AuthRules | None = None
    relay: RelaySettings | None = None
    host_history: HostSettings | None = None
    live_targets: tuple[LiveTarget, ...] = ()


def parse_bool(text: str) -> bool:
    """true/false, yes/no, on/off, 1/0 in any case."""
    word = text.strip().lower()
    if word in {"true", "yes", "on", "1"}:
        return True
    if word in {"false", "no", "off", "0"}:
        return False
    raise BadInput(f'"{text}" is neither true nor false')


def parse_address(text: str) -> str:
    """HOST:PORT, with an IPv6 host in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise BadInput(f'"{text}" is not an address; write HOST:PORT, for example {DEFAULT_LISTEN} or [::1]:4318')
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise BadInput(f'"{text}" is not an address; put an IPv6 host in brackets, for example [::1]:4318')
    return text


def _address_or_off(text: str) -> str:
    """As parse_address; "" for off."""
    return "" if text.strip().lower() in ("", "off") else parse_address(text)


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise BadInput(f'"{text}" is not one of {", ".join(words)}')
        return text.lower()

    return parse


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise BadInput(f'"{text[:32]}" is not a whole number') from None
        if not low <= number <= high:
            raise BadInput(f"{number} is not between {low} and {high}")
        return number

    return parse


def _positive(parse: Callable[[str], int]) -> Callable[[str], int]:
    def parse_positive(text: str) -> int:
        number = parse(text)
        if number <= 0:
            raise BadInput(f'"{text}" is not more than 0')
        return number

    return parse_positive


def _up_to(limit: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        size = parse_size(text)
        if not 0 < size <= limit:
            raise BadInput(f'"{text}" is not between 1 byte and {format_size(limit)}')
        return size

    return parse


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def parse_tiers(text: str) -> tuple[tuple[int, int], ...]:
    """Pairs of a resolution and how long it is kept, in ms, as in 5m:90d,1h:2y; none for "off". Raises BadInput."""
    if text.strip().lower() in ("", "off"):
        return ()
    tiers: list[tuple[int, int]] = []
    for part in _words(text):
        finer, shorter = tiers[-1] if tiers else (1, 0)
        resolution, colon, keep = part.partition(":")
        if not colon:
            raise BadInput(f'"{part}" is not RESOLUTION:DURATION; write for example 5m:90d,1h:2y, or off')
        tier = parse_duration(resolution), parse_duration(keep)
        if tier[0] < _MINUTE or _DAY % tier[0]:
            raise BadInput(f"a resolution of {resolution} does not divide a day into spans of a minute or more")
        if tiers and (tier[0] == finer or tier[0] % finer):
            raise BadInput(f"a resolution of {resolution} is not a multiple of the one before it")
        if tier[1] <= shorter:
            raise BadInput(f"{part} is not kept longer than the resolution before it")
        tiers.append(tier)
    return tuple(tiers)


def _path(text: str) -> str:
    if not text or "\0" in text:
        raise BadInput("a path must not be empty")
    return text


_MINUTE, _DAY = 60_000, 86_400_000

TABLE: tuple[Setting, ...] = (
    Setting("data", "./streamgauge-data", _path, "DIR", "Folder that holds everything that is stored."),
    Setting(
        "listen",
        DEFAULT_LISTEN,
        parse_address,
        "HOST:PORT",
        "Address of the HTTP listener (port 0: any free one). Other than loopback it needs authentication.",
    ),
    Setting(
        "retention", 15 * _DAY, parse_duration, "DURATION", "How long samples are kept; 0 keeps them for ever.", True
    ),
    Setting(
        "downsampling",
        ((5 * _MINUTE, 90 * _DAY), (60 * _MINUTE, 730 * _DAY)),
        parse_tiers,
        "RESOLUTION:DURATION,…",
        "Aggregates that are kept of samples past their retention, and up to which age; off keeps none.",
        True,
    ),
    Setting(
        "event_retention",
        15 * _DAY,
        parse_duration,
        "DURATION",
        "How long events are kept; 0 keeps them for ever.",
        True,
    ),
    Setting(
        "event_retention_rules",
        (),
        split_event_rules,
        "CONDITION: DURATION; …",
        "Events that are kept shorter than the rest: payload.level = 'DEBUG': 1d. A condition is SQL, as after WHERE.",
        True,
    ),
    Setting(
        "retention_size",
        0,
        parse_size,
        "SIZE",
        "Bytes that blocks and log may take before the oldest blocks go; 0 sets no limit.",
        True,
    ),
    Setting(
        "retention_rules",
        (),
        split_rules,
        "RULE,…",
        'What is kept shorter than the rest: {job="debug"}: 1d. Of several that match, the first counts.',
        True,
    ),
    Setting(
        "self_monitoring", True, parse_bool, "BOOL", "Sample this host (as node_exporter does) and the server itself."
    ),
    Setting(
        "insecure",
        False,
        parse_bool,
        "BOOL",
        "Serve addresses other than loopback although no authentication is configured.",
        group=ACCESS,
    ),
    Setting(
        "internal_listen",
        "",
        parse_address,
        "HOST:PORT",
        "Address of a second listener, which has health, metrics and /federate; the first then has them no more.",
        group=ACCESS,
    ),
    Setting(
        "grpc_listen",
        DEFAULT_GRPC_LISTEN,
        _address_or_off,
        "HOST:PORT",
        "Address of the gRPC listener (TStorage, health, reflection), as --listen; off for none.",
        group=ACCESS,
    ),
    Setting(
        "tstorage_listen",
        "",
        parse_address,
        "HOST:PORT",
        "A second address of the gRPC listener, for programs that know TStorage at port 50051.",
        group=ACCESS,
    ),
    Setting(
        "grpc_missing_time",
        "refuse",
        _one_of("refuse", "now"),
        "refuse|now",
        "What InsertRow does with a row that has no timestamp. In a stream such a row is refused.",
        group=STORAGE,
    ),
    Setting(
        "tls_cert",
        "",
        _path,
        "FILE",
        "Certificate of the listeners, and what it is signed by, as PEM: they speak TLS. Read again when it changes.",
        group=ACCESS,
    ),
    Setting("tls_key", "", _path, "FILE", "Private key of that certificate, as PEM.", group=ACCESS),
    Setting(
        "tls_client_ca",
        "",
        _path,
        "FILE",
        "Certificates, as PEM, that sign those of clients: they are asked for one.",
        group=ACCESS,
    ),
    Setting(
        "tls_client_auth",
        "request",
        _one_of("request", "require"),
        "request|require",
        "Whether clients may come without a certificate. One that is shown must be good in any case.",
        group=ACCESS,
    ),
    Setting(
        "enable_admin_api",
        False,
        parse_bool,
        "BOOL",
        "Let clients delete samples and events, and take snapshots, through /api/v1/admin.",
        True,
        group=ACCESS,
    ),
    Setting(
        "allow_host",
        (),
        _words,
        "NAME,…",
        "Further names by which clients may call this server (Host header).",
        True,
        group=ACCESS,
    ),
    Setting(
        "allow_origin",
        (),
        _words,
        "ORIGIN,…",
        "Web origins whose pages may call this server (CORS).",
        True,
        group=ACCESS,
    ),
    Setting(
        "log_level",
        "info",
        _one_of("debug", "info", "warning", "error"),
        "debug|info|warning|error",
        "Least severe line to log.",
        group=LOGGING,
    ),
    Setting(
        "log_format", "text", _one_of("text", "json"), "text|json", "text for people, json for programs.", group=LOGGING
    ),
    Setting(
        "query_timeout",
        120_000,
        _positive(parse_duration),
        "DURATION",
        "Longest time that one query may take.",
        True,
        group=QUERIES,
    ),
    Setting(
        "query_concurrency",
        20,  # as in Prometheus
        _whole(1, 1_000),
        "N",
        "Queries that run at once, each with a snapshot of the data; never more than there are cores.",
        group=QUERIES,
    ),
    Setting(
        "query_queue",
        200,  # dashboards of dozens of panels, opened by a few people at once
        _whole(0, 10_000),
        "N",
        "Queries that may wait for their turn; beyond that one of whoever has most waiting is refused (503).",
        group=QUERIES,
    ),
    Setting(
        "query_max_samples",
        50_000_000,
        _whole(1, 1 << 40),
        "N",
        "Samples that one query may hold at once; 50 million take about 1 GB.",
        True,
        group=QUERIES,
    ),
    Setting(
        "query_max_bytes",
        2 << 30,
        _positive(parse_size),
        "SIZE",
        "Memory that one query may use, and the most bytes of an answer that lists series or labels.",
        True,
        group=QUERIES,
    ),
    Setting(
        "query_lookback",
        300_000,
        _positive(parse_duration),
        "DURATION",
        "How long a sample counts as current.",
        True,
        group=QUERIES,
    ),
    Setting(
        "max_tails",
        200,  # each may hold its buffer and a connection; a page opens one or two
        _whole(0, 10_000),
        "N",
        "Live tails that may be open at once; the next is refused (503).",
        group=QUERIES,
    ),
    Setting(
        "tail_buffer_bytes",
        1 << 20,  # a second or two of the fastest that a terminal shows
        _positive(parse_size),
        "SIZE",
        "What waits for one live tail that reads too slowly, before it loses the oldest.",
        group=QUERIES,
    ),
    Setting(
        "head_samples",
        4_000_000,
        _whole(131_072, 1 << 30),
        "N",
        "Newest samples kept in memory before they are written as a block; 20 bytes each.",
        group=STORAGE,
    ),
    Setting(
        "index_max_bytes", 1 << 30, _positive(parse_size), "SIZE", "Memory for the labels of all series.", group=STORAGE
    ),
    Setting(
        "max_series_per_metric",
        CountLimit(1_000_000),  # about half of the default index: the other metrics keep the rest
        parse_limit,
        "N[,METRIC=N…]",
        "Most series of one metric, or of those named another number each; 0 is no limit. New ones are refused.",
        True,
        group=STORAGE,
    ),
    Setting(
        "max_label_values",
        CountLimit(1_000_000),
        parse_limit,
        "N[,LABEL=N…]",
        "Most values of one label, over all series, or of those named another number each; 0 is no limit.",
        True,
        group=STORAGE,
    ),
    Setting(
        "min_free_bytes",
        64 << 20,
        parse_size,
        "SIZE",
        "Free disk below which writes are refused until there is room again.",
        group=STORAGE,
    ),
    Setting(
        "write_max_bytes",
        16 << 20,
        _positive(parse_size),
        "SIZE",
        "Largest body of a write request as it is sent.",
        group=STORAGE,
    ),
    Setting(
        "write_max_decoded_bytes",
        32 << 20,
        _positive(parse_size),
        "SIZE",
        "Largest body of a write request, decompressed.",
        group=STORAGE,
    ),
    Setting(
        "scrape_max_bytes",
        128 << 20,
        _positive(parse_size),
        "SIZE",
        "Largest answer of a scrape target, decompressed, whatever body_size_limit says.",
        group=STORAGE,
    ),
    Setting(
        "event_max_bytes",
        64 << 20,  # as clients of the protocol expect
        _up_to(100 << 20),  # one that is text may double as JSON, and the store takes 256 MiB
        "SIZE",
        "Largest event, be it a JSON value, a line or a WebSocket message; 100MB at most.",
        True,
        group=STORAGE,
    ),
    Setting(
        "event_max_rate",
        0,
        parse_size,
        "SIZE",
        "Bytes of events a second from one request or WebSocket before it is read slower; 0 sets no limit.",
        True,
        group=STORAGE,
    ),
    Setting(
        "event_max_streams",
        10_000,  # below the limit of connections, so that others still get in
        _whole(1, 1_000_000),
        "N",
        "Requests and WebSockets that bring events at once; the next is refused (503).",
        True,
        group=STORAGE,
    ),
)

BY_NAME: Mapping[str, Setting] = {setting.name: setting for setting in TABLE}


def resolve(flags: Mapping[str, Any], environment: Mapping[str, str], file: Mapping[str, Any]) -> Settings:
    """The settings in force.

    flags: parsed values by name, absent or None where not given. environment: all variables. file: the values of the
    `streamgauge:` section, already parsed. Raises ConfigError for a variable that does not parse.
    """
    values: dict[str, Any] = {}
    given: set[str] = set()
    for setting in TABLE:
        if flags.get(setting.name) is not None:
            values[setting.name] = flags[setting.name]
        elif setting.variable in environment:
            try:
                values[setting.name] = setting.parse(environment[setting.variable])
            except BadInput as error:
                raise ConfigError(f"environment variable {setting.variable}: {error.message}") from None
        elif setting.name in file:
            values[setting.name] = file[setting.name]
        else:
            values[setting.name] = setting.default
            continue
        given.add(setting.name)
    return Settings(**values, given=frozenset(given))


def misspelt_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each variable that is nearly the name of a setting.

    Others of the prefix may be somebody else's: an orchestrator makes some of a service's name."""
    import difflib  # by nothing else that a short command imports

    known = [setting.variable for setting in TABLE]
    for name in sorted(environment.keys() - known):
        if name.startswith(ENVIRONMENT_PREFIX):
            rest = name.removeprefix(ENVIRONMENT_PREFIX).lower()
            if close := difflib.get_close_matches(rest, BY_NAME, 1, 0.8):
                yield f"environment variable {name} is no setting; did you mean {BY_NAME[close[0]].variable}?"


def shown(settings: Settings, name: str) -> str:
    """The value of a setting as one would write it."""
    return written(BY_NAME[name], getattr(settings, name))


def written(setting: Setting, value: Any) -> str:
    """A value of a setting as one would write it; an empty list is ""."""
    if isinstance(value, bool):
        return str(value).lower()
    if setting.metavar == "DURATION":
        return format_duration(value)
    if setting.metavar == "SIZE":
        return format_size(value)
    if setting.name == "downsampling":
        return ",".join(f"{format_duration(each)}:{format_duration(keep)}" for each, keep in value) or "off"
    return ",".join(value) if isinstance(value, tuple) else str(value)


def local_url(address: str, tls: bool = False) -> str:
    """The URL by which this machine reaches a listener at host:port: one on all addresses is reached by loopback."""
    host, _, port = address.rpartition(":")
    return f"http{'s' * tls}://{_LOOPBACK_OF.get(host, host)}:{port}"
