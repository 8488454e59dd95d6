"""`streamgauge check-config`."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from streamgauge.config import load_config
from streamgauge.errors import BadInput, ConfigError
from streamgauge.http.options import HttpOptions
from streamgauge.ingest.scrape.job import FileSource, HttpSource, ScrapeJob
from streamgauge.ingest.scrape.target import targets_of
from streamgauge.relabel import Relabelling
from streamgauge.settings import resolve


def check_config_file(file: str) -> None:
    """Print warnings on stderr and one closing line; raises ConfigError for a bad file."""
    config = load_config(Path(file), os.environ)
    resolve({}, os.environ, config.own)
    warnings = [*config.warnings, *_doubts(config.jobs)]
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    count = len(warnings)
    click.echo(f"{file}: good" + (f", with {count} warning{'s' * (count != 1)}" if count else ""))


def _doubts(jobs: Iterable[ScrapeJob]) -> Iterator[str]:
    """What a server would start with, and scrapes would fail for."""
    for job in jobs:
        relabelling = Relabelling(job.relabel)
        for group in job.static:
            for found in targets_of(group, job, relabelling):
                if isinstance(found, BadInput):
                    yield f"job {job.name}: {found.message}"
        patterns = (pattern for source in job.sources if isinstance(source, FileSource) for pattern in source.files)
        yield from (f"job {job.name}: there is no file {pattern} yet" for pattern in patterns if not glob.glob(pattern))
        for options in (job.http, *(source.http for source in job.sources if isinstance(source, HttpSource))):
            for problem in _unreadable(options):
                yield f"job {job.name}: {problem}"


def _unreadable(options: HttpOptions) -> Iterator[str]:
    for secret in (*options.secrets, options.tls.ca, options.tls.cert, options.tls.key):
        try:
            secret.read()
        except ConfigError as error:
            yield error.message
