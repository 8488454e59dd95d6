"""Which format is asked for, and which one has come."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence

from streamgauge.errors import UnsupportedMedia
from streamgauge.http.options import USER_AGENT
from streamgauge.ingest.scrape.job import (
    OPENMETRICS_0_0_1,
    OPENMETRICS_1_0_0,
    PROTOBUF,
    TEXT_0_0_4,
    TEXT_1_0_0,
    ScrapeJob,
)


class Format(enum.Enum):
    TEXT = "text/plain"
    OPENMETRICS = "application/openmetrics-text"


_MEDIA = {
    OPENMETRICS_1_0_0: "application/openmetrics-text;version=1.0.0",
    OPENMETRICS_0_0_1: "application/openmetrics-text;version=0.0.1",
    TEXT_1_0_0: "text/plain;version=1.0.0",
    TEXT_0_0_4: "text/plain;version=0.0.4",
}
_WITH_ESCAPING = frozenset((OPENMETRICS_1_0_0, TEXT_1_0_0))
PROTOCOLS = (*_MEDIA, PROTOBUF)
"""What `scrape_protocols` may name. PrometheusProto is known, and never asked for."""

_TOKEN = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+")


def accept(protocols: Sequence[str], escaping: str) -> str:
    """The Accept header: each format less wanted than the one before, and anything at last."""
    weight = len(PROTOCOLS) + 1
    kinds = []
    for protocol in protocols:
        if protocol in _MEDIA:
            extra = f";escaping={escaping}" if protocol in _WITH_ESCAPING else ""
            kinds.append(f"{_MEDIA[protocol]}{extra};q=0.{weight}")
        weight -= 1
    return ",".join([*kinds, f"*/*;q=0.{weight}"])


def request_headers(job: ScrapeJob, timeout: int) -> dict[str, str]:
    """timeout: ms."""
    return {
        "accept": accept(job.protocols, job.escaping),
        "accept-encoding": "gzip" if job.compression else "identity",
        "user-agent": USER_AGENT,
        "x-prometheus-scrape-timeout-seconds": f"{timeout / 1000:.3f}".rstrip("0").rstrip("."),
    }


def format_of(content_type: str, fallback: str) -> Format:
    """The format of an answer. fallback: a protocol, or "". Raises UnsupportedMedia when there is none to choose."""
    media = content_type.split(";")[0].strip().lower()
    for kind in Format:
        if media == kind.value:
            return kind
    if fallback in _MEDIA:
        return Format(_MEDIA[fallback].split(";")[0])
    if not media:
        said = "the answer has no content type"
    elif _TOKEN.fullmatch(media):
        said = f"the answer has content type {media}, which is no format of metrics"
    else:
        said = "the answer has a content type that makes no sense"
    raise UnsupportedMedia(f"{said}; set fallback_scrape_protocol if it is metrics in text all the same")
