"""The privacy report of `streamgauge federate --dry-run`, as text or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import click

from streamgauge.commands.table import table
from streamgauge.federate.config import FederateConfig
from streamgauge.federate.report import LabelUse, Report
from streamgauge.http.urls import shown_url

_NAMES_SHOWN = 4  # of metrics in a row of the table
_VALUE_CHARACTERS = 40


def print_report(report: Report, config: FederateConfig, form: str) -> None:
    if form == "json":
        click.echo(json.dumps(as_json(report, config), indent=2, ensure_ascii=False))
        return
    for line in lines(report, config):
        click.echo(line)


def lines(report: Report, config: FederateConfig) -> Iterator[str]:
    yield f"From {shown_url(config.source)}: {report.scraped} series in {report.scraped_bytes} bytes."
    yield (
        f"To {shown_url(config.upload)} would go: {report.pushed} series of {len(report.families)} metrics, "
        f"{report.encoded_bytes} bytes, {report.compressed_bytes} compressed. Nothing was sent."
    )
    if not report.scraped:
        yield f"No series matches {' or '.join(config.rules)}: --match names those to take."
    if report.labels:
        yield ""
        yield from table(
            ["label", "values", "anonymised", "examples, as they leave", "in metrics"],
            [
                [use.name, str(len(use.values)), _how(use.anonymized, use.added), _examples(use.examples), _some(use)]
                for use in report.labels
            ],
            numbers=(1,),
        )
    yield ""
    yield "The server adds the labels that it gives with its access token, such as one for this cluster."
    if report.described:
        yield f"Help texts leave as they are, those of {_listed(report.described)}."
    for name in report.unused:
        yield f"Label {name} is to be anonymised, and no series has it."
    for old, new in report.renamed.items():
        yield f"Metric {old} is renamed to {new}."
    if report.removed:
        yield ""
        rows = [[name, str(count), reason.value] for (reason, name), count in report.removed.items()]
        yield from table(["removed from metric", "count", "because"], rows, numbers=(1,))


def as_json(report: Report, config: FederateConfig) -> dict[str, Any]:
    return {
        "from": shown_url(config.source),
        "to": shown_url(config.upload),
        "match": list(config.rules),
        "scraped": {"series": report.scraped, "bytes": report.scraped_bytes},
        "pushed": {
            "series": report.pushed,
            "bytes": report.encoded_bytes,
            "compressed_bytes": report.compressed_bytes,
        },
        "labels": [
            {
                "name": use.name,
                "distinct_values": len(use.values),
                "anonymised": use.anonymized,
                "set_here": use.added,
                "examples": use.examples,
                "metrics": sorted(use.metrics),
            }
            for use in report.labels
        ],
        "metrics": report.families,
        "metrics_with_help_text": report.described,
        "renamed": report.renamed,
        "removed": [
            {"metric": name, "count": count, "reason": reason.value} for (reason, name), count in report.removed.items()
        ],
        "anonymised_labels_without_series": report.unused,
    }


def _how(anonymized: bool, added: bool) -> str:
    return "yes" if anonymized else "no, set here" if added else "no"


def _examples(values: list[str]) -> str:
    return ", ".join(value if len(value) <= _VALUE_CHARACTERS else f"{value[:_VALUE_CHARACTERS]}…" for value in values)


def _some(use: LabelUse) -> str:
    return _listed(sorted(use.metrics))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
