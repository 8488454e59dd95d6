"""What the section `federation:` of the configuration asks of a server that runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from streamgauge.auth.authority_stats import AuthorityStats
from streamgauge.clock import Clock
from streamgauge.errors import NotFound
from streamgauge.http.client import Resolver
from streamgauge.ingest.federation.settings import PushSettings
from streamgauge.stats import Stats

if TYPE_CHECKING:
    from streamgauge.auth.cluster_access import ClusterAccess
    from streamgauge.federation_config import FederationConfig
    from streamgauge.push_access import PushAccess

LOG = logging.getLogger(__name__)


class Federation:
    """Who may push, and what becomes of it, from one reload to the next. `close` it."""

    def __init__(self, data: Path, clock: Clock, stats: Stats, insecure: bool) -> None:
        self._data = data
        self._clock = clock
        self._stats = AuthorityStats(stats)
        self._insecure = insecure
        self._resolver = Resolver()
        self._opened: PushAccess | None = None
        self.pushes = PushSettings()

    @property
    def access(self) -> ClusterAccess:
        """Raises NotFound without the section."""
        if self._opened is None:
            raise NotFound("nobody pushes to this server: its configuration has no section federation:")
        return self._opened.access

    def apply(self, config: FederationConfig | None) -> None:
        """Go by another configuration from now on. Raises StorageError when a key cannot be kept; then nothing has
        changed."""
        opened = None if config is None else self._open(config)
        self._close_access()
        self._opened = opened
        self.pushes = PushSettings() if config is None else config.pushes
        if config is not None and not config.pushes.whitelist:
            LOG.warning(
                "federation: nothing that is pushed passes: the whitelist is empty; {} in it lets everything pass"
            )

    def close(self) -> None:
        self._close_access()
        self._resolver.close()

    def _close_access(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _open(self, config: FederationConfig) -> PushAccess:
        # Imported only here: what signs tokens takes a twentieth of the time of a start, and most servers sign none.
        from streamgauge.push_access import open_access

        return open_access(
            config.authority, self._data, self._clock, self._stats, self._resolver, insecure=self._insecure
        )
