"""`streamgauge scrape`: what a target would give, without a server and without storing anything."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, unquote

import click

from streamgauge.clock import SystemClock
from streamgauge.commands.table import printable, table
from streamgauge.errors import BadInput, FetchFailed
from streamgauge.http.client import Answer, HttpClient, Resolver
from streamgauge.http.options import Secret, TlsContexts
from streamgauge.http.urls import host_of, split_url, user_of
from streamgauge.ingest.discovery.groups import ADDRESS, Group
from streamgauge.ingest.scrape.http_fetcher import HttpFetcher
from streamgauge.ingest.scrape.job import ScrapeJob
from streamgauge.ingest.scrape.negotiation import PROTOCOLS
from streamgauge.ingest.scrape.scraper import MAX_AHEAD_MS
from streamgauge.ingest.scrape.series import TargetSeries
from streamgauge.ingest.scrape.target import METRICS_PATH, SCHEME, Target, targets_of
from streamgauge.ingest.turns import Turns
from streamgauge.model.batch import Metadata
from streamgauge.model.labels import labels_of, split_key
from streamgauge.model.text_format import PLAIN_METRIC, label_name, quoted
from streamgauge.query.text import value_texts
from streamgauge.relabel import Relabelling
from streamgauge.settings import resolve
from streamgauge.stats import Stats
from streamgauge.wire.scraped import NO_STAMP, Scraped

_FAMILY_SUFFIXES = ("_total", "_created", "_bucket", "_count", "_sum", "_gcount", "_gsum", "_info")


class _Keys:
    """Gives numbers to series, as a store would give ids."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self._ids: dict[bytes, int] = {}

    def resolve(self, key: bytes) -> int:
        if key not in self._ids:
            self._ids[key] = len(self.keys)
            self.keys.append(key)
        return self._ids[key]


class _Client(HttpClient):
    """Keeps the last answer."""

    answer: Answer | None = None

    async def get(self, url: str, headers: Mapping[str, str], limit: int) -> Answer:
        self.answer = await super().get(url, headers, limit)
        return self.answer


@dataclass(frozen=True, slots=True)
class _Found:
    """notice: what a server would say of the target, though it is up."""

    scraped: Scraped
    metadata: Mapping[str, Metadata]
    content_type: str
    size: int
    notice: str


def run_scrape(url: str, config: str | None, job_name: str | None, samples: bool, accept: str | None) -> None:
    """Print what the target at `url` gives. Raises FetchFailed or BadInput when a scrape of it would fail."""
    job, max_body = _job(config, job_name, accept)
    job, target = _target(url, job)
    keys = _Keys()
    found = asyncio.run(_scrape(job, target, keys, max_body))
    if found.notice:
        click.echo(found.notice, err=True)
    stamps = found.scraped.stamps if job.honor_timestamps else None
    latest = SystemClock().now_ms() + MAX_AHEAD_MS
    if samples:
        for line in _sample_lines(found.scraped, keys.keys, None if stamps is None else stamps.tolist(), latest):
            click.echo(line)
        return
    click.echo(f"{target.url}: {found.content_type or 'no content type'}, {found.size} bytes")
    click.echo(_summary(found.scraped, 0 if stamps is None else int((stamps > latest).sum())))
    for line in _families(found.scraped, keys.keys, found.metadata):
        click.echo(line)


async def _scrape(job: ScrapeJob, target: Target, keys: _Keys, max_body: int) -> _Found:
    """As a server would. Raises FetchFailed."""
    resolver, clock = Resolver(), SystemClock()
    client = _Client(job.http, TlsContexts(job.http.tls), resolver)
    series = TargetSeries(job, target.labels, Relabelling(job.metric_relabel), keys.resolve)
    fetcher = HttpFetcher(job, target, series, client, Stats(), clock, Turns(clock), max_body)
    try:
        outcome = await fetcher.take(clock.monotonic())
    finally:
        fetcher.close()
        resolver.close()
    if outcome.scraped is None or client.answer is None:
        raise FetchFailed(outcome.error)
    kind = client.answer.headers.get("content-type", "")
    return _Found(outcome.scraped, fetcher.metadata(), kind, outcome.size, fetcher.notice)


