"""Reading the configuration file: YAML, a superset of prometheus.yml, with our own section `streamgauge:`.

Every complaint names the file, the line and what was meant. Variables are expanded in the values, after YAML has been
parsed, so that a value cannot change the file's structure.
"""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, SecretStr, ValidationError

from streamgauge import federation_config
from streamgauge.auth_config import auth_rules
from streamgauge.errors import BadInput, ConfigError
from streamgauge.event_config import destinations, event_metrics
from streamgauge.host_history_config import host_settings
from streamgauge.ingest.scrape.job import ScrapeJob
from streamgauge.live_config import live_targets
from streamgauge.prometheus_config import (
    GlobalConfig,
    GrpcPollConfig,
    HttpDiscovery,
    MetadataConfig,
    PrometheusConfig,
    QueueConfig,
    RemoteWrite,
    ScrapeConfig,
    ScrapeConfigFile,
    ScrapeLimits,
)
from streamgauge.relay_config import as_section, mirror, notices, relay_settings, with_file
from streamgauge.remote_write_config import remote_writes
from streamgauge.scrape_config import JobMaker
from streamgauge.settings import BY_NAME, Config

OWN_SECTION = "streamgauge"
MAX_FILE_BYTES = 16 << 20
MAX_NODES = 1_000_000
"""YAML aliases can make a small file huge; a configuration of 10,000 targets has about 100,000 nodes."""

NEVER_EXPANDED = frozenset(
    {"relabel_configs", "metric_relabel_configs", "alert_relabel_configs", "write_relabel_configs"}
)
"""Their ${1} is a capture group."""

_NOT_YET = frozenset(
    {
        "proxy_url",
        "no_proxy",
        "proxy_from_environment",
        "proxy_connect_header",
        "oauth2",
        "metric_name_validation_scheme",
        "scrape_native_histograms",
        "convert_classic_histograms_to_nhcb",
        "always_scrape_classic_histograms",
        "native_histogram_bucket_limit",
        "native_histogram_min_bucket_factor",
        "scrape_failure_log_file",
    }
)
"""Keys of scraping that are known and not acted on, wherever they stand."""
_NOT_SENT = frozenset(
    {
        "send_exemplars",
        "send_native_histograms",
        "round_robin_dns",
        "sigv4",
        "azuread",
        "google_iam",
        "queue_config",
        "metadata_config",
    }
)
"""Keys of remote_write that are not acted on, or of which each key counts by itself."""
_NOT_OVER_GRPC = frozenset({"http_sd_configs", "follow_redirects", "enable_http2", "http_headers"})
"""Keys of HTTP that a poll has no use for, and one of which each key counts by itself."""
_OAUTH2 = (
    "client_id",
    "client_secret",
    "client_secret_file",
    "grant_type",
    "token_url",
    "scopes",
    "endpoint_params",
    "tls_config",
)
_DISCOVERIES = frozenset({"static_configs", "file_sd_configs", "http_sd_configs", "dns_sd_configs"})


def _keys(section: type[BaseModel]) -> Iterator[str]:
    for name in section.model_fields:
        if name not in _NOT_YET and (not name.endswith("_sd_configs") or name in _DISCOVERIES):
            yield name


ACTED_ON = frozenset(
    {
        ("global", "external_labels"),
        ("global", "scrape_interval"),
        ("global", "scrape_timeout"),
        *(("global", key) for key in _keys(ScrapeLimits)),
        ("storage", "tsdb", "retention", "time"),
        ("storage", "tsdb", "retention", "size"),
        ("scrape_config_files",),
        ("event_destinations",),
        ("event_metrics",),
        *((federation_config.SECTION, key) for key in federation_config.acted_on()),
        ("auth",),
        ("relay",),
        ("host_history",),
        *(("scrape_configs", key) for key in _keys(ScrapeConfig) if key != "http_sd_configs"),
        *(("grpc_poll_configs", key) for key in _keys(GrpcPollConfig) if key not in _NOT_OVER_GRPC),
        *(("grpc_poll_configs", "http_sd_configs", key) for key in _keys(HttpDiscovery)),
        *(("scrape_configs", "http_sd_configs", key) for key in _keys(HttpDiscovery)),
        *(("remote_write", key) for key in _keys(RemoteWrite) if key not in _NOT_SENT),
        *(("remote_write", "queue_config", key) for key in QueueConfig.model_fields),
        *(("remote_write", "metadata_config", key) for key in MetadataConfig.model_fields),
        *(("remote_write", "oauth2", key) for key in _OAUTH2),
    }
)
"""Paths of Prometheus keys that this version acts on. Every other one that is set is warned of."""

