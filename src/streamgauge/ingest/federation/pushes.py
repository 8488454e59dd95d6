"""What both ways of pushing share: who may push at this moment, and what is noted of a push that was stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from streamgauge.auth.cluster_authority import ClusterIdentity
from streamgauge.clock import Clock
from streamgauge.errors import ClientError, Forbidden, Overloaded, PushRefused, RateLimited, StreamgaugeError
from streamgauge.ingest.admission import Held, InFlight
from streamgauge.ingest.federation.liveness import Liveness
from streamgauge.ingest.federation.rates import Rate
from streamgauge.ingest.federation.settings import PushSettings
from streamgauge.ingest.federation.stats import UPLOAD, PushStats
from streamgauge.model.arrays import UInt32s
from streamgauge.wire.push_part import Part

Described = Callable[[str], bool]
"""Whether type and help of a metric are known. They are of the whole server, so that no cluster may change them."""

FAULTS_FOR_EACH = 10
"""Refused pushes that a cluster may send for each good one: enough to see what is wrong with them, and a bound on what
they cost."""
_TOO_MANY_WAIT = 60  # seconds until a cluster that finds no room is to come again


@dataclass(frozen=True, slots=True)
class Sender:
    """A cluster that pushes. owner: all labels that its series must have, in order of their names. part: of a scrape,
    that the push is. adds: series without one of these labels get it; else they are refused."""

    cluster: str
    labels: Mapping[str, str]
    owner: tuple[tuple[str, str], ...]
    part: Part = Part.WHOLE
    adds: bool = False


class Admission:
    """Whether a cluster may push by one way, with two buckets: one for what is stored, a wider one for what is refused.
    Both are looked at before the body is read; the first is drawn on once the push is known to be good."""

    def __init__(
        self, clock: Clock, settings: PushSettings, liveness: Liveness, stats: PushStats, way: str = UPLOAD
    ) -> None:
        interval, burst = settings.ratelimit, settings.burst
        if way != UPLOAD:
            interval, burst = settings.receive_ratelimit, settings.receive_burst
        self._settings = settings
        self._liveness = liveness
        self._way = way
        self._requests = stats.shared.ingest_requests
        self._good_requests = self._requests.labels(way, "200")
        self._limited = stats.limited.labels(way)
        self._good = Rate(clock, interval, burst, settings.max_clusters)
        many = FAULTS_FOR_EACH * burst
        self._faults = Rate(clock, max(interval // FAULTS_FOR_EACH, min(interval, 1)), many, settings.max_clusters)

    def sender(self, identity: ClusterIdentity, part: Part = Part.WHOLE) -> Sender:
        """Raises Forbidden for a token that names no cluster, and Overloaded for one more cluster than there may be."""
        label = self._settings.partition_label
        cluster = identity.labels.get(label, "")
        if not cluster:
            raise Forbidden(f"user data must contain a '{label}' label")
        if len(self._liveness) >= self._settings.max_clusters and cluster not in self._liveness:
            raise Overloaded(f"{self._settings.max_clusters} clusters push already, the limit", _TOO_MANY_WAIT)
        return Sender(cluster, identity.labels, identity.owner, part, identity.adds)

    def check(self, cluster: str) -> None:
        """Raises RateLimited."""
        if wait := self._good.wait(cluster):
            raise self._refusal(f'write limit reached for cluster with id "{cluster}"', wait)
        if wait := self._faults.wait(cluster):
            raise self._refusal(f'too many refused pushes of the cluster with id "{cluster}"', wait)

    def welcomes(self, cluster: str) -> bool:
        """Whether `check` would raise nothing."""
        return not self._good.wait(cluster) and not self._faults.wait(cluster)

    @contextmanager
    def receiving(self, identity: ClusterIdentity, inflight: InFlight) -> Iterator[tuple[Sender, Held]]:
        """What a push is received within: who sends it, and the account of what it holds. How it ends is counted.

        Raises RateLimited, and what `sender` raises."""
        status = 200
        try:
            sender = self.sender(identity)
            self.check(sender.cluster)
            with inflight.account() as held:
                try:
                    yield sender, held
                except ClientError:
                    self._faults.spend(sender.cluster)
                    raise
        except StreamgaugeError as error:
            status = error.status
            raise
        finally:
            self.count(status)

    def count(self, status: int) -> None:
        """A push was answered."""
        answered = self._good_requests if status == 200 else self._requests.labels(self._way, str(status))
        answered.inc()

    @contextmanager
    def spending(self, cluster: str) -> Iterator[None]:
        """Draw on the bucket of good pushes; it is given back where what is done within fails. Raises RateLimited."""
        if not self.spend(cluster):
            wait = max(1, self._good.wait(cluster))
            raise self._refusal(f'write limit reached for cluster with id "{cluster}"', wait)
        try:
            yield
        except StreamgaugeError:
            self.give_back(cluster)
            raise

    def spend(self, cluster: str) -> bool:
        """Draw on the bucket of good pushes. False where it is empty."""
        return self._good.spend(cluster)

    def give_back(self, cluster: str) -> None:
        """What was drawn for a push that could not be stored."""
        self._good.give_back(cluster)

    def _refusal(self, message: str, wait: int) -> RateLimited:
        self._limited.inc()
        return RateLimited(message, wait)

    def check_series(self, cluster: str, series: UInt32s, new: int, known: UInt32s) -> None:
        """Raises PushRefused where a push has too many series. series: their ids, ascending, each once, as far as they
        have some; new: how many have none yet; known: those of the cluster that it must be counted with."""
        limit = self._settings.max_series
        if not limit:
            return
        count = new + len(np.union1d(series, known))
        if count > limit:
            raise PushRefused(f'the cluster with id "{cluster}" has {count} series; the limit is {limit}')
