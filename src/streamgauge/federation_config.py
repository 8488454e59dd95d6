"""The shape of the section `federation:`: the reference's flags, without the dashes in front of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr

from streamgauge.auth.client_info import MAX_FILE_BYTES, ClientInfo, read_client_info
from streamgauge.auth.cluster_settings import AuthoritySettings, Oidc, PushToken
from streamgauge.durations import parse_duration, parse_size
from streamgauge.errors import BadInput, ConfigError
from streamgauge.http.options import Secret
from streamgauge.ingest.federation.settings import PushSettings

if TYPE_CHECKING:
    from streamgauge.auth.signing_keys import SigningKey
    from streamgauge.model.source import Matcher

MIN_TOKEN = 16
"""Characters of a push token. A shorter one can be guessed by trying."""
MAX_COUNT = 1 << 40
SECTION = "federation"

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SERVER = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\[\]:/\s]+):(?P<port>\d{1,5})", re.ASCII)
_PLACE = re.compile(r"\d+:\d+: (?:parse error: )?")
_DEMAND = '__any__!=""'

_Place = tuple[str | int, ...]
Complain = Callable[[_Place, str], ConfigError]
"""Makes the error that names the line of a place in the file."""


def _listed(value: object) -> object:
    """One value stands for a list of one."""
    return [value] if isinstance(value, str) else value


Texts = Annotated[list[str], BeforeValidator(_listed)]


def _pairs(value: object) -> object:
    """A mapping, or texts NAME=VALUE, several of which may stand in one, divided by commas."""
    texts = _listed(value)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return value
    pairs: dict[str, str] = {}
    for part in ",".join(texts).split(","):
        name, equals, text = part.partition("=")
        if not equals:
            raise ValueError(f'"{part}" is no label; write NAME=VALUE')
        pairs[name.strip()] = text
    return pairs


Labels = Annotated[dict[str, str], BeforeValidator(_pairs)]


class _Section(BaseModel):
    """Numbers are texts here: what stands in the file is taken as it is written, and read below."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, alias_generator=lambda name: name.replace("_", "-")
    )


class PushTokenSection(_Section):
    name: str
    sha256: SecretStr | None = None
    file: str | None = None
    clusters: Texts | None = None


class FederationSection(_Section):
    partition_label: str = "_id"
    label: Labels | None = None
    required_label: Labels | None = None
    elide_label: Texts | None = None
    whitelist: Texts | None = None
    whitelist_file: str | None = None
    ratelimit: str | None = None
    burst: str | None = None
    receive_ratelimit: str | None = None
    receive_burst: str | None = None
    limit_receive_content_bytes: str | None = None
    limit_bytes: str | None = None
    limit_receive_bytes: str | None = None
    max_series: str | None = None
    max_clusters: str | None = None
    overwrite_timestamps: bool = False
    ttl: str | None = None
    shared_key: str | None = None
    shared_keys: Texts | None = None
    token_expire_seconds: str | None = None
    push_tokens: list[PushTokenSection] | None = None
    authorize: str | None = None
    authorize_cache: str | None = None
    oidc_issuer: str | None = None
    client_id: str | None = None
    client_secret: SecretStr | None = None
    client_secret_file: str | None = None
    oidc_audience: str | None = None
    memcached: Texts | None = None
    memcached_expire: str | None = None
    memcached_interval: str | None = None
    client_info_data_file: str | None = None
    client_info_subject_label: str | None = None
    client_certificates: bool = False
    tenant_id: str | None = None
    tenant_key: str | None = None


WITHOUT_EFFECT = frozenset({"tenant-id", "tenant-key"})
"""Keys that the reference's destination needs and this server's own store does not."""


@dataclass(frozen=True, slots=True)
class FederationConfig:
    """The section, read."""

    pushes: PushSettings
    authority: AuthoritySettings


def acted_on() -> Iterator[str]:
    """Those that change something."""
    for name in FederationSection.model_fields:
        if (key := name.replace("_", "-")) not in WITHOUT_EFFECT:
            yield key


def federation(section: FederationSection | None, folder: Path, complain: Complain) -> FederationConfig | None:
    """What the section says; paths are relative to `folder`. Raises ConfigError."""
    if section is None:
        return None
    reader = _Reader(section, folder, complain)
    return FederationConfig(reader.pushes(), reader.authority())


