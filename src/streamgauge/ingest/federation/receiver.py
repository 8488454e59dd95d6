"""All that becomes of pushes, whichever way they come, from one reload of the configuration to the next."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping

from streamgauge.auth.cluster_authority import ClusterIdentity
from streamgauge.clock import Clock
from streamgauge.ingest.admission import InFlight, Limits
from streamgauge.ingest.federation.liveness import Liveness
from streamgauge.ingest.federation.markers import Markers
from streamgauge.ingest.federation.pushes import Described
from streamgauge.ingest.federation.receives import Received, Receives
from streamgauge.ingest.federation.recovery import Recovery
from streamgauge.ingest.federation.settings import PushSettings
from streamgauge.ingest.federation.stats import PushStats
from streamgauge.ingest.federation.uploads import Uploads
from streamgauge.ingest.turns import Turns
from streamgauge.model.sink import Done, Sink
from streamgauge.stats import Reading, Stats


class PushReceiver:
    """One for a server; used on the event loop. A reload that changes nothing of pushes leaves what is known of them,
    and any other leaves which series are live."""

    def __init__(
        self,
        sink: Sink,
        stats: Stats,
        clock: Clock,
        inflight: InFlight,
        turns: Turns,
        settings: PushSettings,
        limits: Limits | None = None,
        described: Described = lambda metric: False,
    ) -> None:
        """Raises ConfigError for settings that cannot be."""
        self._described = described
        self._sink = sink
        self._stats = PushStats(stats)
        self._clock = clock
        self._inflight = inflight
        self._turns = turns
        self._limits = limits
        self._settings = settings
        self.liveness = Liveness()
        self.markers = Markers(sink, clock, self.liveness, settings.ttl, self._stats)
        self._uploads, self._receives = self._made(settings)

    def apply(self, settings: PushSettings) -> None:
        """Go by other settings from now on. Raises ConfigError, and then nothing has changed."""
        if settings != self._settings:
            self._uploads, self._receives = self._made(settings)
            self._settings = settings
            self.markers.ttl = settings.ttl

    def _made(self, settings: PushSettings) -> tuple[Uploads, Receives]:
        shared = (self._sink, self._stats, self._clock, self._inflight, self._turns, self.liveness)
        uploads = Uploads(*shared, self.markers, settings, self._described, self._limits)
        return uploads, Receives(*shared, settings, self._described, self._limits)

    async def upload(self, identity: ClusterIdentity, headers: Mapping[str, str], body: AsyncIterator[bytes]) -> None:
        """As `Uploads.receive`."""
        await self._uploads.receive(identity, headers, body)

    def begin_upload(self, identity: ClusterIdentity, headers: Mapping[str, str], body: bytes, done: Done) -> bool:
        """As `Repeats.begin`."""
        return self._uploads.repeats.begin(identity, headers, body, done)

    async def receive(
        self, identity: ClusterIdentity, headers: Mapping[str, str], body: AsyncIterator[bytes]
    ) -> Mapping[str, str]:
        """As `Receives.receive`."""
        return await self._receives.receive(identity, headers, body)

    def begin_receive(self, identity: ClusterIdentity, headers: Mapping[str, str], body: bytes, done: Received) -> bool:
        """As `Receives.begin`."""
        return self._receives.begin(identity, headers, body, done)

    async def recover(self, text: AsyncIterator[bytes]) -> int:
        """Find again what was live at the last stop; how many series. text: the latest sample of each pushed series."""
        recovery = Recovery(self._settings.partition_label, self._sink, self.liveness, self._clock, self._turns)
        return await recovery.run(text)

    def readings(self) -> Iterable[Reading]:
        cache = self._uploads.cache_bytes + self._receives.cache_bytes
        yield Reading.of("streamgauge_push_clusters", "gauge", "Clusters that push.", len(self.liveness))
        yield Reading.of("streamgauge_push_live_series", "gauge", "Pushed series that live.", self.liveness.series)
        yield Reading.of("streamgauge_push_cache_bytes", "gauge", "Memory that is held of clusters' pushes.", cache)
