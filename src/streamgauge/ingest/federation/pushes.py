"""What both ways of pushing share: who may push at this moment, and what is noted of a push that was stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from streamgauge.auth.cluster_authority import ClusterIdentity
from streamgauge.clock import Clock
from streamgauge.errors import (
    ClientError,
    Forbidden,
    Overloaded,
    RateLimited,
    StreamgaugeError,
    TooLarge,
    TooManySeries,
)
from streamgauge.ingest.admission import Held, InFlight
from streamgauge.ingest.federation.liveness import Liveness
from streamgauge.ingest.federation.rates import Rate
from streamgauge.ingest.federation.settings import PushSettings
from streamgauge.ingest.federation.stats import UPLOAD, PushStats
from streamgauge.model.arrays import UInt32s
from streamgauge.model.batch import SampleBatch
from streamgauge.model.sink import Done, Sink
from streamgauge.wire.push_part import Part

Described = Callable[[str], bool]
"""Whether type and help of a metric are known. They are of the whole server, so that no cluster may change them."""

FAULTS_FOR_EACH = 10
"""Refused pushes that a cluster may send for each good one: enough to see what is wrong with them, and a bound on what
they cost."""
PATIENCE = 10.0
"""Seconds for which a remote write waits for its turn. Prometheus sends all that an outage has left behind as fast as
it can, on up to 200 connections, and by default throws away what is answered with 429. It waits three times as long."""
MAX_WAITING = 1000
"""Remote writes of all clusters that wait at a time: each has a connection, of which there are so many, and perhaps
64 KiB that came with it and that nobody accounts for. Beyond them a cluster is told at once to come again."""
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
    Both are looked at before the body is read. Uploads draw on the first once they are known to be good; remote writes
    before, as they may have to wait for it, and give back what they do not need."""

    def __init__(
        self, clock: Clock, settings: PushSettings, liveness: Liveness, stats: PushStats, way: str = UPLOAD
    ) -> None:
        interval, burst, patience = settings.ratelimit, settings.burst, 0.0
        if way != UPLOAD:
            interval, burst, patience = settings.receive_ratelimit, settings.receive_burst, PATIENCE
        self._clock = clock
        self._patience = patience
        self._waiting = 0  # for their turn
        self._settings = settings
        self._liveness = liveness
        self._way = way
        self._requests = stats.shared.ingest_requests
        self._good_requests = self._requests.labels(way, "200")
        self._limited = stats.limited.labels(way)
        self._delayed = stats.delayed.labels(way)
        self._beyond = stats.beyond
        self._good = Rate(clock, interval, burst, settings.max_clusters)
        many = FAULTS_FOR_EACH * burst
        self._faults = Rate(clock, max(interval // FAULTS_FOR_EACH, min(interval, 1)), many, settings.max_clusters)

    def sender(self, identity: ClusterIdentity) -> Sender:
        """Raises Forbidden for a token that names no cluster, and Overloaded for one more cluster than there may be."""
        label = self._settings.partition_label
        cluster = identity.labels.get(label, "")
        if not cluster:
            raise Forbidden(f"user data must contain a '{label}' label")
        if self._has_no_room(cluster):
            self._beyond.labels(self._way, "clusters").inc()
            raise Overloaded(
                f"{self._settings.max_clusters} clusters push already, the limit (max-clusters)", _TOO_MANY_WAIT
            )
        return Sender(cluster, identity.labels, identity.owner, adds=identity.adds)

    def _has_no_room(self, cluster: str) -> bool:
        return cluster not in self._liveness and len(self._liveness) >= self._settings.max_clusters

    def check(self, cluster: str) -> None:
        """Raises RateLimited."""
        if self._good.wait(cluster) > self._patience:
            raise self._too_often(cluster)
        if wait := self._faults.wait(cluster):
            raise self._refusal(f'too many refused pushes of the cluster with id "{cluster}"', wait)

    def welcome(self, identity: ClusterIdentity, part: Part = Part.WHOLE) -> Sender | None:
        """Who sends a push that may be stored at once; None where it would have to wait, or `sender` or `check` raise
        something, which these count."""
        cluster = identity.labels.get(self._settings.partition_label, "")
        if not cluster or self._has_no_room(cluster) or self._good.wait(cluster) or self._faults.wait(cluster):
            return None
        return Sender(cluster, identity.labels, identity.owner, part, identity.adds)

    @contextmanager
    def receiving(self, identity: ClusterIdentity, inflight: InFlight) -> Iterator[tuple[Sender, Held]]:
        """What a push is received within: who sends it, and the account of what it holds. How it ends is counted,
        unless its sender goes away.

        Raises RateLimited, and what `sender` raises."""
        try:
            sender = self.sender(identity)
            self.check(sender.cluster)
            with inflight.account() as held:
                try:
                    yield sender, held
                except ClientError:
                    self.fault(sender.cluster)
                    raise
        except StreamgaugeError as error:
            self._requests.labels(self._way, str(error.status)).inc()
            if isinstance(error, TooLarge | TooManySeries):
                self._beyond.labels(self._way, "bytes" if isinstance(error, TooLarge) else "series").inc()
            raise
        self._good_requests.inc()

    def fault(self, cluster: str) -> None:
        """A push was refused."""
        self._faults.spend(cluster)

    def count(self, status: int) -> None:
        """A push that `receiving` has no part in was answered."""
        self._requests.labels(self._way, str(status)).inc()

    @contextmanager
    def spending(self, cluster: str) -> Iterator[None]:
        """Draw on the bucket of good pushes; it is given back where what is done within fails. Raises RateLimited."""
        if not self._good.spend(cluster):
            raise self._too_often(cluster)
        try:
            yield
        except StreamgaugeError:
            self._good.give_back(cluster)
            raise

    def begin(self, cluster: str, sink: Sink, batch: SampleBatch, done: Done) -> bool:
        """As `Sink.begin`, within `spending`: how a push ends that could not be stored is counted. False, too, where
        there is nothing to store, or nothing to draw."""
        if not len(batch.series) or not self._good.spend(cluster):
            return False
        if sink.begin(batch, partial(self._ended, cluster, done)):
            return True
        self._good.give_back(cluster)
        return False

    def _ended(self, cluster: str, done: Done, error: StreamgaugeError | None) -> None:
        if error is not None:
            self._good.give_back(cluster)
            self.count(error.status)
        done(error)

    @asynccontextmanager
    async def turn(self, cluster: str) -> AsyncIterator[None]:
        """As `spending`, after the wait for a token that will soon be there."""
        delay = self._good.reserve(cluster, self._patience if self._waiting < MAX_WAITING else 0.0)
        if delay is None:
            raise self._too_often(cluster)
        try:
            if delay:
                await self._wait(delay)
            yield
        except BaseException:  # its client may have gone, too
            self._good.give_back(cluster)
            raise

    async def _wait(self, seconds: float) -> None:
        self._delayed.inc()
        self._waiting += 1
        try:
            await self._clock.sleep(seconds)
        finally:
            self._waiting -= 1

    def _too_often(self, cluster: str) -> RateLimited:
        wait = max(1, self._good.wait(cluster))
        return self._refusal(f'write limit reached for cluster with id "{cluster}"', wait)

    def _refusal(self, message: str, wait: int) -> RateLimited:
        self._limited.inc()
        return RateLimited(message, wait)

    def check_series(self, cluster: str, series: UInt32s, new: int, known: UInt32s) -> None:
        """Raises TooManySeries. series: their ids, ascending, each once, as far as they have some; new: how many have
        none yet; known: those of the cluster that they must be counted with."""
        limit = self._settings.max_series
        if not limit:
            return
        count = new + len(np.union1d(series, known))
        if count > limit:
            raise too_many_series(cluster, count, limit)


def too_many_series(cluster: str, count: int, limit: int) -> TooManySeries:
    return TooManySeries(f'the cluster with id "{cluster}" has {count} series; the limit is {limit} (max-series)')