_LOOKED_INTO = frozenset(
    {
        ("scrape_configs",),
        ("scrape_configs", "http_sd_configs"),
        ("grpc_poll_configs",),
        ("grpc_poll_configs", "http_sd_configs"),
        ("remote_write",),
    }
)
"""Lists of sections of which each key counts by itself."""

_HINT = "; file_sd_configs and http_sd_configs are, and other discoveries can feed them: see docs/scraping.md"

Shape = TypeVar("Shape", bound=BaseModel)

_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}")
_REFERENCE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)

Path_ = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Only used to compose nodes and to resolve scalars; objects are built here, with bounds."""


def load_config(path: Path, environment: Mapping[str, str]) -> Config:
    """Read and check a configuration file. Raises ConfigError with file and line."""
    return parse_config(_read(path), str(path), environment)


def _read(path: Path) -> str:
    """Raises ConfigError."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB; this is no configuration file")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from None


def parse_config(text: str, name: str, environment: Mapping[str, str]) -> Config:
    """`load_config` of a text; `name` stands for the file in messages."""
    document = _Document(name, environment)
    values = document.build(text)
    if values is None:
        return Config()
    if not isinstance(values, dict):
        raise document.error((), "the file must be a mapping of sections, such as streamgauge: or scrape_configs:")
    values = as_section(values)
    base = Path(document.name).parent
    if "relay" in values:
        values["relay"] = with_file(values["relay"], base, document.error)
    own = document.own_section(values.pop(OWN_SECTION, None))
    parsed = document.validated(values, PrometheusConfig)
    if parsed.storage and parsed.storage.tsdb and (retention := parsed.storage.tsdb.retention):
        for name, value in (("retention", retention.time), ("retention_size", retention.size)):
            if value is not None:
                own.setdefault(name, value)
    scrape_files = list(_scrape_files(parsed, document, environment))
    jobs = _jobs(parsed, [(document, parsed.scrape_configs or []), *scrape_files])
    warnings = [*document.warnings(parsed)]
    for other, configs in scrape_files:
        warnings += other.warnings(ScrapeConfigFile(scrape_configs=configs))
    external = (parsed.global_.external_labels if parsed.global_ else None) or {}
    shown: dict[str, Any] = {OWN_SECTION: document.own_text} if document.own_text else {}
    shown |= _shown(values, parsed)
    text_shown = yaml.safe_dump(shown, sort_keys=False, width=120)
    forwarded = destinations(parsed, base, document.error)
    derived = event_metrics(parsed, document.error)
    written = (*remote_writes(parsed, base, document.error), *mirror(parsed.relay))
    pushes = federation_config.federation(parsed.federation, base, document.error)
    auth = auth_rules(parsed, base, document.error)
    relays = relay_settings(parsed.relay, base, document.error)
    warnings += [document.error(("relay", key), text).message for key, text in notices(parsed.relay)]
    live = () if relays is None else tuple(live_targets(parsed.relay))
    hosts = host_settings(parsed.host_history, document.error)
    return Config(
        own, external, tuple(warnings), text_shown, jobs, forwarded, derived, written, pushes, auth, relays, hosts, live
    )


_Configs = list[ScrapeConfig]


