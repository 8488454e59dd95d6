"""Wires what takes pushes of other clusters together: who may, and what becomes of them."""

from __future__ import annotations

import logging
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
from streamgauge.errors import ConfigError, Corrupt, NotFound
from streamgauge.federation_config import FederationConfig
from streamgauge.http.client import Resolver
from streamgauge.ingest.federation.settings import PushSettings
from streamgauge.stats import Stats
from streamgauge.store import fs
from streamgauge.store.names import cluster_key_file

LOG = logging.getLogger(__name__)


class Federation:
    """What the section `federation:` asks for, from one reload to the next. `close` it."""

    def __init__(self, data: Path, clock: Clock, stats: Stats, insecure: bool) -> None:
        self._data = data
        self._clock = clock
        self._stats = AuthorityStats(stats)
        self._insecure = insecure
        self._resolver = Resolver()
        self._upstream: Upstream | None = None
        self._access: ClusterAccess | None = None
        self.pushes = PushSettings()

    @property
    def access(self) -> ClusterAccess:
        """Raises NotFound without the section."""
        if self._access is None:
            raise NotFound("nobody pushes to this server: its configuration has no section federation:")
        return self._access

    def apply(self, config: FederationConfig | None) -> None:
        """Go by another configuration from now on. Raises StorageError when a key cannot be kept; then nothing has
        changed."""
        keys = (config.authority.keys or (kept_key(self._data),)) if config is not None else ()
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None
        self._access = None
        self.pushes = PushSettings()
        if config is not None:
            authorizer = self._authorizer(config.authority)
            self._access = ClusterAccess(config.authority, keys, authorizer, self._clock, self._stats)
            self.pushes = config.pushes
            _warn(config, authorizer)

    def close(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
        self._resolver.close()

    def _authorizer(self, settings: AuthoritySettings) -> PushAuthorizer:
        if settings.upstream:
            self._upstream = self._upstream_of(settings)
        if settings.push_tokens:
            return LocalTokens(settings.push_tokens, self._upstream)
        if self._upstream is not None:
            return self._upstream
        return Anybody() if self._insecure else Nobody()

    def _upstream_of(self, settings: AuthoritySettings) -> Upstream:
        shared = None
        if settings.memcached:
            shared = Memcached(
                settings.memcached,
                settings.memcached_expire,
                settings.memcached_interval,
                self._resolver,
                self._clock,
            )
        cache = AnswerCache(read_assent, self._clock, self._stats, settings.cache_ms, shared)
        tokens = OidcTokens(settings.oidc, self._resolver, self._clock) if settings.oidc is not None else None
        return Upstream(settings.upstream, self._resolver, cache, self._clock, self._stats, tokens)


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


def _warn(config: FederationConfig, authorizer: PushAuthorizer) -> None:
    if isinstance(authorizer, Nobody):
        LOG.warning(
            "federation: nobody may push: there are neither push-tokens nor authorize, who is asked whether a token "
            "may speak for a cluster"
        )
    if isinstance(authorizer, Anybody):
        LOG.warning("federation: everybody may push for every cluster, as nobody is asked and the server is insecure")
    if not config.pushes.whitelist:
        LOG.warning("federation: nothing that is pushed passes: the whitelist is empty; {} in it lets everything pass")