def _job(config: str | None, name: str | None, accept: str | None) -> tuple[ScrapeJob, int]:
    """The job, and the largest body of one answer in bytes."""
    if config is None:
        job, own = ScrapeJob(name or "scrape"), {}
    else:
        from streamgauge.config import load_config

        loaded = load_config(Path(config), os.environ)
        jobs, own = {job.name: job for job in loaded.jobs if not job.over_grpc}, dict(loaded.own)
        if not jobs or (name or next(iter(jobs))) not in jobs:
            raise BadInput(f"{config} has no such job; it has {', '.join(jobs) or 'none at all'}")
        job = jobs[name or next(iter(jobs))]
    if accept is not None:
        if accept not in PROTOCOLS:
            raise BadInput(f'"{accept}" is no protocol; there are {", ".join(PROTOCOLS)}')
        job = replace(job, protocols=(accept,))
    return job, resolve({}, os.environ, own).scrape_max_bytes


def _target(url: str, job: ScrapeJob) -> tuple[ScrapeJob, Target]:
    """The target of a URL, and the job with the parameters, user and password that the URL has. Raises BadInput."""
    try:
        parts = split_url(url if "://" in url else f"http://{url}")
    except FetchFailed as error:
        raise BadInput(error.message) from None
    params = {**dict(job.params), **parse_qs(parts.query, keep_blank_values=True)}
    job = replace(job, params=tuple((name, tuple(values)) for name, values in params.items()))
    if (user := user_of(parts)) is not None and not job.http.authorization():
        job = replace(job, http=replace(job.http, user=Secret(user[0]), password=Secret(user[1])))
    own = {ADDRESS: host_of(parts), SCHEME: parts.scheme, METRICS_PATH: unquote(parts.path) or job.metrics_path}
    (found,) = targets_of(Group("URL", (own,), {}), job, Relabelling(job.relabel))
    if isinstance(found, BadInput):
        raise found
    if not isinstance(found, Target):
        raise BadInput(f"relabel_configs of the job {job.name} drop this target")
    return job, found


def _summary(scraped: Scraped, ahead: int) -> str:
    parts = [f"{scraped.lines} samples"]
    if scraped.kept < scraped.lines:
        parts.append(f"{scraped.lines - scraped.kept} dropped by relabelling")
    if scraped.duplicates:
        parts.append(f"{scraped.duplicates} of series that came before, left out")
    if ahead:
        parts.append(f"{ahead} with a time more than {MAX_AHEAD_MS // 60_000} minutes ahead, left out")
    if scraped.exemplars:
        parts.append(f"{scraped.exemplars} exemplars, left out")
    return ", ".join(parts)


def _families(scraped: Scraped, keys: list[bytes], notes: Mapping[str, Metadata]) -> Iterator[str]:
    """A table: a row a metric, with what the target says of it."""
    names = Counter(dict(split_key(keys[series]))[b"__name__"].decode() for series in scraped.series.tolist())
    rows: dict[str, tuple[str, int, str]] = {}
    for name, count in names.items():
        family = next((cut for cut in _candidates(name) if cut in notes), name)
        known = notes.get(family, Metadata(family, "unknown", ""))
        before = rows.get(family, ("", 0, ""))[1]
        rows[family] = (known.type, before + count, known.help)
    cells = [[name, kind, str(count), text] for name, (kind, count, text) in rows.items()]
    yield from table(["metric", "type", "series", "help"], cells, numbers=(2,))


def _candidates(name: str) -> Iterator[str]:
    yield name
    for suffix in _FAMILY_SUFFIXES:
        if name.endswith(suffix):
            yield name.removesuffix(suffix)


def _sample_lines(scraped: Scraped, keys: list[bytes], stamps: list[int] | None, latest: int) -> Iterator[str]:
    """As they would be stored: without those that are later than `latest`, ms. stamps: times that samples have of their
    own, ms."""
    values = value_texts(scraped.values).to_pylist()
    for row, (series, value) in enumerate(zip(scraped.series.tolist(), values, strict=True)):
        stamp = NO_STAMP if stamps is None else stamps[row]
        if stamp <= latest:
            yield printable(f"{_series_text(labels_of(keys[series]))} {value}" + f" {stamp}" * (stamp != NO_STAMP))


def _series_text(labels: dict[str, str]) -> str:
    """As the text format has it: names that are not plain stand in quotes, that of the metric within the braces."""
    metric = labels.pop("__name__", "")
    inner = [f"{label_name(name)}={quoted(text)}" for name, text in labels.items()]
    if metric and not PLAIN_METRIC.fullmatch(metric):
        return f"{{{','.join([quoted(metric), *inner])}}}"
    return f"{metric}{{{','.join(inner)}}}"
