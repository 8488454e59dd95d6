"""Which pushed series are live, so that those which end get a stale marker. Arrays of series ids, no object a series.

An upload has all series of its cluster, so what is missing from the next one has ended. Order is by the newest
timestamp in each: an upload that is older than one before it, as a client sends that was cut off for a while, ends
nothing; what only it has, has ended with the newer one. A remote write has some of the series, and its sender marks
those that end; they are only looked after when the cluster is silent.

A scrape may come in several uploads, which say so: nothing ends before the last of them is there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from streamgauge.model.arrays import UInt32s
from streamgauge.wire.push_part import Part

_GATHERED = 16_384
"""Ids of remote writes that gather, repetitions included, until they are put together: 64 KiB."""
_NOTHING = np.empty(0, np.uint32)


@dataclass(frozen=True, slots=True, eq=False)
class Ended:
    """Series of a cluster that have ended, and when, in ms."""

    series: UInt32s
    time: int


@dataclass(slots=True, eq=False)
class _Cluster:
    """uploaded: series of the upload with the newest timestamp, `newest`. begun: those of the parts of a scrape that
    are there so far, None between scrapes. received: those of remote writes, the last of which are still in `gathered`.
    found: those that the store had at the start, by whichever way they came. Ids are ascending, but for the gathered
    ones. heard: on the monotonic clock. Times are ms."""

    heard: float
    uploaded: UInt32s = field(default_factory=lambda: _NOTHING)
    newest: int = 0
    begun: UInt32s | None = None
    begun_newest: int = 0
    received: UInt32s = field(default_factory=lambda: _NOTHING)
    received_newest: int = 0
    gathered: list[UInt32s] = field(default_factory=list)
    waiting: int = 0  # ids in `gathered`
    found: UInt32s = field(default_factory=lambda: _NOTHING)
    found_newest: int = 0

    @property
    def settled(self) -> bool:
        """Whether nothing is live beside the last upload that another might end."""
        return self.begun is None and not len(self.found)

    def gather(self) -> None:
        if self.gathered:
            self.received = np.unique(np.concatenate((self.received, *self.gathered)))
            self.gathered, self.waiting = [], 0

    def count(self) -> int:
        """Series; those that come by remote write a little late."""
        begun = 0 if self.begun is None else len(self.begun)
        return len(self.uploaded) + begun + len(self.received) + len(self.found)

    def all(self) -> UInt32s:
        self.gather()
        every = (self.uploaded, self.received, self.found, *(() if self.begun is None else (self.begun,)))
        parts = [part for part in every if len(part)]
        return parts[0] if len(parts) == 1 else np.unique(np.concatenate((_NOTHING, *parts)))


class Liveness:
    """Of all clusters, in the order in which they were last heard of.

    series: how many there are of all of them.
    """

    def __init__(self) -> None:
        self.series = 0
        self._clusters: OrderedDict[str, _Cluster] = OrderedDict()

    def __len__(self) -> int:
        """Clusters that are live."""
        return len(self._clusters)

    def __contains__(self, cluster: str) -> bool:
        return cluster in self._clusters

    def of(self, cluster: str) -> UInt32s:
        """The live series of a cluster, ascending."""
        known = self._clusters.get(cluster)
        if known is None:
            return _NOTHING
        count = known.count()
        series = known.all()
        self.series += known.count() - count
        return series

    def beside(self, cluster: str, part: Part) -> UInt32s:
        """The series, ascending, that are live together with those of a part: of the scrape's parts before it; and
        where these are not known, or another scrape has not come to its end, all of the cluster."""
        known = self._clusters.get(cluster)
        begun = None if known is None else known.begun
        if part is Part.WHOLE or known is None:
            return _NOTHING
        if part.follows == (begun is not None):
            return _NOTHING if begun is None else begun
        return self.of(cluster)

    def upload(self, cluster: str, series: UInt32s, newest: int, now: float, part: Part = Part.WHOLE) -> Ended | None:
        """An upload was stored. series: ascending, each once. What has ended with it, or with a newer one."""
        known = self._heard(cluster, now)
        if series is known.uploaded and newest >= known.newest and part is Part.WHOLE and known.settled:
            known.newest = newest
            return None
        count = known.count()
        if part is not Part.WHOLE or known.begun is not None:
            ended = _upload_part(known, series, newest, part)
        else:
            ended = _upload_whole(known, series, newest)
        self.series += known.count() - count
        return ended

    def receive(self, cluster: str, series: UInt32s, newest: int, now: float) -> None:
        """A remote write was stored. series: in any order, and more than once."""
        known = self._heard(cluster, now)
        known.received_newest = max(known.received_newest, newest)
        known.gathered.append(series)
        known.waiting += len(series)
        if known.waiting > max(_GATHERED, 2 * len(known.received)):
            count = known.count()
            known.gather()
            self.series += known.count() - count

    def found(self, cluster: str, series: UInt32s, newest: int, now: float) -> None:
        """The store has these as live at the start. series: ascending, each once."""
        known = self._heard(cluster, now)
        self.series += len(series) - len(known.found)
        known.found, known.found_newest = series, newest

    def silent(self, since: float, ttl: int) -> Iterator[Ended]:
        """What has ended with clusters that were not heard of after `since`, on the monotonic clock, each `ttl` ms
        after its newest timestamp. They are forgotten."""
        while self._clusters:
            cluster, known = next(iter(self._clusters.items()))
            if known.heard > since:
                return
            del self._clusters[cluster]
            self.series -= known.count()
            newest = max(known.newest, known.begun_newest, known.received_newest, known.found_newest)
            if (ended := _ended(known.all(), newest + ttl)) is not None:
                yield ended

    def _heard(self, cluster: str, now: float) -> _Cluster:
        known = self._clusters.get(cluster)
        if known is None:
            known = self._clusters[cluster] = _Cluster(now)
        else:
            known.heard = now
            self._clusters.move_to_end(cluster)
        return known


def _upload_part(known: _Cluster, series: UInt32s, newest: int, part: Part) -> Ended | None:
    if not part.follows:
        if known.begun is not None:  # of a scrape whose end never came: what it had may end now
            known.uploaded = np.union1d(known.uploaded, known.begun)
        known.begun, known.begun_newest = (series, newest) if part.precedes else (None, 0)
        return None if part.precedes else _upload_whole(known, series, newest)
    if known.begun is None:  # the first part came before a start of this server
        known.uploaded = np.union1d(known.uploaded, series)
        known.newest = max(known.newest, newest)
        return None
    series, newest = np.union1d(known.begun, series), max(known.begun_newest, newest)
    if part.precedes:
        known.begun, known.begun_newest = series, newest
        return None
    known.begun, known.begun_newest = None, 0
    return _upload_whole(known, series, newest)


def _upload_whole(known: _Cluster, series: UInt32s, newest: int) -> Ended | None:
    if newest < known.newest:
        return _ended(_without(series, known.uploaded), known.newest)
    return _replace(known, series, newest)


def _replace(known: _Cluster, series: UInt32s, newest: int) -> Ended | None:
    """Make an upload that is not older than the last one the one whose series are live; what ends with it."""
    before = known.uploaded
    if len(known.found):
        if newest < known.found_newest:  # older than what was stored before the start: that stands
            known.found = np.union1d(known.found, series)
            return None
        known.gather()
        before = np.union1d(before, _without(known.found, known.received))
        known.found = _NOTHING
    if newest == known.newest and len(known.uploaded) and series is not known.uploaded:
        series = np.union1d(series, known.uploaded)  # another part of the same moment
    known.uploaded, known.newest = series, newest
    return None if before is series else _ended(_without(before, series), newest)


def _ended(series: UInt32s, time: int) -> Ended | None:
    return Ended(series, time) if len(series) else None


def _without(series: UInt32s, others: UInt32s) -> UInt32s:
    """Both ascending, each once."""
    if not len(series) or np.array_equal(series, others):
        return _NOTHING
    missing: UInt32s = np.setdiff1d(series, others, assume_unique=True)
    return missing
