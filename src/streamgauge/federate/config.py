"""What the flags and the configuration file of `streamgauge federate` come to.

Files that are named there are read when this is made: at the start and at each reload. Tokens are read again when they
are used, so that one that is renewed needs no reload.
"""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from streamgauge.durations import parse_duration, parse_size
from streamgauge.errors import BadInput, ConfigError
from streamgauge.federate.flags import BY_NAME, FLAGS
from streamgauge.federate.transforms import Transforms
from streamgauge.http.addresses import is_loopback
from streamgauge.http.options import HttpOptions, Secret, Tls, TlsContexts

Values = Mapping[str, Sequence[str]]
"""Values of flags by name, those that are given alone."""

DEFAULT_LISTEN = BY_NAME["listen"].default
MAX_INTERVAL_MS = 86_400_000
"""Of a day: older samples are dropped before they are pushed."""
LEVELS = {"debug": "debug", "info": "info", "warn": "warning", "warning": "warning", "error": "error"}


@dataclass(frozen=True, slots=True)
class FederateConfig:
    """source: URL to scrape, without parameters. interval: ms. buffer: a folder; "" for the usual one, None for none.
    buffer_bytes: of its files. listen: host:port, "" for nowhere. warnings: for the log."""

    source: str
    rules: tuple[str, ...]
    source_http: HttpOptions
    authorize: str
    upload: str
    target_http: HttpOptions
    token: Secret
    transforms: Transforms
    interval: int
    limit_bytes: int
    buffer: str | None
    buffer_bytes: int
    listen: str
    log_level: str
    warnings: tuple[str, ...] = ()

    @property
    def interval_seconds(self) -> float:
        return self.interval / 1000


def make_config(values: Values) -> FederateConfig:
    """Raises ConfigError for what cannot work, and for files that cannot be read."""
    given = _Given(values)
    if not given.text("from"):
        raise ConfigError("--from is missing: the Prometheus to take samples from, such as http://127.0.0.1:9090")
    authorize, upload = _target_urls(given)
    token = given.secret("to-token")
    if not token.read():
        raise ConfigError("--to-token or --to-token-file is missing: the token that is exchanged for an access token")
    salt = given.secret("anonymize-salt").read()
    hashed = frozenset(given.texts("anonymize-labels"))
    if hashed and not salt:
        raise ConfigError("--anonymize-labels needs --anonymize-salt or --anonymize-salt-file: hashes can be guessed")
    return FederateConfig(
        source=_source_url(given.text("from")),
        rules=_rules(given),
        source_http=_source_http(given),
        authorize=authorize,
        upload=upload,
        target_http=HttpOptions(tls=_tls(given, "to-ca-file", "to-cert-file", "to-key-file"), proxies=True),
        token=token,
        transforms=Transforms(given.pairs("label"), given.pairs("rename"), hashed, salt),
        interval=_interval(given.text("interval")),
        limit_bytes=_size(given.text("limit-bytes"), "limit-bytes"),
        buffer=None if given.text("buffer") == "0" else given.text("buffer"),
        buffer_bytes=_size(given.text("buffer-bytes"), "buffer-bytes"),
        listen=_listen(given.text("listen"), given.switch("insecure")),
        log_level="debug" if given.switch("verbose") else _level(given.text("log-level")),
        warnings=tuple(_warnings(given, bool(hashed))),
    )


