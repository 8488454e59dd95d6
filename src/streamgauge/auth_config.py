"""The shape of the configuration file's section `auth:`, which prometheus.yml does not have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr, model_validator

from streamgauge.auth.rules import AuthRules, CertificateRule, Grant, IssuerRule, TokenRule, UserRule
from streamgauge.auth.tokens import digest_of, parse_bound, parse_scopes, permissions_of
from streamgauge.errors import BadInput, ConfigError
from streamgauge.http.addresses import is_loopback

if TYPE_CHECKING:
    from streamgauge.prometheus_config import PrometheusConfig

MIN_TOKEN_CHARACTERS = 16
"""Of a token in a file. A shorter one could be found by trying."""
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})", re.ASCII)

_Place = tuple[str | int, ...]
Complain = Callable[[_Place, str], ConfigError]
"""Makes the error that names the line of a place in the file."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class GrantSection(_Section):
    scopes: list[str]
    labels: dict[str, str] | None = None


class TokenSection(GrantSection):
    name: str
    hash: SecretStr | None = None
    token_file: str | None = None

    @model_validator(mode="after")
    def _one(self) -> TokenSection:
        if (self.hash is None) == (self.token_file is None):
            raise ValueError("give hash or token_file, one of them")
        return self


class UserSection(GrantSection):
    hash: SecretStr


class CertificateSection(GrantSection):
    subject: str | None = None
    common_name: str | None = None

    @model_validator(mode="after")
    def _one(self) -> CertificateSection:
        if bool(self.subject) == bool(self.common_name):
            raise ValueError("give subject or common_name, one of them")
        return self


class IssuerSection(_Section):
    issuer: str
    audience: str | list[str]
    algorithms: list[str] | None = None
    jwks_url: str | None = None
    jwks_file: str | None = None
    ca_file: str | None = None
    name_claim: str = "sub"
    scopes_claim: str = "scope"
    scopes: dict[str, list[str]] | None = None
    grant: list[str] | None = None
    labels: dict[str, str] | None = None

    @model_validator(mode="after")
    def _whole(self) -> IssuerSection:
        if self.jwks_url is not None and self.jwks_file is not None:
            raise ValueError("give jwks_url or jwks_file, not both; without either the issuer is asked where they are")
        if not self.audience or not self.issuer:
            raise ValueError("issuer and audience must not be empty")
        if not self.scopes and not self.grant:
            raise ValueError("without scopes and grant nobody may do anything")
        return self


class AuthSection(_Section):
    tokens: list[TokenSection] | None = None
    basic_users: dict[str, UserSection] | None = None
    certificates: list[CertificateSection] | None = None
    jwt: list[IssuerSection] | None = None


def auth_rules(parsed: PrometheusConfig, folder: Path, complain: Complain) -> AuthRules | None:
    """Who may come in; None where there is no such section. Paths are relative to `folder`. Raises ConfigError."""
    return None if parsed.auth is None else _Reader(parsed.auth, folder, complain).rules()