def _jobs(parsed: PrometheusConfig, files: list[tuple[_Document, _Configs]]) -> tuple[ScrapeJob, ...]:
    maker = JobMaker(parsed.global_ or GlobalConfig())
    jobs = []
    for document, configs in files:
        for number, config in enumerate(configs):
            complain = partial(document.key_error, ("scrape_configs", number))
            jobs.append(maker.job(config, Path(document.name).parent, complain))
    for number, polls in enumerate(parsed.grpc_poll_configs or ()):
        document = files[0][0]
        complain = partial(document.key_error, ("grpc_poll_configs", number))
        jobs.append(maker.poll_job(polls, Path(document.name).parent, complain))
    return tuple(jobs)


def _scrape_files(
    parsed: PrometheusConfig, document: _Document, environment: Mapping[str, str]
) -> Iterator[tuple[_Document, _Configs]]:
    """The files that `scrape_config_files` names, each with what it holds."""
    base = Path(document.name).parent
    for pattern in parsed.scrape_config_files or ():
        for path in sorted(glob.glob(str(base / pattern))):
            other = _Document(path, environment)
            values = other.build(_read(Path(path)))
            if not isinstance(values, dict):
                raise other.error((), "the file must be a mapping with scrape_configs:")
            yield other, other.validated(values, ScrapeConfigFile).scrape_configs or []


