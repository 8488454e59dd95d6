"""/api/v1/targets and its like: what is scraped, and how that goes.

https://prometheus.io/docs/prometheus/latest/querying/api/#targets
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from streamgauge.durations import format_duration
from streamgauge.errors import BadInput, QueryFailed
from streamgauge.ingest.scrape.loop import ScrapeLoop
from streamgauge.ingest.scrape.pool import ScrapePool
from streamgauge.relabel import Action, Relabelling, Rule
from streamgauge.serve.answers import json_answer
from streamgauge.serve.endpoint import Endpoint
from streamgauge.serve.params import quoted
from streamgauge.serve.status_api import rfc3339

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from streamgauge.serve.params import Params
    from streamgauge.serve.services import Services

MAX_METADATA = 100_000
"""Entries of one answer: 30 MB of JSON or so, and a hundred targets of a thousand metrics."""

_NEVER = "0001-01-01T00:00:00Z"
_STATES = ("active", "dropped", "any")
_MATCHER = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*|"(?:[^"\\]|\\.)*")\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*(,|$)')

Labels = Mapping[str, str]


class TargetsApi:
    def __init__(self, services: Services) -> None:
        self._services = services

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint("/api/v1/targets", self.targets, params=("state", "scrapePool")),
            Endpoint("/api/v1/targets/metadata", self.metadata, params=("match_target", "metric", "limit")),
            Endpoint("/api/v1/scrape_pools", self.pools),
        ]

    async def pools(self, request: Request, params: Params) -> Response:
        return await json_answer(request, {"scrapePools": sorted(self._services.scrape_pools())})

    async def targets(self, request: Request, params: Params) -> Response:
        state = params.text("state").lower() or "any"
        if state not in _STATES:
            raise BadInput(f'invalid parameter "state": {quoted(state)} is not one of {", ".join(_STATES)}')
        chosen = params.text("scrapePool")
        pools = {name: pool for name, pool in self._services.scrape_pools().items() if chosen in ("", name)}
        answer: dict[str, object] = {"activeTargets": [], "droppedTargets": []}
        if state != "dropped":
            answer["activeTargets"] = [_active(name, loop) for name, pool in pools.items() for loop in pool.loops]
            invalid = [{"scrapePool": name, "error": error} for name, pool in pools.items() for error in pool.failures]
            if invalid:
                answer["invalidTargets"] = invalid
        if state != "active":
            answer["droppedTargets"] = [
                {"discoveredLabels": dict(labels), "scrapePool": name}
                for name, pool in pools.items()
                for labels in pool.dropped
            ]
            answer["droppedTargetCounts"] = {name: pool.dropped_count for name, pool in pools.items()}
        return await json_answer(request, answer)

    async def metadata(self, request: Request, params: Params) -> Response:
        matches = selector(params.text("match_target"))
        metric, text = params.text("metric"), params.text("limit")
        try:
            limit = int(text) if text else -1
        except ValueError:
            raise BadInput("limit must be a number") from None
        found: list[dict[str, object]] = []
        for loop in _loops(self._services.scrape_pools()):
            if 0 <= limit <= len(found):
                break
            if matches(loop.scraper.target.labels):
                found += _known(loop, metric)
                if 0 <= limit < len(found):
                    del found[limit:]
                if len(found) > MAX_METADATA:
                    raise QueryFailed(
                        f"there are more than {MAX_METADATA} entries; ask for fewer with match_target, metric or limit"
                    )
                await asyncio.sleep(0)
        return await json_answer(request, found)


def _known(loop: ScrapeLoop, metric: str) -> Iterator[dict[str, object]]:
    """What one target says of its metrics; of one metric, unless that is ""."""
    labels = dict(loop.scraper.target.labels)
    for known in loop.scraper.metadata():
        if metric in ("", known.metric):
            name = {} if metric else {"metric": known.metric}
            yield {"target": labels, **name, "type": known.type, "help": known.help, "unit": known.unit}


def _loops(pools: Mapping[str, ScrapePool]) -> list[ScrapeLoop]:
    return [loop for pool in pools.values() for loop in pool.loops]


def _active(pool: str, loop: ScrapeLoop) -> dict[str, object]:
    target, report = loop.scraper.target, loop.scraper.report
    return {
        "discoveredLabels": dict(target.discovered),
        "labels": dict(target.labels),
        "scrapePool": pool,
        "scrapeUrl": target.url,
        "globalUrl": target.url,
        "lastError": _overdue(loop) or report.error,
        "lastScrape": rfc3339(report.started) if report.started else _NEVER,
        "lastScrapeDuration": report.duration,
        "health": report.health.value,
        "scrapeInterval": format_duration(target.interval),
        "scrapeTimeout": format_duration(target.timeout),
    }


def _overdue(loop: ScrapeLoop) -> str:
    """What is to be said while a scrape takes longer than its timeout, which ends fetching, not reading and storing."""
    if loop.taking * 1000 <= loop.scraper.target.timeout:
        return ""
    return f"being scraped for {loop.taking:.0f} s, and not done: it has very many new series, or the disk is slow"


def selector(text: str) -> Callable[[Labels], bool]:
    """A test of labels from matchers in braces, such as {job="node",instance!~"test.*"}. Raises BadInput."""
    inner = text.strip()
    if not inner:
        return lambda labels: True
    if not inner.startswith("{") or not inner.endswith("}"):
        raise BadInput(f'invalid parameter "match_target": expected matchers in braces, not {quoted(text)}')
    inner = inner[1:-1].strip().removesuffix(",")
    tests: list[Callable[[Labels], bool]] = []
    at = 0
    while at < len(inner):
        found = _MATCHER.match(inner, at)
        if found is None:
            raise BadInput(f'invalid parameter "match_target": expected name="value" at {quoted(inner[at:])}')
        name, op, value, _ = found.groups()
        tests.append(_test(_unquoted(name[1:-1]) if name.startswith('"') else name, op, _unquoted(value)))
        at = found.end()
    return lambda labels: all(test(labels) for test in tests)


def _test(name: str, op: str, value: str) -> Callable[[Labels], bool]:
    if op == "=":
        return lambda labels: labels.get(name, "") == value
    if op == "!=":
        return lambda labels: labels.get(name, "") != value
    keeps = Relabelling([Rule(Action.KEEP if op == "=~" else Action.DROP, (name,), regex=value)])
    return lambda labels: keeps.apply(labels) is not None


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: {"n": "\n", "t": "\t"}.get(match[1], match[1]), text)
