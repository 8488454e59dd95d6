"""Makes what decides who may push of its settings: keys, who is asked, and what remembers their answers."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from streamgauge.auth.answer_cache import AnswerCache
from streamgauge.auth.authority_stats import AuthorityStats
from streamgauge.auth.cluster_access import ClusterAccess
from streamgauge.auth.cluster_settings import AuthoritySettings
from streamgauge.auth.memcached import Memcached
from streamgauge.auth.oidc import OidcTokens
from streamgauge.auth.push_authorizer import Anybody, LocalTokens, Nobody, PushAuthorizer
from streamgauge.auth.signing_keys import MAX_KEY_BYTES, SigningKey, generate_key, read_key
from streamgauge.auth.upstream import Upstream, read_assent
from streamgauge.clock import Clock
from streamgauge.errors import ConfigError, Corrupt
from streamgauge.http.client import Resolver
from streamgauge.store import fs
from streamgauge.store.names import cluster_key_file

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PushAccess:
    """`close` it."""

    access: ClusterAccess
    upstream: Upstream | None

    def close(self) -> None:
        if self.upstream is not None:
            self.upstream.close()


def open_access(
    settings: AuthoritySettings,
    data: Path,
    clock: Clock,
    stats: AuthorityStats,
    resolver: Resolver,
    *,
    insecure: bool,
) -> PushAccess:
    """`insecure`: whether everybody may push where nothing says who may. Raises StorageError when a key that is made
    cannot be kept."""
    keys = settings.keys or (kept_key(data),)
    upstream = _upstream(settings, clock, stats, resolver) if settings.upstream else None
    authorizer = _authorizer(settings, upstream, insecure)
    return PushAccess(ClusterAccess(settings, keys, authorizer, clock, stats), upstream)


def _authorizer(settings: AuthoritySettings, upstream: Upstream | None, insecure: bool) -> PushAuthorizer:
    if settings.push_tokens:
        return LocalTokens(settings.push_tokens, upstream)
    if upstream is not None:
        return upstream
    if insecure:
        LOG.warning("federation: everybody may push for every cluster, as nobody is asked and the server is insecure")
        return Anybody()
    if settings.client_info is None and not settings.certificates:
        LOG.warning(
            "federation: nobody may push: there are neither push-tokens nor authorize, who is asked whether a token "
            "may speak for a cluster"
        )
    return Nobody()


def _upstream(settings: AuthoritySettings, clock: Clock, stats: AuthorityStats, resolver: Resolver) -> Upstream:
    shared = None
    if settings.memcached:
        shared = Memcached(settings.memcached, settings.memcached_expire, settings.memcached_interval, resolver, clock)
    cache = AnswerCache(read_assent, clock, stats, settings.cache_ms, shared)
    tokens = OidcTokens(settings.oidc, resolver, clock) if settings.oidc is not None else None
    return Upstream(settings.upstream, resolver, cache, clock, stats, tokens)


def kept_key(data: Path) -> SigningKey:
    """The key in the data folder, made if there is none: tokens outlive a restart. Raises StorageError."""
    path = cluster_key_file(data)
    try:
        content, lost = fs.read_file(path, MAX_KEY_BYTES)
        if lost:
            raise Corrupt(f"{path} cannot be read from the disk")
        return read_key(bytes(content), str(path))
    except FileNotFoundError:
        LOG.info("made a key that signs cluster tokens: %s", path)
    except (Corrupt, ConfigError) as error:
        LOG.error("%s", fs.set_aside(path, data, error.message).what)
    made = generate_key()
    fs.write_atomically(path, made, 0o600)
    return read_key(made, str(path))
