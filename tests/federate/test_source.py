"""What is said of a Prometheus that gives nothing, and of a scrape that has nothing in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from streamgauge.commands.federate_report import as_json, lines
from streamgauge.errors import FetchFailed
from streamgauge.federate.config import FederateConfig
from streamgauge.federate.report import make_report
from streamgauge.federate.source import Source
from streamgauge.http.client import Resolver
from streamgauge.testing.federation import NOW, Peers, status

pytestmark = pytest.mark.anyio


async def failure_of(config: FederateConfig) -> str:
    resolver = Resolver()
    try:
        with pytest.raises(FetchFailed) as caught:
            await Source(config, resolver, Counter()).scrape()
    finally:
        resolver.close()
    return caught.value.message


async def test_why_a_prometheus_refuses_is_said(peers: Peers) -> None:
    peers.scrape = [status("400 Bad Request")]
    assert (await failure_of(peers.config())).endswith("/federate answered 400 Bad Request: because of 400 Bad Request")


async def test_a_scrape_that_is_too_large_names_the_flags(peers: Peers) -> None:
    message = await failure_of(peers.config(limit_bytes="10"))
    assert message.endswith("/federate gave more than 10 bytes: raise --limit-bytes, or take less with --match")


async def test_a_report_says_which_help_texts_leave(peers: Peers) -> None:
    config = peers.config()
    families = [replace(family, help="Of the rack in Elm Street.") for family in peers.families]
    report = make_report(config.transforms.apply(families, NOW), 0, config.transforms, ["up"])
    assert "Help texts leave as they are, those of up." in list(lines(report, config))
    assert as_json(report, config)["metrics_with_help_text"] == ["up"]


async def test_a_report_of_nothing_names_the_selectors(peers: Peers) -> None:
    config = peers.config(match="nothing")
    report = make_report(config.transforms.apply([], 0), 0, config.transforms, [])
    assert "No series matches nothing: --match names those to take." in list(lines(report, config))