class _Document:
    """One file while it is read: its values, and the line of each."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.environment = environment
        self.lines: dict[Path_, int] = {}
        self.words: dict[Path_, str] = {}  # numbers, truth values: as they were written
        self.own_text: dict[str, Any] = {}
        self._nodes = 0

    def error(self, path: Path_, message: str) -> ConfigError:
        while path and path not in self.lines:
            path = path[:-1]
        return ConfigError(f"{self.name}:{self.lines.get(path, 1)}: {message}")

    def build(self, text: str) -> Any:
        try:
            loader = _Loader(text)
            try:
                node = loader.get_single_node()
                return None if node is None else self._value(loader, node, (), True)
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigError(f"{self.name}:{line}: not valid YAML: {error.problem or error.context}") from None
        except (yaml.YAMLError, RecursionError) as error:
            raise ConfigError(f"{self.name}: not valid YAML: {str(error) or 'nested too deeply'}") from None

    def _value(self, loader: _Loader, node: yaml.Node, path: Path_, expand: bool) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self.error(path, f"more than {MAX_NODES} values, aliases counted; this is no configuration file")
        if isinstance(node, yaml.SequenceNode):
            return [self._value(loader, item, (*path, i), expand) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, path, expand)
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(loader, node, path, expand)

    def _mapping(self, loader: _Loader, node: yaml.MappingNode, path: Path_, expand: bool) -> dict[str, Any]:
        keys = self._keys(node, path)
        if len(set(keys)) < len(keys):
            at = next(at for at, key in enumerate(keys) if key in keys[:at])
            line = node.value[at][0].start_mark.line + 1
            raise ConfigError(f'{self.name}:{line}: "{keys[at]}" is given twice')
        loader.flatten_mapping(node)
        # What was merged in comes first, and what the mapping says itself wins.
        node.value = list(dict(zip(self._keys(node, path), node.value, strict=True)).values())
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            here = (*path, key)
            self.lines[here] = key_node.start_mark.line + 1
            result[key] = self._value(loader, value_node, here, expand and key not in NEVER_EXPANDED)
        return result

    def _keys(self, node: yaml.MappingNode, path: Path_) -> list[str]:
        if not all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
            raise self.error(path, "a key must be a plain word")
        return [key.value for key, _ in node.value]

    def _scalar(self, loader: _Loader, node: yaml.ScalarNode, path: Path_, expand: bool) -> Any:
        if expand and "$" in node.value:
            text = self._expand(node.value, path)
            if text != node.value:
                plain = node.style is None
                tag = loader.resolve(yaml.ScalarNode, text, (True, False)) if plain else node.tag  # type: ignore[no-untyped-call]
                node = yaml.ScalarNode(tag, text, node.start_mark, node.end_mark, node.style)
        if node.tag == "tag:yaml.org,2002:timestamp":
            return node.value
        try:
            value = loader.construct_object(node)
        except (ValueError, OverflowError):  # looks like a number and is none
            return node.value
        if isinstance(value, bool | int | float):
            self.words[path] = node.value
        return value

    def _expand(self, text: str, path: Path_) -> str:
        def replace(match: re.Match[str]) -> str:
            if match.group() == "$${":
                return "${"
            reference = _REFERENCE.fullmatch(match.group(1))
            if reference is None:
                raise self.error(
                    path,
                    f"{match.group()} is no variable: a name starts with a letter or underscore "
                    "(write $${ for a literal ${)",
                )
            name, default = reference.groups()
            value = self.environment.get(name) or default if default is not None else self.environment.get(name)
            if value is None:
                raise self.error(
                    path, f"the environment variable {name} is not set (write ${{{name}:-value}} to give a default)"
                )
            return value

        return _VARIABLE.sub(replace, text)

    def own_section(self, section: Any) -> dict[str, Any]:
        """The parsed settings of our own section."""
        if section is None:
            return {}
        if not isinstance(section, dict):
            raise self.error((OWN_SECTION,), f"{OWN_SECTION}: must be a mapping of settings")
        own: dict[str, Any] = {}
        for key, value in section.items():
            path = (OWN_SECTION, key)
            if key not in BY_NAME:
                raise self.error(path, f'unknown setting "{key}"{_meant(key, BY_NAME)}')
            words = {(*path, i): word for i, word in enumerate(value)} if isinstance(value, list) else {path: value}
            if any(isinstance(word, dict | list) or word is None for word in words.values()):
                raise self.error(path, f"{key} must be a plain value")
            try:
                own[key] = BY_NAME[key].parse(",".join(self.words.get(at, str(word)) for at, word in words.items()))
            except BadInput as error:
                raise self.error(path, f"{key}: {error.message}") from None
        self.own_text = dict(section)
        return own

    def key_error(self, path: Path_, key: str, message: str) -> ConfigError:
        return self.error((*path, key), f"{'.'.join(map(str, path))}.{key}: {message}")

    def validated(self, values: dict[str, Any], shape: type[Shape]) -> Shape:
        """The values in the shape of prometheus.yml, or of a part. Where that has text, what looks like a number or a
        truth value is taken as it was written, as Prometheus takes it: `shard: 01`, `enabled: on`. A key of Prometheus
        without a value counts as one that is not there."""
        try:
            return shape.model_validate(values)
        except ValidationError as error:
            for complaint in error.errors(include_url=False):
                path: Path_ = tuple(complaint["loc"])
                if complaint["type"] == "string_type" and path in self.words:
                    _put(values, path, self.words[path])
                elif complaint["input"] is None and path[0] in _MAY_BE_EMPTY and isinstance(path[-1], str):
                    _drop(values, path)
        try:
            return shape.model_validate(values)
        except ValidationError as error:
            raise self.translate(error) from None

    def translate(self, error: ValidationError) -> ConfigError:
        """The first of pydantic's complaints, in our words and with its line."""
        complaints = error.errors(include_url=False)
        complaint = next((c for c in complaints if c["type"] == "extra_forbidden"), complaints[0])
        path: Path_ = tuple(complaint["loc"])
        where = ".".join(str(step) for step in path)
        if complaint["type"] == "extra_forbidden":
            key = str(path[-1])
            if len(path) == 1 and key in BY_NAME:
                return self.error(path, f'unknown key "{where}"; indent it, below {OWN_SECTION}: as its section')
            return self.error(path, f'unknown key "{where}"{_meant(key, _known_keys(path[:-1]))}')
        if complaint["type"] == "missing":
            return self.error(path, f'"{where}" is missing')
        expected = _EXPECTED.get(complaint["type"])
        message = f"expected {expected}" if expected else complaint["msg"].removeprefix("Value error, ")
        return self.error(path, f"{where}: {message[0].lower()}{message[1:]}")

    def warnings(self, parsed: BaseModel) -> Iterator[str]:
        """One sentence for each Prometheus key that is set and not acted on, however often it occurs."""
        seen: set[str] = set()
        for path in _given(parsed, ()):
            key = ".".join(path)
            if path in ACTED_ON or key in seen:
                continue
            seen.add(key)
            hint = _HINT if path[0] in ("scrape_configs", "grpc_poll_configs") and key.endswith("_sd_configs") else ""
            yield f"{self.name}:{self._line_of(path)}: {key} is not acted on yet and changes nothing{hint}"

    def _line_of(self, path: tuple[str, ...]) -> int:
        """The first line of a key, whatever the positions in the lists on its way."""
        return min(
            (line for full, line in self.lines.items() if tuple(s for s in full if isinstance(s, str)) == path),
            default=1,
        )


