"""One scrape: fetch, read, store. What belongs to a target from one scrape to the next is kept here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np

from streamgauge.clock import Clock
from streamgauge.errors import (
    BadInput,
    BodyTooLarge,
    ConfigError,
    FetchFailed,
    NotAllowed,
    StreamgaugeError,
    UnsupportedMedia,
)
from streamgauge.http.client import HttpClient
from streamgauge.http.urls import shown_url
from streamgauge.ingest.admission import count
from streamgauge.ingest.scrape.job import TEXTS, ScrapeJob
from streamgauge.ingest.scrape.negotiation import Format, format_of, request_headers
from streamgauge.ingest.scrape.series import TargetSeries
from streamgauge.ingest.scrape.target import Health, Report, Target
from streamgauge.ingest.turns import Turns
from streamgauge.model.arrays import UInt32s, stale_marker
from streamgauge.model.batch import Metadata, SampleBatch
from streamgauge.model.sink import Sink
from streamgauge.relabel import Relabelling
from streamgauge.stats import Stats
from streamgauge.wire import openmetrics, text_scrape
from streamgauge.wire.findings import Findings, Reason
from streamgauge.wire.samples import admit
from streamgauge.wire.scraped import NO_STAMP, ScrapeCache, Scraped, merged_notes

LOG = logging.getLogger(__name__)

SOURCE = "scrape"
MAX_AHEAD_MS = 600_000
"""A target's own timestamps may be so far ahead of the clock, as in Prometheus."""

_UP, _DURATION, _SCRAPED = "up", "scrape_duration_seconds", "scrape_samples_scraped"
_KEPT, _ADDED = "scrape_samples_post_metric_relabeling", "scrape_series_added"
_TIMEOUT, _LIMIT, _BYTES = "scrape_timeout_seconds", "scrape_sample_limit", "scrape_body_size_bytes"
_TOO_LARGE = -1  # instead of the size of a body beyond the limit, as in Prometheus
_NOTHING = np.empty(0, np.uint32)


@dataclass(frozen=True, slots=True, eq=False)
class _Outcome:
    """Of fetching and reading. error: why there is nothing; "" when there is. size: bytes of the body, inflated."""

    scraped: Scraped | None
    error: str
    size: int = 0


