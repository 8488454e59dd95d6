"""Who may come in, as the configuration file says it. Secrets are kept out of every `repr`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from streamgauge.auth.identity import Permission

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody may do. bound: labels, in order of their names."""

    permissions: frozenset[Permission]
    bound: Labels = ()


@dataclass(frozen=True, slots=True)
class TokenRule:
    """digest: SHA-256 of the token's text."""

    name: str
    digest: bytes = field(repr=False)
    grant: Grant


@dataclass(frozen=True, slots=True)
class UserRule:
    """hash: of the password, by bcrypt."""

    name: str
    hash: str = field(repr=False)
    grant: Grant


@dataclass(frozen=True, slots=True)
class CertificateRule:
    """Of the client's certificate either the whole subject, as RFC 4514 writes it, or its common name must be this."""

    grant: Grant
    subject: str = ""
    common_name: str = ""


@dataclass(frozen=True, slots=True)
class IssuerRule:
    """Tokens of one issuer. Where its keys are: `jwks_url`, `jwks_file`, or what its own discovery document says.

    name_claim: which claim is the name. scopes_claim: which holds words, each of which permits what `scopes` says.
    grant: what everybody is permitted who has a good token. labels: which labels the values of which claims become.
    """

    issuer: str
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...]
    grant: Grant
    jwks_url: str = ""
    jwks_file: str = ""
    ca_file: str = ""
    name_claim: str = "sub"
    scopes_claim: str = "scope"
    scopes: Mapping[str, frozenset[Permission]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuthRules:
    """Everything of the section `auth:`. There being one is enough for everybody to be asked who they are."""

    tokens: tuple[TokenRule, ...] = ()
    users: tuple[UserRule, ...] = ()
    certificates: tuple[CertificateRule, ...] = ()
    issuers: tuple[IssuerRule, ...] = ()