class _Reader:
    def __init__(self, section: AuthSection, folder: Path, complain: Complain) -> None:
        self._section = section
        self._folder = folder
        self._complain = complain

    def rules(self) -> AuthRules:
        section = self._section
        return AuthRules(
            tuple(self._token(each, ("auth", "tokens", n)) for n, each in enumerate(section.tokens or ())),
            tuple(self._user(name, each) for name, each in (section.basic_users or {}).items()),
            tuple(
                self._certificate(each, ("auth", "certificates", n))
                for n, each in enumerate(section.certificates or ())
            ),
            tuple(self._issuer(each, ("auth", "jwt", n)) for n, each in enumerate(section.jwt or ())),
        )

    def _error(self, at: _Place, key: str, message: str) -> ConfigError:
        path = (*at, key)
        return self._complain(path, f"{'.'.join(map(str, path))}: {message}")

    def _grant(self, section: GrantSection, at: _Place) -> Grant:
        try:
            permissions = permissions_of(parse_scopes(section.scopes))
        except BadInput as error:
            raise self._error(at, "scopes", error.message) from None
        return Grant(permissions, self._bound(section.labels, at))

    def _bound(self, labels: Mapping[str, str] | None, at: _Place) -> tuple[tuple[str, str], ...]:
        try:
            return parse_bound((labels or {}).items())
        except BadInput as error:
            raise self._error(at, "labels", error.message) from None

    def _token(self, section: TokenSection, at: _Place) -> TokenRule:
        grant = self._grant(section, at)
        if section.token_file is not None:
            return TokenRule(section.name, digest_of(self._token_text(section.token_file, at)), grant)
        assert section.hash is not None
        match = _DIGEST.fullmatch(section.hash.get_secret_value())
        if match is None:
            raise self._error(at, "hash", "expected the SHA-256 of the token, as 64 hexadecimal digits")
        return TokenRule(section.name, bytes.fromhex(match[1]), grant)

    def _token_text(self, name: str, at: _Place) -> str:
        path = self._folder / name
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = (error.strerror or "") if isinstance(error, OSError) else "it is not UTF-8"
            raise self._error(at, "token_file", f"{path} cannot be read: {why}") from None
        if len(text) < MIN_TOKEN_CHARACTERS:
            raise self._error(at, "token_file", f"the token in {path} has less than {MIN_TOKEN_CHARACTERS} characters")
        return text

    def _user(self, name: str, section: UserSection) -> UserRule:
        from streamgauge.auth.passwords import check_hash  # bcrypt is needed by nobody else

        at = ("auth", "basic_users", name)
        if not name or ":" in name:
            raise self._error(at[:2], name, "the name of a user is not empty and has no colon")
        try:
            hashed = check_hash(section.hash.get_secret_value())
        except BadInput as error:
            raise self._error(at, "hash", error.message) from None
        return UserRule(name, hashed, self._grant(section, at))

    def _certificate(self, section: CertificateSection, at: _Place) -> CertificateRule:
        from streamgauge.auth.certificates import parse_subject

        if section.subject:
            try:
                parse_subject(section.subject)
            except BadInput as error:
                raise self._error(at, "subject", error.message) from None
        return CertificateRule(self._grant(section, at), section.subject or "", section.common_name or "")

    def _issuer(self, section: IssuerSection, at: _Place) -> IssuerRule:
        from streamgauge.auth.jwks import ALGORITHMS

        algorithms = tuple(section.algorithms or ("RS256",))
        for word in algorithms:
            if word not in ALGORITHMS:
                raise self._error(at, "algorithms", f'"{word}" is not one of {", ".join(ALGORITHMS)}')
        url = section.jwks_url or ("" if section.jwks_file else section.issuer)
        if url and not is_safe(url):
            key = "jwks_url" if section.jwks_url else "issuer"
            raise self._error(at, key, "keys are fetched by https, or from this machine: others could change them")
        try:
            scopes = {word: permissions_of(parse_scopes(given)) for word, given in (section.scopes or {}).items()}
            granted = permissions_of(parse_scopes(section.grant)) if section.grant else frozenset()
        except BadInput as error:
            raise self._error(at, "scopes" if section.scopes else "grant", error.message) from None
        self._bound(dict.fromkeys(section.labels or {}, "a value"), at)
        audience = section.audience
        return IssuerRule(
            section.issuer,
            (audience,) if isinstance(audience, str) else tuple(audience),
            algorithms,
            Grant(granted),
            section.jwks_url or "",
            str(self._folder / section.jwks_file) if section.jwks_file else "",
            str(self._folder / section.ca_file) if section.ca_file else "",
            section.name_claim,
            section.scopes_claim,
            scopes,
            section.labels or {},
        )


def is_safe(url: str) -> bool:
    """Whether nobody on the way can change what is fetched from a URL."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))