def _put(values: Any, path: Path_, value: str) -> None:
    _holder(values, path)[path[-1]] = value


def _drop(values: Any, path: Path_) -> None:
    _holder(values, path).pop(path[-1], None)


def _holder(values: Any, path: Path_) -> Any:
    """The mapping or list in which the value at a path is."""
    for step in path[:-1]:
        values = values[step]
    return values


_MAY_BE_EMPTY = frozenset({"global", "scrape_configs", "remote_write"})
"""Sections in which a key may stand without a value, as in Prometheus. In ours such a key is a mistake."""

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
"""What pydantic calls a wrong type, in words of YAML."""


def _given(section: BaseModel, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Paths of what was set: a list or mapping of values counts as one key, sections are looked into."""
    for name in section.model_fields_set:
        value = getattr(section, name)
        here = (*path, type(section).model_fields[name].alias or name)
        if here in ACTED_ON and isinstance(value, BaseModel):
            yield here
        elif isinstance(value, BaseModel):
            yield from _given(value, here)
        elif here in _LOOKED_INTO and isinstance(value, list):
            for item in value:
                yield from _given(item, here)
        elif value is not None:
            yield here


def _known_keys(path: Path_) -> list[str]:
    """Keys of the section at `path`, for suggestions."""
    model: Any = PrometheusConfig
    for step in path:
        if isinstance(step, int):
            continue
        fields = {info.alias or name: info for name, info in model.model_fields.items()}
        if step not in fields:
            return []
        model = _model_in(fields[step].annotation)
        if model is None:
            return []
    names = [info.alias or name for name, info in model.model_fields.items()]
    return [*names, OWN_SECTION] if not path else names


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in getattr(annotation, "__args__", ()) if (found := _model_in(part))), None)


def _meant(key: str, known: Any) -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


_SECRET_WORDS = re.compile(r"password|secret|token|credential|access_key", re.IGNORECASE)
_NO_SECRET = re.compile(r"[_-](file|seconds)")
_URL_PASSWORD = re.compile(r"(://[^/@:\s]*:)[^/\s]*@")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_URL_VALUE = re.compile(r"(?<=[?&])([^=&#\s]+=)[^&#\s]+")
"""Of a parameter: keys of services stand there, under any name. The log leaves all of them out, too."""


def _shown(raw: Any, parsed: Any, key: str = "") -> Any:
    """What was written, with secrets hidden: those the model knows as such, and whatever is named like one."""
    named_so = isinstance(raw, str | int | float) and _SECRET_WORDS.search(key) and not _NO_SECRET.search(key)
    if isinstance(parsed, SecretStr) or named_so:
        return "<secret>"
    if isinstance(raw, dict):
        if isinstance(parsed, BaseModel):
            names = {info.alias or name: name for name, info in type(parsed).model_fields.items()}
            return {word: _shown(value, getattr(parsed, names[word]), word) for word, value in raw.items()}
        items = parsed if isinstance(parsed, dict) else {}
        return {word: _shown(value, items.get(word), str(word)) for word, value in raw.items()}
    if isinstance(raw, list):
        items_ = parsed if isinstance(parsed, list) and len(parsed) == len(raw) else [None] * len(raw)
        return [_shown(value, item, key) for value, item in zip(raw, items_, strict=True)]
    if isinstance(raw, str):
        shown = _URL_PASSWORD.sub(r"\1<secret>@", raw)
        return _URL_VALUE.sub(r"\1<secret>", shown) if _URL.match(shown) else shown
    return raw
