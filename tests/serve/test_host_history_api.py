"""What is asked about the past of hosts, and what is refused."""

from __future__ import annotations

import pytest

from streamgauge.model.host_history import DAY_MS, HOUR_MS, MINUTE_MS
from streamgauge.query.hosts.history import HostHistoryQuery, HostNamesQuery
from streamgauge.query.requests import HistoryQuery

pytestmark = pytest.mark.anyio


async def asked(served, path, **parameters):
    response = await served.http.get(path, params=parameters)
    assert response.status_code == 200, response.text
    query = served.services.workers.jobs[-1].query
    assert isinstance(query, HistoryQuery)
    assert query.fails_in_text, "as what is refused before"
    return query.history


async def refused(served, path, **parameters):
    response = await served.http.get(path, params=parameters)
    assert response.status_code == 400
    assert not served.services.workers.jobs
    return response.text


@pytest.mark.parametrize(
    ("name", "length", "resolution", "label"),
    [
        ("", HOUR_MS, MINUTE_MS, "1 hour"),
        ("30m", HOUR_MS // 2, MINUTE_MS, "30 minutes"),
        ("6h", 6 * HOUR_MS, 5 * MINUTE_MS, "6 hours"),
        ("24h", DAY_MS, 15 * MINUTE_MS, "24 hours"),
        ("365d", 365 * DAY_MS, 4 * DAY_MS, "365 days"),
    ],
)
async def test_a_range_is_so_long_and_so_fine(served, clock, name, length, resolution, label):
    now = clock.now_ms()
    wanted = HostHistoryQuery("h", label, now - length, now, resolution)
    assert await asked(served, "/telemetry/history", host="h", range=name) == wanted


async def test_start_end_and_step_ask_for_any_time(served, clock):
    wanted = HostHistoryQuery("h", "1970-01-01T00:01:40Z/1970-01-01T01:01:40Z", 99_999, 3_700_000, 300_000)
    assert await asked(served, "/telemetry/history", host="h", start="100", end="3700", step="5m") == wanted
    now = clock.now_ms()
    by_default = await asked(served, "/telemetry/history", host="h", step="1h")
    assert (by_default.start, by_default.end) == (now - DAY_MS - 1, now)
    fine = await asked(served, "/telemetry/history", host="h", start=f"{(now - 200 * HOUR_MS) / 1000}")
    assert fine.resolution == 2 * HOUR_MS


async def test_what_cannot_be_answered_is_refused_in_the_words_of_the_reference(served):
    assert await refused(served, "/telemetry/history") == "host parameter required\n"
    assert await refused(served, "/telemetry/history", range="2h") == "host parameter required\n"
    said = await refused(served, "/telemetry/history", host="h", range="2h")
    assert said == "invalid range; use 30m, 1h, 6h, or 24h\n"


@pytest.mark.parametrize(
    ("parameters", "part"),
    [
        ({"range": "1h", "start": "0"}, "start, end and step"),
        ({"start": "x"}, '"start"'),
        ({"start": "5", "end": "4"}, '"end"'),
        ({"step": "0"}, '"step"'),
        ({"step": "-1"}, '"step"'),
        ({"start": "0", "end": "1000000", "step": "1"}, "11000"),
        ({"start": "-1e300", "step": "1h"}, '"start"'),
    ],
)
async def test_times_that_make_no_sense_are_refused(served, parameters, part):
    assert part in await refused(served, "/telemetry/history", host="h", **parameters)


async def test_the_ends_of_time_are_times(served):
    wide = {"start": "-292273086-05-16T16:47:06Z", "end": "292277025-08-18T07:12:54.999999999Z"}
    query = await asked(served, "/telemetry/history", host="h", **wide)
    assert (query.end - query.start) // query.resolution <= 100


async def test_hosts_are_those_of_a_day_unless_told_otherwise(served, clock):
    now = clock.now_ms()
    assert await asked(served, "/telemetry/hosts") == HostNamesQuery(now - DAY_MS - 1, now)
    assert await asked(served, "/telemetry/hosts", start="0", end="9") == HostNamesQuery(-1, 9000)
