"""What an application counts of its own requests, by host: how many, how many failed, and how long they took."""

from __future__ import annotations

import os
import re
import threading
import weakref
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Of the latency's buckets, in seconds."""
MAX_HOSTS = 100
"""A host has some twenty series, and whoever sends a request says which host it is for."""
SPELLINGS_PER_HOST = 8
"""Of a name, with a port and in capitals, that are looked up and not read again."""
OTHER = "_other"
"""Where requests are counted that are for no host of the table."""

_HOST = re.compile(r"([a-z0-9_](?:[a-z0-9_.-]{0,252})|\[[0-9a-f:.]{2,45}\])(?::[0-9]{0,5})?", re.ASCII)
_NOT_OURS = (400, 421)
"""How applications answer a request for a host that is not theirs."""

Sample = tuple[str, tuple[tuple[str, str], ...], float]
"""A metric's name, labels and value."""


@dataclass(frozen=True, slots=True)
class HostCounts:
    """Of one host, since the program started. buckets: not cumulative, one for each bound and one for what is above."""

    requests: int
    errors: int
    seconds: float
    buckets: tuple[int, ...]
    backends: int


class _Row:
    __slots__ = ("buckets", "errors", "host", "requests", "seconds")

    def __init__(self, host: str, buckets: int) -> None:
        self.host = host
        self.requests = self.errors = 0
        self.seconds = 0.0
        self.buckets = [0] * buckets


class HostCounters:
    """Counts requests from any thread. In a child after a fork it begins anew.

    hosts: the names that are counted apart, as Host headers have them; without them each name that comes, up to
    `max_hosts`. All others are one host, `_other`. backends: how many programs behind this one answer for a host at
    this moment; by default this one. Raises ValueError for a host that no header could name.
    """

    def __init__(
        self,
        hosts: Collection[str] | None = None,
        *,
        max_hosts: int = MAX_HOSTS,
        bounds: Sequence[float] = BOUNDS,
        backends: Callable[[str], int] = lambda host: 1,
    ) -> None:
        if not bounds or list(bounds) != sorted(set(bounds)):
            raise ValueError("the bounds of the latency must ascend")
        self._only = None if hosts is None else _names(hosts)
        self._max_hosts = max_hosts if self._only is None else len(self._only)
        self.bounds = tuple(float(bound) for bound in bounds)
        self._backends = backends
        self._begin()
        if hasattr(os, "register_at_fork"):
            reference = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _begin(reference))

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._other = _Row(OTHER, len(self.bounds) + 1)
        self._rows = {OTHER: self._other}
        self._spellings: dict[bytes, _Row] = {}

    # ---- counting ---------------------------------------------------------------------------------------------------

    def observe(self, host: bytes, status: int, seconds: float) -> None:
        """Count a request. host: as the header has it."""
        with self._lock:
            row = self._spellings.get(host) or self._row(host, status)
            row.requests += 1
            if status >= 500:
                row.errors += 1
            row.seconds += seconds
            row.buckets[bisect_left(self.bounds, seconds)] += 1

    def _row(self, spelling: bytes, status: int) -> _Row:
        """A name gets a row of its own when a request for it is first answered as one of this application's."""
        name = host_name(spelling)
        if name is None or (self._only is not None and name not in self._only):
            return self._other
        row = self._rows.get(name)
        if row is None:
            foreign = self._only is None and status in _NOT_OURS
            if foreign or len(self._rows) > self._max_hosts:
                return self._other
            row = self._rows[name] = _Row(name, len(self.bounds) + 1)
        if len(self._spellings) < self._max_hosts * SPELLINGS_PER_HOST:
            self._spellings[spelling] = row
        return row

    # ---- reading ----------------------------------------------------------------------------------------------------

    def read(self) -> dict[str, HostCounts]:
        """The counts by host; of `_other` only if there were any."""
        with self._lock:
            found = [
                (row.host, row.requests, row.errors, row.seconds, tuple(row.buckets))
                for row in self._rows.values()
                if row.requests
            ]
        return {
            host: HostCounts(requests, errors, seconds, buckets, 0 if host == OTHER else int(self._backends(host)))
            for host, requests, errors, seconds, buckets in found
        }

    def samples(self) -> Iterator[Sample]:
        """As Prometheus' samples, each metric's together."""
        counts = self.read()
        for name, _, _ in FAMILIES:
            for host, one in counts.items():
                yield from self._samples(name, (("host", host),), one)

    def _samples(self, name: str, labels: tuple[tuple[str, str], ...], counts: HostCounts) -> Iterator[Sample]:
        if name == REQUESTS:
            yield name, labels, counts.requests
        elif name == ERRORS:
            yield name, labels, counts.errors
        elif name == BACKENDS:
            yield name, labels, counts.backends
        else:
            total = 0
            for bound, count in zip((*map(str, self.bounds), "+Inf"), counts.buckets, strict=True):
                total += count
                yield f"{name}_bucket", (*labels, ("le", bound.removesuffix(".0"))), total
            yield f"{name}_sum", labels, counts.seconds
            yield f"{name}_count", labels, total

    def text(self) -> bytes:
        """In Prometheus' text format (`CONTENT_TYPE`)."""
        lines = []
        described = {name: f"# HELP {name} {help_}\n# TYPE {name} {kind}\n" for name, kind, help_ in FAMILIES}
        for name, labels, value in self.samples():
            family = name if name in described else name.rpartition("_")[0]
            lines.append(described.pop(family, "") if family in described else "")
            pairs = ",".join(f'{key}="{text}"' for key, text in labels)
            lines.append(f"{name}{{{pairs}}} {value!r}\n")
        return "".join(lines).encode()


REQUESTS = "http_host_requests_total"
ERRORS = "http_host_errors_total"
DURATION = "http_host_request_duration_seconds"
BACKENDS = "http_host_backends"
FAMILIES = (
    (REQUESTS, "counter", "Requests answered."),
    (ERRORS, "counter", "Requests that ended in a status of 500 or more, or in an exception."),
    (DURATION, "histogram", "From a request until the last of its answer."),
    (BACKENDS, "gauge", "Programs that answer for the host at this moment."),
)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def host_name(spelling: bytes) -> str | None:
    """The name in a Host header: in lower case, without a port. None for what is no name."""
    match = _HOST.fullmatch(spelling.decode("latin-1").lower())
    return match[1].rstrip(".") if match else None


def _names(hosts: Collection[str]) -> frozenset[str]:
    """Raises ValueError for what would be the name in no header."""
    if isinstance(hosts, str):
        raise ValueError(f"the hosts are a list of names, as [{hosts!r}]")
    names = {host: host_name(host.encode("latin-1", "replace")) for host in hosts}
    if wrong := [host for host, name in names.items() if name is None]:
        raise ValueError(f"{wrong[0]!r} is no host as a header names it; one of other letters is there as xn--…")
    return frozenset(name for name in names.values() if name is not None)


def _begin(reference: weakref.ref[HostCounters]) -> None:
    if (counters := reference()) is not None:
        counters._begin()
