"""One scrape: have it fetched and read, and store it. How that is done is the fetcher's affair; what belongs to a
target from one scrape to the next, whatever it is fetched by, is kept here."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from streamgauge.clock import Clock
from streamgauge.errors import StreamgaugeError
from streamgauge.http.urls import shown_url
from streamgauge.ingest.admission import count
from streamgauge.ingest.scrape.job import ScrapeJob
from streamgauge.ingest.scrape.series import TargetSeries
from streamgauge.ingest.scrape.target import Health, Report, Target
from streamgauge.model.arrays import Floats, UInt32s, stale_marker
from streamgauge.model.batch import Metadata, SampleBatch, empty_batch
from streamgauge.model.sink import Sink
from streamgauge.stats import Stats
from streamgauge.wire.findings import Findings, Reason
from streamgauge.wire.samples import admit
from streamgauge.wire.scraped import NO_STAMP, Scraped

LOG = logging.getLogger(__name__)

SOURCE = "scrape"
MAX_AHEAD_MS = 600_000
"""A target's own timestamps may be so far ahead of the clock, as in Prometheus."""

_REPORTS = (
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
    "scrape_timeout_seconds",  # this and the next two only where they are asked for
    "scrape_sample_limit",
    "scrape_body_size_bytes",
)
"""What is said of each scrape, in the order of `Scraper._reports`."""
TOO_LARGE = -1  # instead of the size of a body beyond the limit, as in Prometheus
_NOTHING = np.empty(0, np.uint32)
_NO_SAMPLES = empty_batch()


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Of fetching and reading. error: why there is nothing; "" when there is. size: bytes of the body, inflated.
    beyond: samples in a text that is refused because of a limit."""

    scraped: Scraped | None
    error: str
    size: int = 0
    beyond: int = 0


class Fetcher(Protocol):
    """Fetches and reads what one target gives."""

    @property
    def notice(self) -> str:
        """What is to be said of a scrape that succeeds; "" for nothing."""

    async def take(self, begun: float) -> Outcome:
        """begun: when the scrape did, monotonic. Whatever the target does is told in the outcome."""

    def metadata(self) -> dict[str, Metadata]:
        """What the target says of its metrics, by metric."""

    def forget(self) -> None:
        """Read what comes next as if it were the first: ids of series are not good any more."""

    def close(self) -> None: ...


class Scraper:
    """Scrapes one target. `report` is how it went, `present` which series it had at last. source: the word that its
    samples are counted under."""

    def __init__(
        self,
        job: ScrapeJob,
        target: Target,
        series: TargetSeries,
        fetcher: Fetcher,
        sink: Sink,
        stats: Stats,
        clock: Clock,
        source: str = SOURCE,
    ) -> None:
        self.target = target
        self.report = Report()
        self.present: UInt32s = _NOTHING  # series that get a stale marker once they are gone
        self.present_reports: UInt32s = _NOTHING
        self._job = job
        self._series = series
        self._fetcher = fetcher
        self._sink = sink
        self._stats = stats
        self._clock = clock
        self._source = source
        self._generation: int | None = None
        self._reported = _NOTHING  # the series of reports, as many as there is room for
        self._last = (_NOTHING, _NOTHING, _NOTHING)  # series of samples, of reports, and both, of the last scrape
        self._told: dict[str, Metadata] = {}  # metadata that the store has been given
        self._owed = False  # it has refused some since

    def metadata(self) -> list[Metadata]:
        """What the target says of its metrics."""
        return list(self._fetcher.metadata().values())

    def forget(self) -> None:
        """Read the next scrape as if it were the first: a mistake may have left what is remembered half changed."""
        self._fetcher.forget()

    def close(self) -> None:
        self._fetcher.close()

    async def scrape(self, time: int, refusal: str = "") -> None:
        """Scrape at `time` (ms) and store what comes of it. refusal: why the target is not even asked."""
        begun = self._clock.monotonic()
        if self._generation != self._sink.generation:
            self._generation = self._sink.generation
            self._fetcher.forget()
            self.present = self.present_reports = self._reported = _NOTHING
        outcome = Outcome(None, refusal) if refusal else await self._fetcher.take(begun)
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
            count(self._stats, self._source, len(batch), findings)
        health = Health.DOWN if outcome.scraped is None else Health.UP
        self._log_change(health, outcome.error)
        self.report = Report(health, error, time, duration)

    # ---- storing ----------------------------------------------------------------------------------------------------

    def _batch(
        self, outcome: Outcome, time: int, duration: float, findings: Findings
    ) -> tuple[SampleBatch, UInt32s, UInt32s]:
        """What is stored, and which series of the target, and about it, are present now."""
        samples, present = _NO_SAMPLES, _NOTHING
        if outcome.scraped is not None:
            samples, present = self._samples(outcome.scraped, time, findings)
        gone = _NOTHING
        if len(self.present) and present is not self.present:
            gone = np.setdiff1d(self.present, present)
        reports, numbers = self._reports(outcome, duration)
        if len(gone):  # before the reports: a target may have had a series `up` of its own
            series = np.concatenate((samples.series, gone, reports))
            numbers = np.concatenate((stale_marker(len(gone)), numbers))
        else:
            series = self._joined(samples.series, reports)
        times = np.full(len(series), time, np.int64)
        times[: len(samples)] = samples.times
        values = np.concatenate((samples.values, numbers))
        return SampleBatch(series, times, values), present, reports

    def _joined(self, series: UInt32s, reports: UInt32s) -> UInt32s:
        """Both, one behind the other; the same array as long as they are the same."""
        if self._last[0] is not series or self._last[1] is not reports:
            self._last = (series, reports, np.concatenate((series, reports)))
        return self._last[2]

    def _reports(self, outcome: Outcome, duration: float) -> tuple[UInt32s, Floats]:
        """What is to be said of the scrape: series, the same array as long as they are the same, and values."""
        scraped = outcome.scraped
        values = [0.0, duration, outcome.beyond, 0.0, 0.0]
        if scraped is not None:
            values = [1.0, duration, scraped.lines, scraped.kept, scraped.added]
        if self._job.extra_metrics:
            values += [self.target.timeout / 1000, self._job.limits.samples, outcome.size]
        numbers = np.array(values, np.float64)
        if len(self._reported) < len(values):  # this is the first scrape, or there was no room for some
            ids = np.array([self._series.report(metric) for metric in _REPORTS[: len(values)]], np.int64)
            self._reported = ids[ids >= 0].astype(np.uint32)
            numbers = numbers[ids >= 0]
        return self._reported, numbers

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

    def _fresh_metadata(self, outcome: Outcome) -> dict[str, Metadata]:
        """Metadata that the store does not have yet."""
        if outcome.scraped is None or (outcome.scraped.same and not self._owed):
            return {}
        return {metric: one for metric, one in self._fetcher.metadata().items() if self._told.get(metric) != one}

    def _warning(self, scraped: Scraped | None, findings: Findings) -> str:
        """What was left out of a scrape that succeeded."""
        said = [self._fetcher.notice] if self._fetcher.notice and scraped is not None else []
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