class Scraper:
    """Scrapes one target. `report` is how it went, `present` which series it had at last."""

    def __init__(
        self,
        job: ScrapeJob,
        target: Target,
        relabelling: Relabelling,
        client: HttpClient,
        sink: Sink,
        stats: Stats,
        clock: Clock,
        turns: Turns,
        max_body: int,
    ) -> None:
        self.target = target
        self.report = Report()
        self.present: UInt32s = _NOTHING  # series that get a stale marker once they are gone
        self.present_reports: UInt32s = _NOTHING
        self._job = job
        self._client = client
        self._sink = sink
        self._stats = stats
        self._clock = clock
        self._turns = turns
        self._max_body = min(job.limits.body or max_body, max_body)
        self._headers = request_headers(job, target.timeout)
        self._series = TargetSeries(job, target.labels, relabelling, sink.resolve)
        self._cache = ScrapeCache()
        self._format: Format | None = None
        self._settled = ""  # why OpenMetrics is not asked for any more
        self._generation: int | None = None
        self._told: dict[str, Metadata] = {}  # metadata that the store has been given
        self._owed = False  # it has refused some since

    def metadata(self) -> list[Metadata]:
        """What the target says of its metrics."""
        return list(merged_notes(self._cache.chunks).values())

    def forget(self) -> None:
        """Read the next scrape as if it were the first: a mistake may have left the cache half changed."""
        self._cache.clear()

    def close(self) -> None:
        self._client.close()

    async def scrape(self, time: int, refusal: str = "") -> None:
        """Scrape at `time` (ms) and store what comes of it. refusal: why the target is not even asked."""
        begun = self._clock.monotonic()
        if self._generation != self._sink.generation:
            self._generation = self._sink.generation
            self._cache.clear()
            self.present = self.present_reports = _NOTHING
        outcome = _Outcome(None, refusal) if refusal else await self._take(begun)
        duration = self._clock.monotonic() - begun
        findings = Findings()
        batch, present, reports = self._batch(outcome, time, duration, findings)
        fresh = self._fresh_metadata(outcome)
        error = outcome.error or self._warning(outcome.scraped, findings)
        try:
            if self._generation != self._sink.generation:
                raise StreamgaugeError("series were pruned while this was scraped")
            await self._sink.append(batch, tuple(fresh.values()))
            self.present, self.present_reports = present, reports
            self._told |= fresh
            self._owed = self._owed and outcome.scraped is None
        except StreamgaugeError as failure:
            error = error or f"scraped, but not stored: {failure.message}"
            self._stats.scrape_failures.labels("not_stored").inc()
            self._owed = self._owed or bool(fresh)
        else:
            count(self._stats, SOURCE, len(batch), findings)
        health = Health.DOWN if outcome.scraped is None else Health.UP
        self._log_change(health, outcome.error)
        self.report = Report(health, error, time, duration)

    # ---- fetching and reading ---------------------------------------------------------------------------------------

    async def _take(self, begun: float) -> _Outcome:
        limit = self.target.timeout / 1000
        try:
            async with asyncio.timeout(max(0.0, limit - (self._clock.monotonic() - begun))):
                answer = await self._client.get(self.target.url, self._headers, self._max_body)
        except TimeoutError:
            return self._failed("timeout", f"no whole answer within {limit:g} s, the scrape timeout")
        except BodyTooLarge as error:
            return self._failed("fetch", error.message, _TOO_LARGE)
        except (FetchFailed, ConfigError) as error:
            return self._failed("fetch", error.message)
        self._stats.ingest_request_bytes.labels(SOURCE).inc(answer.size)
        if answer.status != 200:
            return self._failed("status", f"the answer was {answer.status} {answer.reason}".rstrip())
        try:
            kind = format_of(answer.headers.get("content-type", ""), self._job.fallback_protocol)
        except UnsupportedMedia as error:
            return self._failed("content", error.message, len(answer.body))
        if kind is not self._format:
            self._format = kind
            self._cache.clear()
        self._series.begin()
        decode = openmetrics.decode if kind is Format.OPENMETRICS else text_scrape.decode
        try:
            reading = decode(answer.body, self._cache, self._series.of, self._job.limits.samples)
            return _Outcome(await _run(reading, self._turns), "", len(answer.body))
        except BadInput as error:
            broken = not isinstance(error, NotAllowed)
            if broken and kind is Format.OPENMETRICS and self._settle_for_text(error):
                return await self._take(begun)
            return self._failed("content", error.message, len(answer.body))

    def _settle_for_text(self, error: BadInput) -> bool:
        """Ask for text from now on, where the target may have it: much that calls itself OpenMetrics is none, and
        Prometheus, which is less strict, has always scraped it."""
        protocols = tuple(one for one in self._job.protocols if one in TEXTS)
        if self._settled or not protocols:
            return False
        self._settled = f"this is not valid OpenMetrics, so text was asked for instead: {error.message}"
        self._headers = request_headers(replace(self._job, protocols=protocols), self.target.timeout)
        return True

    def _failed(self, reason: str, message: str, size: int = 0) -> _Outcome:
        self._stats.scrape_failures.labels(reason).inc()
        return _Outcome(None, message, size)

    # ---- storing ----------------------------------------------------------------------------------------------------

    def _batch(
        self, outcome: _Outcome, time: int, duration: float, findings: Findings
    ) -> tuple[SampleBatch, UInt32s, UInt32s]:
        """What is stored, and which series of the target, and about it, are present now."""
        scraped = outcome.scraped
        batch = SampleBatch(_NOTHING, np.empty(0, np.int64), np.empty(0))
        present = _NOTHING
        if scraped is not None:
            batch, present = self._samples(scraped, time, findings)
        gone = _NOTHING
        if len(self.present) and present is not self.present:
            gone = np.setdiff1d(self.present, present)
        values = {
            _UP: float(scraped is not None),
            _DURATION: duration,
            _SCRAPED: float(scraped.lines if scraped else 0),
            _KEPT: float(scraped.kept if scraped else 0),
            _ADDED: float(scraped.added if scraped else 0),
        }
        if self._job.extra_metrics:
            values |= {
                _TIMEOUT: self.target.timeout / 1000,
                _LIMIT: float(self._job.limits.samples),
                _BYTES: float(outcome.size),
            }
        ids = [self._series.report(metric) for metric in values]
        reports = np.array([series for series in ids if series >= 0], np.uint32)
        numbers = np.array([v for series, v in zip(ids, values.values(), strict=True) if series >= 0], np.float64)
        rest = len(gone) + len(reports)
        whole = SampleBatch(
            np.concatenate((batch.series, gone, reports)),
            np.concatenate((batch.times, np.full(rest, time, np.int64))),
            np.concatenate((batch.values, stale_marker(len(gone)), numbers)),
        )
        return whole, present, reports

    def _samples(self, scraped: Scraped, time: int, findings: Findings) -> tuple[SampleBatch, UInt32s]:
        series = scraped.series
        stamps = scraped.stamps if self._job.honor_timestamps else None
        if stamps is None:
            times = np.full(len(series), time, np.int64)
            return SampleBatch(series, times, scraped.values), series
        own = stamps != NO_STAMP
        present = series if self._job.track_timestamps_staleness else series[~own]
        oldest, newest = self._sink.admitted()
        window = (oldest, min(newest, self._clock.now_ms() + MAX_AHEAD_MS))
        batch = SampleBatch(series, np.where(own, stamps, time), scraped.values)
        return admit(batch, window, findings, lambda row: f"sample {row + 1}"), present

    def _fresh_metadata(self, outcome: _Outcome) -> dict[str, Metadata]:
        """Metadata that the store does not have yet."""
        if outcome.scraped is None or (outcome.scraped.same and not self._owed):
            return {}
        return {
            metric: one for metric, one in merged_notes(self._cache.chunks).items() if self._told.get(metric) != one
        }

    def _warning(self, scraped: Scraped | None, findings: Findings) -> str:
        """What was left out of a scrape that succeeded."""
        said = [self._settled] if self._settled and scraped is not None else []
        if scraped is not None and scraped.duplicates:
            said.append(f"{scraped.duplicates} samples are of a series that came before; the first of each was stored")
            findings.refuse(Reason.DUPLICATE, "", scraped.duplicates)
        if scraped is not None and scraped.refused:
            said.append(f"{scraped.refused} samples of new series were not stored: {self._series.refusal}")
            findings.refused.update(self._series.refused)
        if scraped is not None and scraped.exemplars:
            findings.refuse(Reason.EXEMPLAR, "", scraped.exemplars)
        outside = findings.refused[Reason.TOO_NEW] + findings.refused[Reason.TOO_OLD]
        if outside:
            said.append(f"{outside} samples were not stored: {findings.examples[0]}")
        return "; ".join(said)

    def _log_change(self, health: Health, error: str) -> None:
        """A line when a target goes down, or comes back."""
        if health is Health.DOWN and self.report.health is not Health.DOWN:
            LOG.warning("%s (job %s) cannot be scraped: %s", shown_url(self.target.url), self._job.name, error)
        elif health is Health.UP and self.report.health is Health.DOWN:
            LOG.info("%s (job %s) is scraped again", shown_url(self.target.url), self._job.name)


async def _run(reading: Generator[None, None, Scraped], turns: Turns) -> Scraped:
    """Let a decoder run to its end, a step in each turn."""
    while True:
        scraped = await turns.take(lambda: _step(reading))
        if scraped is not None:
            return scraped


def _step(reading: Generator[None, None, Scraped]) -> Scraped | None:
    """What has been read, once that is all."""
    try:
        next(reading)
    except StopIteration as end:
        scraped: Scraped = end.value
        return scraped
    return None
