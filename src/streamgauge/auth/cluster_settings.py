"""The part of the `federation:` section that says whose pushes are trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamgauge.auth.client_info import ClientInfo
from streamgauge.http.options import Secret

if TYPE_CHECKING:
    from streamgauge.auth.signing_keys import SigningKey

DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class PushToken:
    """A token that may ask for cluster tokens without anybody else being asked. sha256: hexadecimal, of the token.
    clusters: the ids it may name; any, when there are none."""

    name: str
    sha256: str
    clusters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Oidc:
    """Where a token for the upstream comes from, by the client-credentials grant."""

    issuer: str
    client_id: str
    client_secret: Secret = field(default_factory=Secret)
    audience: str = ""


@dataclass(frozen=True, slots=True)
class AuthoritySettings:
    """keys: the first signs, all are accepted; without any, one is made and kept in the data folder. upstream: URL of
    who is asked whether a token may speak for a cluster; "" for nobody. cache_ms: how long its assent to a remote write
    is kept in memory; 0 asks each time. The other times are seconds. client_info: how a proxy in front says which
    cluster a remote write comes from. certificates: whether the common name of a client's certificate says so.
    """

    partition_label: str = "_id"
    required_labels: tuple[tuple[str, str], ...] = ()
    expire_seconds: int = DAY_SECONDS
    keys: tuple[SigningKey, ...] = ()
    upstream: str = ""
    oidc: Oidc | None = None
    push_tokens: Sequence[PushToken] = field(default=())
    cache_ms: int = 300_000
    memcached: tuple[tuple[str, int], ...] = ()
    memcached_expire: int = DAY_SECONDS
    memcached_interval: int = 10
    client_info: ClientInfo | None = None
    certificates: bool = False
