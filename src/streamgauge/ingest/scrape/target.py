"""A target: its labels, where it is fetched from, and how that went the last time."""

from __future__ import annotations

import enum
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from streamgauge.durations import format_duration, parse_duration
from streamgauge.errors import BadInput
from streamgauge.ingest.discovery.groups import ADDRESS, Group
from streamgauge.ingest.scrape.job import GRPC_SCHEMES, SCHEMES, ScrapeJob
from streamgauge.relabel import Relabelling

SCHEME = "__scheme__"
METRICS_PATH = "__metrics_path__"
INTERVAL = "__scrape_interval__"
TIMEOUT = "__scrape_timeout__"
PARAM = "__param_"
META = "__meta_"
RESERVED = "__"
SLOT_MS = 200
"""Targets are scraped at the beginnings of slots of at least so long. Work is cheaper where the processor has just done
the same (reading 500 series takes 0.4 ms, otherwise 0.9), and what ends together is stored by one append."""
_SAFE = "/:@!$&'()*+,;=~-._"  # in a path, not escaped
_NO_ADDRESS = frozenset("/?#\\")

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Target:
    """labels: those of its series, without reserved ones. interval, timeout: ms."""

    url: str
    labels: Labels
    discovered: Labels
    interval: int
    timeout: int

    @property
    def key(self) -> tuple[str, tuple[tuple[str, str], ...], int, int]:
        """Two targets with the same key are one."""
        return self.url, tuple(sorted(self.labels.items())), self.interval, self.timeout

    def offset(self, seed: str) -> int:
        """When in its interval it is scraped, ms: spread evenly over targets, and always the same."""
        url, labels, *_ = self.key
        slots = max(1, self.interval // SLOT_MS)
        slot = zlib.crc32(repr((seed, url, labels)).encode()) * slots >> 32
        return slot * self.interval // slots


@dataclass(frozen=True, slots=True)
class Dropped:
    """What relabelling drops of what was discovered."""

    discovered: Labels


def discovered_labels(target: Labels, group: Labels, job: ScrapeJob) -> dict[str, str]:
    """All labels of a target before relabelling."""
    labels = {name: value for name, value in {**group, **target}.items() if value}
    labels.setdefault("job", job.name)
    labels.setdefault(INTERVAL, format_duration(job.interval))
    labels.setdefault(TIMEOUT, format_duration(job.timeout))
    if job.metrics_path:
        labels.setdefault(METRICS_PATH, job.metrics_path)
    labels.setdefault(SCHEME, job.scheme)
    for name, values in job.params:
        if values and values[0]:
            labels.setdefault(PARAM + name, values[0])
    return labels


def targets_of(group: Group, job: ScrapeJob, relabelling: Relabelling) -> Iterator[Target | Dropped | BadInput]:
    """What becomes of each target of a group; an error says what is wrong with it."""
    for own in group.targets:
        discovered = discovered_labels(own, group.labels, job)
        try:
            "".join([*discovered, *discovered.values()]).encode()
        except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell
            yield BadInput(f"{group.source}: a label of a target is not valid Unicode")
            continue
        labels = relabelling.apply(discovered)
        if labels is None:
            yield Dropped(discovered)
            continue
        try:
            yield _target(labels, discovered, job)
        except BadInput as error:
            name = own.get(ADDRESS, "a target").rpartition("@")[2]
            yield BadInput(f"{group.source}: {name}: {error.message}")


def _target(labels: Labels, discovered: Labels, job: ScrapeJob) -> Target:
    address = labels.get(ADDRESS, "")
    if not address:
        raise BadInput("it has no address")
    if "@" in address:  # and before it perhaps a password
        raise BadInput("its address has a user in it; write host:port, and basic_auth in the job")
    if not _NO_ADDRESS.isdisjoint(address) or any(letter.isspace() for letter in address):
        raise BadInput(f'"{address[:100]}" is no address; write host:port')
    scheme = labels.get(SCHEME, "").lower()
    schemes = GRPC_SCHEMES if job.over_grpc else SCHEMES
    if scheme not in schemes:
        raise BadInput(f'scheme "{scheme[:100]}" is neither {" nor ".join(schemes)}')
    interval, timeout = _time(labels, INTERVAL, "interval"), _time(labels, TIMEOUT, "timeout")
    if timeout > interval:
        raise BadInput(f"its timeout, {labels[TIMEOUT]}, is longer than its interval, {labels[INTERVAL]}")
    public = {name: value for name, value in labels.items() if not name.startswith(RESERVED)}
    public.setdefault("instance", address)
    return Target(_url(labels, scheme, address, job), public, discovered, interval, timeout)


def _time(labels: Labels, name: str, what: str) -> int:
    try:
        time = parse_duration(labels.get(name, ""))
    except BadInput as error:
        raise BadInput(f"scrape {what}: {error.message}") from None
    if time == 0:
        raise BadInput(f"the scrape {what} cannot be 0")
    return time


def _url(labels: Labels, scheme: str, address: str, job: ScrapeJob) -> str:
    if job.over_grpc:
        return f"{scheme}://{address}"
    params = {name: list(values) for name, values in job.params}
    for label, value in labels.items():
        if label.startswith(PARAM):
            name = label.removeprefix(PARAM)
            params[name] = [value, *params.get(name, [])[1:]]
    path = labels.get(METRICS_PATH, "")
    path = path if path.startswith("/") or not path else f"/{path}"
    query = urlencode(sorted(params.items()), doseq=True)
    return f"{scheme}://{address}{quote(path, safe=_SAFE)}" + (f"?{query}" if query else "")


class Health(enum.StrEnum):
    UNKNOWN = "unknown"
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Report:
    """How the last scrape went. started: ms, 0 when there was none. error: in words; a target that is up can have one,
    about what was left out. duration: seconds."""

    health: Health = Health.UNKNOWN
    error: str = ""
    started: int = 0
    duration: float = 0.0
