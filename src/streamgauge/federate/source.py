"""Scraping the Prometheus that samples are taken from."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from urllib.parse import urlencode

from streamgauge.errors import BadInput, BodyTooLarge, FetchFailed
from streamgauge.federate.answers import told
from streamgauge.federate.config import FederateConfig
from streamgauge.federate.metrics import Requests
from streamgauge.http.client import HttpClient, Resolver
from streamgauge.http.options import TlsContexts
from streamgauge.http.urls import shown_url
from streamgauge.wire import metric_family_protobuf, metric_family_text
from streamgauge.wire.metric_family import MetricFamily

_ACCEPT = f"{metric_family_protobuf.CONTENT_TYPE} , {metric_family_text.CONTENT_TYPE}"


class Source:
    def __init__(self, config: FederateConfig, resolver: Resolver, requests: Requests) -> None:
        self._config = config
        self._client = HttpClient(config.source_http, TlsContexts(config.source_http.tls), resolver)
        self._requests = requests

    async def scrape(self) -> tuple[list[MetricFamily], int]:
        """The families that match, and how many bytes they came in. Raises FetchFailed, and ConfigError for secrets
        that cannot be read."""
        config = self._config
        url = scrape_url(config.source, config.rules)
        headers = {"accept": _ACCEPT, "connection": "close"}
        try:
            async with asyncio.timeout(config.interval_seconds):
                answer = await self._client.get(url, headers, config.limit_bytes)
        except TimeoutError:
            raise FetchFailed(f"{shown_url(config.source)} gave no whole answer within the interval") from None
        except BodyTooLarge:
            raise FetchFailed(
                f"{shown_url(config.source)} gave more than {config.limit_bytes} bytes: raise --limit-bytes, or take "
                "less with --match"
            ) from None
        finally:
            self._client.close()
        self._requests["federate_from", str(answer.status)] += 1
        if answer.status != 200:
            raise FetchFailed(told(answer, config.source))
        return decode(answer.headers.get("content-type", ""), answer.body), answer.size

    def close(self) -> None:
        self._client.close()


def scrape_url(source: str, rules: Iterable[str]) -> str:
    query = urlencode([("match[]", rule) for rule in rules])
    return f"{source}?{query}" if query else source


def decode(content_type: str, body: bytes) -> list[MetricFamily]:
    """Raises FetchFailed for what is no metrics."""
    protobuf = content_type.partition(";")[0].strip().lower() == "application/vnd.google.protobuf"
    read = metric_family_protobuf.decode_now if protobuf else metric_family_text.decode_now
    try:
        return read(body)
    except BadInput as error:
        raise FetchFailed(f"the scrape cannot be read: {error.message}") from None