class _Reader:
    """Makes settings of the section. What it raises names the key's line."""

    def __init__(self, section: FederationSection, folder: Path, complain: Complain) -> None:
        self._section = section
        self._folder = folder
        self._complain = complain

    def _error(self, key: str, message: str, *place: str | int) -> ConfigError:
        path = (SECTION, key, *place)
        return self._complain(path, f"{'.'.join(map(str, path))}: {message}")

    def pushes(self) -> PushSettings:
        section, default = self._section, PushSettings()
        return PushSettings(
            partition_label=self._label_name("partition-label", section.partition_label),
            labels=self._labels("label", section.label),
            elide_labels=tuple(self._label_name("elide-label", each) for each in section.elide_label or ()),
            whitelist=tuple(self._whitelist()),
            ratelimit=self._read("ratelimit", section.ratelimit, parse_duration, default.ratelimit),
            burst=self._read("burst", section.burst, _count(1), default.burst),
            receive_ratelimit=self._read(
                "receive-ratelimit", section.receive_ratelimit, parse_duration, default.receive_ratelimit
            ),
            receive_burst=self._read("receive-burst", section.receive_burst, _count(1), default.receive_burst),
            limit_receive_content_bytes=self._read(
                "limit-receive-content-bytes",
                section.limit_receive_content_bytes,
                parse_size,
                default.limit_receive_content_bytes,
            ),
            limit_bytes=self._read("limit-bytes", section.limit_bytes, parse_size, default.limit_bytes),
            limit_receive_bytes=self._read(
                "limit-receive-bytes", section.limit_receive_bytes, parse_size, default.limit_receive_bytes
            ),
            max_series=self._read("max-series", section.max_series, _count(0), default.max_series),
            max_clusters=self._read("max-clusters", section.max_clusters, _count(1), default.max_clusters),
            overwrite_timestamps=section.overwrite_timestamps,
            ttl=self._read("ttl", section.ttl, _some_time, default.ttl),
        )

    def authority(self) -> AuthoritySettings:
        section, default = self._section, AuthoritySettings()
        return AuthoritySettings(
            partition_label=section.partition_label,
            required_labels=self._labels("required-label", section.required_label),
            expire_seconds=self._read(
                "token-expire-seconds", section.token_expire_seconds, _count(1), default.expire_seconds
            ),
            keys=self._keys(),
            upstream=self._url("authorize", section.authorize),
            oidc=self._oidc(),
            push_tokens=tuple(self._push_tokens()),
            cache_ms=self._read("authorize-cache", section.authorize_cache, parse_duration, default.cache_ms),
            client_info=self._client_info(),
            certificates=section.client_certificates,
            memcached=tuple(self._servers()),
            memcached_expire=self._read(
                "memcached-expire", section.memcached_expire, _count(0, 30 * 86_400), default.memcached_expire
            ),
            memcached_interval=self._read(
                "memcached-interval", section.memcached_interval, _count(0), default.memcached_interval
            ),
        )

    def _read(self, key: str, text: str | None, parse: Callable[[str], int], default: int) -> int:
        try:
            return default if text is None else parse(text)
        except BadInput as error:
            raise self._error(key, error.message) from None

    def _label_name(self, key: str, name: str) -> str:
        if not _LABEL.fullmatch(name) or name == "__name__":
            raise self._error(key, f'"{name}" is no label name; write letters, digits and underscores')
        return name

    def _labels(self, key: str, given: dict[str, str] | None) -> tuple[tuple[str, str], ...]:
        return tuple(sorted((self._label_name(key, name), value) for name, value in (given or {}).items()))

    def _whitelist(self) -> Iterator[tuple[Matcher, ...]]:
        for number, text in enumerate(self._section.whitelist or ()):
            if text.strip():
                yield self._selector("whitelist", text.strip(), f"whitelist.{number}")
        if self._section.whitelist_file:
            path = self._folder / self._section.whitelist_file
            for line, text in enumerate(self._file("whitelist-file", path).splitlines(), 1):
                if text.strip():
                    yield self._selector("whitelist-file", text.strip(), f"line {line} of {path}")

    def _selector(self, key: str, text: str, where: str) -> tuple[Matcher, ...]:
        try:
            return parse_rule(text)
        except BadInput as error:
            raise self._error(key, f"{where}: {text[:200]}: {error.message}") from None

    def _file(self, key: str, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise self._error(key, f"{path} cannot be read: {reason}") from None

    def _keys(self) -> tuple[SigningKey, ...]:
        section = self._section
        if section.shared_key is not None and section.shared_keys is not None:
            raise self._error("shared-keys", "give shared-key or shared-keys, not both")
        if section.shared_keys is not None:
            return tuple(self._signing_key("shared-keys", file) for file in section.shared_keys)
        return (self._signing_key("shared-key", section.shared_key),) if section.shared_key else ()

    def _signing_key(self, key: str, file: str) -> SigningKey:
        # Imported only here: it takes a tenth of a second, and the key is made where none is named.
        from streamgauge.auth.signing_keys import MAX_KEY_BYTES, read_key

        path = self._folder / file
        try:
            with path.open("rb") as opened:
                return read_key(opened.read(MAX_KEY_BYTES), str(path))
        except OSError as error:
            raise self._error(key, f"{path} cannot be read: {error.strerror}") from None
        except ConfigError as error:
            raise self._error(key, error.message) from None

    def _url(self, key: str, url: str | None) -> str:
        if url and not url.startswith(("http://", "https://")):
            raise self._error(key, "expected a URL that begins with http:// or https://")
        return url or ""

    def _oidc(self) -> Oidc | None:
        section = self._section
        given = (section.client_id, section.client_secret, section.client_secret_file, section.oidc_audience)
        if not section.oidc_issuer:
            if any(each is not None for each in given):
                raise self._error("oidc-issuer", "is missing: client-id and the like are of its tokens")
            return None
        if not section.client_id:
            raise self._error("client-id", "is missing: the issuer gives its tokens to a client it knows")
        if section.client_secret is not None and section.client_secret_file is not None:
            raise self._error("client-secret-file", "give client-secret or client-secret-file, not both")
        if not section.authorize:
            raise self._error("oidc-issuer", "its tokens are for the upstream; name that in authorize")
        secret = section.client_secret.get_secret_value() if section.client_secret else ""
        file = str(self._folder / section.client_secret_file) if section.client_secret_file else ""
        issuer = self._url("oidc-issuer", section.oidc_issuer)
        return Oidc(issuer, section.client_id, Secret(secret, file), section.oidc_audience or "")

    def _push_tokens(self) -> Iterator[PushToken]:
        seen: set[str] = set()
        sections: Sequence[PushTokenSection] = self._section.push_tokens or ()
        for number, token in enumerate(sections):
            if not token.name or token.name in seen:
                raise self._error("push-tokens", "each token needs a name of its own", number, "name")
            seen.add(token.name)
            if (token.sha256 is None) == (token.file is None):
                raise self._error("push-tokens", "give sha256 or file, one of them", number)
            if token.clusters is not None and not all(token.clusters):
                raise self._error("push-tokens", "a cluster's id must not be empty", number, "clusters")
            yield PushToken(token.name, self._digest(token, number), tuple(token.clusters or ()))

    def _digest(self, token: PushTokenSection, number: int) -> str:
        if token.sha256 is not None:
            digest = token.sha256.get_secret_value().lower()
            if not _SHA256.fullmatch(digest):
                raise self._error("push-tokens", "expected 64 hexadecimal digits", number, "sha256")
            return digest
        assert token.file is not None
        text = self._file("push-tokens", self._folder / token.file).strip()
        if len(text) < MIN_TOKEN:
            raise self._error(
                "push-tokens", f"the token in {token.file} has fewer than {MIN_TOKEN} characters", number, "file"
            )
        return hashlib.sha256(text.encode()).hexdigest()

    def _client_info(self) -> ClientInfo | None:
        section = self._section
        if section.client_info_subject_label not in (None, section.partition_label):
            raise self._error("client-info-subject-label", "the label that names a cluster is partition-label")
        if not section.client_info_data_file:
            return None
        path = self._folder / section.client_info_data_file
        try:
            with path.open("rb") as file:
                return read_client_info(file.read(MAX_FILE_BYTES))
        except OSError as error:
            raise self._error("client-info-data-file", f"{path} cannot be read: {error.strerror}") from None
        except BadInput as error:
            raise self._error("client-info-data-file", f"{path}: {error.message}") from None

    def _servers(self) -> Iterator[tuple[str, int]]:
        for text in self._section.memcached or ():
            for place in filter(None, map(str.strip, text.split(","))):
                match = _SERVER.fullmatch(place)
                if match is None or not 0 < int(match["port"]) < 65_536:
                    raise self._error("memcached", f'"{place}" is no address; write HOST:PORT')
                yield match["host"].strip("[]"), int(match["port"])


def parse_rule(text: str) -> tuple[Matcher, ...]:
    """The matchers of a series selector, which may also match everything, as `{}` does. Raises BadInput."""
    # Imported only here: hardly anybody has rules, and it takes as long to import as the rest of the configuration.
    from streamgauge.query.promql.parser import parse_selector

    # PromQL wants a matcher that demands something: one is put in front, and taken out again.
    before, brace, after = text.partition("{")
    if not brace:
        return parse_selector(text)
    comma = "" if after.lstrip().startswith("}") else ","
    try:
        matchers = parse_selector(f"{before}{{{_DEMAND}{comma}{after}")
    except BadInput as error:
        message = error.message.replace(f"{_DEMAND}{comma}", "")
        raise BadInput(_PLACE.sub("", message, count=1)) from None
    return tuple(each for number, each in enumerate(matchers) if number)


def _count(low: int, high: int = MAX_COUNT) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,15}", text, re.ASCII):
            raise BadInput(f'"{text[:32]}" is not a whole number')
        if not low <= int(text) <= high:
            raise BadInput(f"{text} is not between {low} and {high}")
        return int(text)

    return parse


def _some_time(text: str) -> int:
    if not (time := parse_duration(text)):
        raise BadInput("must be more than 0")
    return time