class _Given:
    """Values of flags, or their defaults."""

    def __init__(self, values: Values) -> None:
        for name in values:
            assert name in BY_NAME, name
        self.values = values

    def text(self, name: str) -> str:
        """The last of them, as a command line has it."""
        return self.values[name][-1] if self.values.get(name) else BY_NAME[name].default

    def texts(self, name: str) -> list[str]:
        flag = BY_NAME[name]
        values = self.values.get(name) or ([flag.default] if flag.default else [])
        if not flag.commas:
            return list(values)
        return [word for row in csv.reader(values) for word in row if word]

    def switch(self, name: str) -> bool:
        return bool(self.values.get(name)) and self.values[name][-1] != "false"

    def secret(self, name: str) -> Secret:
        """The text that is given, or else that of the file."""
        text, file = self.text(name), self.text(f"{name}-file")
        return Secret(text=text) if text else Secret(file=file)

    def pairs(self, name: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for word in self.texts(name):
            key, equals, value = word.partition("=")
            if not equals:
                raise ConfigError(f"--{name} {word} is not of the form {BY_NAME[name].metavar}")
            found[key] = value
        return found


def _source_url(text: str) -> str:
    parts = _url(text, "from")
    return parts._replace(path=parts.path.rstrip("/") or "/federate", query="", fragment="").geturl()


def _source_http(given: _Given) -> HttpOptions:
    tls = _tls(given, "from-ca-file", "tls-cert-file", "tls-private-key-file")
    return HttpOptions(scheme="Bearer", credentials=_checked(given.secret("from-token")), tls=tls)


def _checked(secret: Secret) -> Secret:
    """Raises ConfigError when it cannot be read."""
    return secret if secret.read() else Secret()


def _tls(given: _Given, ca: str, cert: str, key: str) -> Tls:
    """Of the files that flags of these names name. Raises ConfigError for what is no certificate or key."""
    if bool(given.text(cert)) != bool(given.text(key)):
        raise ConfigError(f"--{cert} and --{key} belong together")
    first, second, third = (Secret(file=given.text(name)) for name in (ca, cert, key))
    tls = Tls(first, second, third, system_roots=True)
    if tls.ca or tls.cert:
        TlsContexts(tls).get()
    return tls


def _target_urls(given: _Given) -> tuple[str, str]:
    """Where to authorise and to upload: as --to-auth and --to-upload say, else below --to."""
    authorize, upload, to = (given.text(name) for name in ("to-auth", "to-upload", "to"))
    if not to and not (authorize and upload):
        raise ConfigError("--to is missing: the server to push to; or give both --to-auth and --to-upload")
    for text, name in ((authorize, "to-auth"), (upload, "to-upload")):
        if text:
            _url(text, name)
    if to:
        parts = _url(to, "to")
        if not authorize:
            fields = parse_qsl(parts.query, keep_blank_values=True)
            fields += [("id", given.text("id"))] if given.text("id") else []
            authorize = _below(parts, "authorize")._replace(query=urlencode(fields)).geturl()
        upload = upload or _below(parts, "upload").geturl()
    return authorize, upload


def _below(parts: SplitResult, name: str) -> SplitResult:
    return parts._replace(path=posixpath.normpath(posixpath.join("/", parts.path, name)), fragment="")


def _url(text: str, name: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"--{name} is no http or https URL")  # which may hold a password, so it is not repeated
    return parts


def _rules(given: _Given) -> tuple[str, ...]:
    rules = given.texts("match")
    file = given.text("match-file")
    if file:
        try:
            rules += Path(file).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--match-file {file} cannot be read: {error}") from None
    return tuple(rule.strip() for rule in rules if rule.strip())


def _interval(text: str) -> int:
    try:
        interval = parse_duration(text) or parse_duration(BY_NAME["interval"].default)
    except BadInput as error:
        raise ConfigError(f"--interval: {error.message}") from None
    if interval > MAX_INTERVAL_MS:
        raise ConfigError("--interval is longer than a day, after which samples are too old to be pushed")
    return interval


def _size(text: str, name: str) -> int:
    try:
        size = parse_size(text)
    except BadInput as error:
        raise ConfigError(f"--{name}: {error.message}") from None
    if size == 0:
        raise ConfigError(f"--{name} must be at least 1 byte")
    return size


def _listen(text: str, insecure: bool) -> str:
    if not text:
        return ""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f"--listen {text} is not of the form HOST:PORT")
    if not insecure and not is_loopback(host.strip("[]")):
        raise ConfigError(
            f"--listen {text} can be reached from other machines, and everybody may read there what was sent: "
            "listen on localhost, or add --insecure"
        )
    return text


def _level(text: str) -> str:
    if text.lower() not in LEVELS:
        raise ConfigError(f"--log-level {text} is none of debug, info, warn, error")
    return LEVELS[text.lower()]


def _warnings(given: _Given, hashed: bool) -> list[str]:
    warnings = []
    ignored = [f"--{flag.name}" for flag in FLAGS if flag.ignored and flag.name in given.values]
    if ignored:
        warnings.append(f"{', '.join(ignored)}: traces are not sent; these have no effect")
    if given.text("to") and not given.text("to-auth") and not given.text("id") and "id=" not in given.text("to"):
        warnings.append("--id is missing: servers give no access token without the id of a cluster")
    if not hashed:
        warnings.append("no labels are anonymised: --anonymize-labels names those whose values are to be hashed")
    return warnings
