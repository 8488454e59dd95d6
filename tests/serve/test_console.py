"""The page for browsers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
from collections.abc import AsyncGenerator
from html import unescape
from pathlib import Path

import pytest
from starlette.responses import HTMLResponse
from starlette.types import Receive, Scope, Send

from streamgauge.query.requests import Answer, Job, LabelValuesQuery, RangeQuery, SqlQuery
from streamgauge.serve.app import build_app

pytestmark = pytest.mark.anyio

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NASTY = '<img src=x onerror="document.title=1">'


async def test_a_browser_gets_the_page_and_a_program_the_paths(served):
    page = await served.http.get("/", headers={"accept": "text/html,*/*;q=0.8"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text.startswith("<!doctype html>")
    listing = await served.http.get("/")
    assert "/api/v1/query_range" in listing.json()["paths"]
    assert "/api/v1/write" in listing.json()["paths"]
    assert (page.headers["vary"], listing.headers["vary"]) == ("Accept", "Accept")


async def test_everything_the_page_needs_comes_from_here(served):
    page = (await served.http.get("/graph")).text
    wanted = set(re.findall(r'(?:src|href)="(/[^"]*)"', page))
    for name in ("console.js", "graph.js", "complete.js", "events.js"):
        script = await served.http.get(f"/ui/{name}")
        assert script.headers["content-type"] == "text/javascript; charset=utf-8"
        wanted |= {f"/ui/{module}" for module in re.findall(r'from "\./([^"]+)"', script.text)}
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script.text)
    assert {"/ui/console.css", "/ui/console.js", "/ui/graph.js", "/ui/complete.js"} <= wanted
    for path in wanted:
        assert (await served.http.get(path)).status_code == 200, path
    assert "//" not in re.sub(r"data:[^\"]*", "", page), "the page names another site"


@pytest.mark.parametrize("path", ["/graph", "/ui/console.js", "/ui/console.css"])
async def test_what_a_browser_may_do_with_it(served, path: str):
    headers = (await served.http.get(path)).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["connect-src"]) == ("'none'", "'self'", "'self'")
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


# ---- in a browser ---------------------------------------------------------------------------------------------------

needs_chromium = [
    pytest.mark.peer("chromium"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


def in_browser(test: object) -> object:
    for mark in needs_chromium:
        test = mark(test)
    return test


async def dump(url: str, profile: Path) -> str:
    """The document at `url` as it stands when its scripts have run for five seconds of virtual time."""
    assert CHROMIUM is not None
    quiet = "--disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    process = await asyncio.create_subprocess_exec(
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", *quiet.split(), "--window-size=1000,800"),
        *(f"--user-data-dir={profile}", "--virtual-time-budget=5000", "--dump-dom", url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        document, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return document.decode()


class SampleWorkers:
    """Two series for every range query, one of them with a label value that is a script."""

    async def run(self, job: Job) -> Answer:
        data: object = []
        if isinstance(job.query, LabelValuesQuery):
            data = ["node_load1", "node_cpu_seconds_total"]
        if isinstance(job.query, SqlQuery):
            rows = [["2026-03-01T12:00:00Z", "ERROR", NASTY, '{"k":1}'], ["2026-03-01T11:59:00Z", None, None, '"text"']]
            data = {"columns": [], "rows": rows}
        if isinstance(job.query, RangeQuery):
            steps = range(job.query.start, job.query.end + 1, job.query.step)
            values = [[time / 1000, str(time % 7)] for time in steps]
            series = [{"metric": {"__name__": "node_load1", "why": NASTY}, "values": values}]
            series.append({"metric": {"mode": "idle"}, "values": [[values[0][0], "NaN"], *values[5:9]]})
            data = {"resultType": "matrix", "result": series}
        return Answer(200, "application/json", "identity", self._once({"status": "success", "data": data}))

    async def _once(self, answer: object) -> AsyncGenerator[bytes, None]:
        yield json.dumps(answer).encode()


@in_browser
async def test_the_page_draws_the_first_preset_that_has_data(served, tmp_path: Path):
    served.services.workers = SampleWorkers()
    document = await dump(f"http://localhost:{served.server.port}/", tmp_path)
    presets = re.findall(r'data-query="([^"]+)"', document)
    assert any("node_load1" in query for query in presets)
    assert not any("node_memory" in query for query in presets), "a preset without data is offered"
    assert document.count('class="curve"') == 2
    assert "<title>streamgauge</title>" in document
    assert "<img" not in document
    assert NASTY.replace('"', '\\"') in unescape(document)
    assert '<p id="problem" role="alert" hidden=""></p>' in document
    assert re.search(r"<dt>Series</dt><dd>12</dd>", document)


@in_browser
async def test_the_page_shows_the_latest_events(served, tmp_path: Path):
    served.services.workers = SampleWorkers()
    served.services.last_event = 1_772_366_400_000
    document = await dump(f"http://localhost:{served.server.port}/", tmp_path)
    events = document.partition('<section id="events"')[2].partition("</section>")[0]
    assert events.count("<tr>") == 2
    assert '<td class="bad">ERROR</td>' in events
    assert "<img" not in events
    assert NASTY in unescape(events)
    assert "&lt;em&gt;" not in events
    assert '<em>"text"</em>' in events


@in_browser
async def test_the_page_says_how_to_send_the_first_event(served, tmp_path: Path):
    url = f"http://localhost:{served.server.port}/"
    document = await dump(url, tmp_path)
    assert f"""curl -d '{{"level":"info","message":"hello"}}' {url}</code>""" in unescape(document)
    assert not any(isinstance(job.query, SqlQuery) for job in served.services.workers.jobs), "nothing to ask for"


@in_browser
async def test_the_page_shows_the_server_s_own_words_when_a_query_fails(served, tmp_path: Path):
    document = await dump(f"http://localhost:{served.server.port}/?g0.expr=fails", tmp_path)
    assert "many-to-many" in document


@in_browser
async def test_the_page_works_where_its_address_holds_the_password_of_a_proxy(served, tmp_path: Path):
    document = await dump(f"http://name:secret@localhost:{served.server.port}/?g0.expr=fails", tmp_path)
    assert "many-to-many" in document


HARNESS = """<!doctype html><input id="expr"><ul id="list" hidden></ul><pre id="out"></pre>
<script type="module">
import { attachCompletion } from "/ui/complete.js";
import { compact, seriesName } from "/ui/graph.js";
const [expr, list, out] = ["expr", "list", "out"].map((id) => document.getElementById(id));
attachCompletion(expr, list, () => [["node_load1", "gauge: load"], ["node_load15", ""], ["rate_limit", ""]]);
const log = (name, value) => out.append(name + "=" + JSON.stringify(value) + "\\n");
const offered = () => (list.hidden ? null : [...list.children].map((item) => item.firstChild.data));
function type(text) {
  expr.value = text;
  expr.setSelectionRange(text.length, text.length);
  expr.dispatchEvent(new Event("input"));
}
const press = (key) => expr.dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
type("sum(load"); log("inner", offered());
press("ArrowDown"); press("ArrowDown"); press("Enter"); log("accepted", expr.value); log("closed", offered());
type("up{job"); log("in_braces", offered());
type('x{a="load'); log("in_quotes", offered());
type("up[load"); log("in_brackets", offered());
type("rat"); log("prefix_first", offered().slice(0, 2));
press("Escape"); log("escaped", offered());
log("numbers", [0, 1234567, 0.5, -2e9, 1e-9, Infinity, NaN].map((value) => compact(value)));
log("names", [{}, { __name__: "up" }, { __name__: "up", "a.b": 'q"' }].map(seriesName));
</script>"""


@in_browser
async def test_completion_numbers_and_names(served, listen, tmp_path: Path):
    app = build_app(served.services)

    async def with_harness(scope: Scope, receive: Receive, send: Send) -> None:
        inner = HTMLResponse(HARNESS) if scope["path"] == "/harness" else app
        await inner(scope, receive, send)

    server = await listen(with_harness)
    document = unescape(await dump(f"http://localhost:{server.port}/harness", tmp_path))
    out = document.partition('<pre id="out">')[2].partition("</pre>")[0]
    seen = {name: json.loads(value) for name, value in re.findall(r"(\w+)=(.+)\n", out)}
    assert seen == {
        "inner": ["node_load1", "node_load15"],
        "accepted": "sum(node_load15",
        "closed": None,
        "in_braces": None,
        "in_quotes": None,
        "in_brackets": None,
        "prefix_first": ["rate", "rate_limit"],
        "escaped": None,
        "numbers": ["0", "1.235M", "0.5", "-2G", "1.00e-9", "Inf", "NaN"],
        "names": ["{}", "up", 'up{"a.b"="q\\""}'],
    }
