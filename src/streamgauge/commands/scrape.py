"""`streamgauge scrape`: what a target would give, without a server and without storing anything."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import click

from streamgauge.commands.table import printable, table
from streamgauge.errors import BadInput, FetchFailed
from streamgauge.http.client import Answer, HttpClient, Resolver
from streamgauge.http.options import TlsContexts
from streamgauge.ingest.discovery.groups import ADDRESS, Group
from streamgauge.ingest.scrape.job import ScrapeJob
from streamgauge.ingest.scrape.negotiation import Format, format_of, request_headers
from streamgauge.ingest.scrape.series import TargetSeries
from streamgauge.ingest.scrape.target import METRICS_PATH, PARAM, SCHEME, Target, targets_of
from streamgauge.model.batch import Metadata
from streamgauge.model.labels import labels_of, split_key
from streamgauge.query.text import value_texts
from streamgauge.relabel import Relabelling
from streamgauge.settings import BY_NAME
from streamgauge.wire import openmetrics, text_scrape
from streamgauge.wire.scraped import ScrapeCache, Scraped, merged_notes

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


def run_scrape(url: str, config: str | None, job_name: str | None, samples: bool, accept: str | None) -> None:
    """Print what the target at `url` gives. Raises FetchFailed or BadInput when a scrape of it would fail."""
    job = _job(config, job_name, accept)
    target = _target(url, job)
    answer = asyncio.run(_fetch(job, target))
    kind = format_of(answer.headers.get("content-type", ""), job.fallback_protocol)
    keys, cache = _Keys(), ScrapeCache()
    series = TargetSeries(job, target.labels, Relabelling(job.metric_relabel), keys.resolve)
    decode = openmetrics.decode if kind is Format.OPENMETRICS else text_scrape.decode
    try:
        scraped = _read(decode(answer.body, cache, series.of, job.limits.samples))
    except BadInput as error:
        raise FetchFailed(error.message) from None
    if samples:
        for line in _sample_lines(scraped, keys.keys):
            click.echo(line)
        return
    click.echo(f"{target.url}: {answer.headers.get('content-type', 'no content type')}, {len(answer.body)} bytes")
    click.echo(_summary(scraped))
    for line in _families(scraped, keys.keys, merged_notes(cache.chunks)):
        click.echo(line)


def _read(reading: Generator[None, None, Scraped]) -> Scraped:
    while True:
        try:
            next(reading)
        except StopIteration as end:
            scraped: Scraped = end.value
            return scraped


def _job(config: str | None, name: str | None, accept: str | None) -> ScrapeJob:
    if config is None:
        job = ScrapeJob(name or "scrape")
    else:
        from streamgauge.config import load_config

        jobs = {job.name: job for job in load_config(Path(config), os.environ).jobs}
        if not jobs or (name or next(iter(jobs))) not in jobs:
            raise BadInput(f"{config} has no such job; it has {', '.join(jobs) or 'none at all'}")
        job = jobs[name or next(iter(jobs))]
    if accept is None:
        return job
    return replace(job, protocols=(accept,))


def _target(url: str, job: ScrapeJob) -> Target:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    own = {ADDRESS: parts.netloc, SCHEME: parts.scheme, METRICS_PATH: parts.path or job.metrics_path}
    own |= {PARAM + name: values[0] for name, values in parse_qs(parts.query).items()}
    (found,) = targets_of(Group("URL", (own,), {}), job, Relabelling(job.relabel))
    if isinstance(found, BadInput):
        raise found
    if not isinstance(found, Target):
        raise BadInput(f"relabel_configs of the job {job.name} drop this target")
    return found


async def _fetch(job: ScrapeJob, target: Target) -> Answer:
    resolver = Resolver()
    client = HttpClient(job.http, TlsContexts(job.http.tls), resolver)
    limit = job.limits.body or BY_NAME["scrape_max_bytes"].default
    try:
        async with asyncio.timeout(target.timeout / 1000):
            answer = await client.get(target.url, request_headers(job, target.timeout), limit)
    except TimeoutError:
        raise FetchFailed(f"no whole answer within {target.timeout / 1000:g} s, the scrape timeout") from None
    finally:
        client.close()
        resolver.close()
    if answer.status != 200:
        raise FetchFailed(f"the answer was {answer.status} {answer.reason}".rstrip())
    return answer


def _summary(scraped: Scraped) -> str:
    parts = [f"{scraped.lines} samples"]
    if scraped.kept < scraped.lines:
        parts.append(f"{scraped.lines - scraped.kept} dropped by relabelling")
    if scraped.duplicates:
        parts.append(f"{scraped.duplicates} of series that came before, left out")
    if scraped.exemplars:
        parts.append(f"{scraped.exemplars} exemplars, left out")
    return ", ".join(parts)


def _families(scraped: Scraped, keys: list[bytes], notes: dict[str, Metadata]) -> Iterator[str]:
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


def _sample_lines(scraped: Scraped, keys: list[bytes]) -> Iterator[str]:
    for series, value in zip(scraped.series.tolist(), value_texts(scraped.values).to_pylist(), strict=True):
        labels = labels_of(keys[series])
        name = labels.pop("__name__", "")
        inner = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield printable(f"{name}{{{inner}}} {value}")


def _escaped(text: str) -> str:
    """A label's value as it stands between double quotes."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
