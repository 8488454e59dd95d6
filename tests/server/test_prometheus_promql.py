"""The same data, written to Debian's Prometheus and to us, and the same questions: the answers must agree.

That Prometheus is 2.42, ours are the semantics of 3. What differs between the two, and how it is kept out of the way:

- Ranges and lookback are closed on the left in 2, open in 3: sample times lie off the grid of query times, and query
  times off the grid of subquery steps.
- Where samples begin within a range and the counter is near zero, `rate` and `increase` extrapolate differently:
  counters begin high, and nothing but they is asked for its rate.
- `atan2` keeps the metric's name in 2.
- `double_exponential_smoothing` is called `holt_winters` in 2.
- 2 has no annotations, no `limitk`, `info`, `sort_by_label`, `mad_over_time` and `ts_of_…`: not asked for here.
- Sums are compensated in more places in 3: values are compared to nine digits.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamgauge.testing.requests import STALE, Sample, Series
from streamgauge.testing.server import ServerProcess

pytestmark = pytest.mark.peer("prometheus")

MINUTE = 60_000
END = int(time.time() * 1000) // MINUTE * MINUTE - MINUTE  # whole minutes; samples are 137 ms and more past a second
BEGIN = END - 60 * MINUTE
START_S, END_S, STEP_S = BEGIN // 1000 + 10 * 60 + 7, END // 1000 - 60 + 7, 60
"""Query times: seven seconds past a minute, never on the grid of a subquery."""


def random_series() -> list[Series]:
    chance = random.Random(42)
    series = []
    for job in ("api", "web"):
        for instance in ("a:1", "b:1", "c:2"):
            for code in ("200", "404", "500"):
                labels = {"__name__": "c_total", "job": job, "instance": instance, "code": code}
                series.append(Series(labels, counter(chance)))
            series.append(Series({"__name__": "g", "job": job, "instance": instance}, gauge(chance)))
            series.append(Series({"__name__": "other", "job": job, "instance": instance}, gauge(chance)))
            series.append(Series({"__name__": "gaps", "job": job, "instance": instance}, gaps(chance)))
        buckets = [[0.0] * 6 for _ in range(241)]
        for at in range(1, 241):
            more = [chance.randint(0, 5) for _ in range(6)]
            buckets[at] = [buckets[at - 1][i] + sum(more[: i + 1]) for i in range(6)]
        for i, bound in enumerate(("0.1", "0.5", "1", "5", "10", "+Inf")):
            points = [(BEGIN + 15_000 * at + 137, row[i]) for at, row in enumerate(buckets)]
            series.append(Series({"__name__": "h_bucket", "job": job, "le": bound}, points))
    series.append(Series({"__name__": "info", "job": "api", "version": "1.2"}, [(t, 1.0) for t, _ in gauge(chance)]))
    special = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e300, 5e-324]
    series.append(Series({"__name__": "odd"}, [(t, chance.choice(special)) for t, _ in gauge(chance)]))
    return series


def counter(chance: random.Random) -> list[Sample]:
    value, points = 1e6, []
    for at in range(240):
        value = 0.0 if chance.random() < 0.02 else value + chance.choice([0, 0, 1, chance.random() * 50])
        points.append((BEGIN + 15_000 * at + 137, value))
    return points


def gauge(chance: random.Random) -> list[Sample]:
    """At irregular moments."""
    moment, points = BEGIN + 211, []
    while moment < END:
        points.append((moment, round(chance.gauss(0, 100), 3)))
        moment += chance.choice([5_000, 10_000, 20_000, 31_000])
    return points


def gaps(chance: random.Random) -> list[Sample]:
    """A gauge that goes away, with a stale marker or without."""
    kept: list[Sample] = []
    for start in range(BEGIN, END, 10 * MINUTE):
        until = start + chance.randint(1, 9) * MINUTE
        kept += [(t, v) for t, v in gauge(chance) if start <= t < until]
        if chance.random() < 0.5:
            kept.append((until + 449, STALE))
    return kept


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder: Path = tmp_path_factory.mktemp("prometheus")
    arguments = ["--web.enable-remote-write-receiver"]
    with ServerProcess.start_prometheus(folder, "scrape_configs: []\n", arguments) as running:
        assert running.write(random_series()).status == 204
        yield running


@pytest.fixture(scope="module", autouse=True)
def ours(server: ServerProcess) -> None:
    assert server.write(random_series()).status == 204


EXPRESSIONS = """
c_total
g
gaps
odd
{__name__=~"c_.*|g", job!="web"}
c_total{code=~"4..|5..", instance!~"a.*"}
rate(c_total[5m])
rate(c_total[1m])
delta(gaps[3m])
rate(c_total{code="404"}[20m])
irate(c_total[2m])
increase(c_total[7m])
delta(g[5m])
idelta(g[5m])
deriv(g[10m])
predict_linear(g[10m], 600)
changes(g[5m])
changes(c_total[10m])
resets(c_total[20m])
avg_over_time(g[5m])
sum_over_time(g[5m])
min_over_time(g[5m])
max_over_time(gaps[5m])
count_over_time(gaps[10m])
stddev_over_time(g[5m])
stdvar_over_time(g[9m])
last_over_time(gaps[10m])
present_over_time(gaps[3m])
absent_over_time(gaps{job="api", instance="a:1"}[2m])
absent_over_time(nothing{a="b"}[5m])
absent(gaps{job="api"})
absent(nothing{a="b", c=~"d"})
quantile_over_time(0.9, g[5m])
quantile_over_time(1.5, g[5m])
holt_winters(g[10m], 0.5, 0.3)
sum(c_total)
sum by (job) (rate(c_total[5m]))
sum without (instance) (rate(c_total[5m]))
avg by (job, code) (c_total)
min by (instance) (g)
max without (job) (g)
count by (job) (gaps)
group by (code) (c_total)
stddev by (job) (g)
stdvar(g)
quantile by (job) (0.3, g)
quantile(-1, g)
topk(2, g)
topk by (job) (1, rate(c_total[5m]))
bottomk(3, c_total)
count_values("value", round(g, 100))
count_values by (job) ("value", clamp(gaps, -1, 1))
histogram_quantile(0.5, sum by (le, job) (rate(h_bucket[5m])))
histogram_quantile(0.99, h_bucket)
histogram_quantile(0, rate(h_bucket[10m]))
histogram_quantile(1, rate(h_bucket{le!="+Inf"}[10m]))
g + other
g - on (job, instance) other
g * 2 ^ -1
g % 7
-g
-g ^ 2
g / other > bool 1
g > other
g == bool g
g >= 0 <= 50
g < 10 or g > 50
g and gaps
gaps unless g
g or gaps
g and on (job) info
g * on (job) group_left (version) info
info * on (job) group_right (version) g
c_total / on (job, instance) group_left sum by (job, instance) (c_total)
c_total / ignoring (code) group_left sum without (code) (c_total)
sum by (code) (c_total) / scalar(sum(c_total))
(g + 0) atan2 other
abs(g)
ceil(g)
floor(g)
round(g, 5)
round(g)
sgn(g)
sqrt(abs(g))
exp(g / 100)
ln(abs(g))
log2(abs(g))
log10(abs(g))
clamp(g, -50, 50)
clamp_min(g, 0)
clamp_max(g, 0)
sin(g) + cos(g) + tan(g)
asin(g / 400) + acos(g / 400) + atan(g)
sinh(g / 100) + cosh(g / 100) + tanh(g / 100)
deg(g) + rad(g)
sort(sum by (code) (c_total))
sort_desc(sum by (instance) (c_total))
vector(time())
scalar(sum(g)) + 1
time() - timestamp(g)
timestamp(c_total)
minute()
hour(vector(1234567890))
day_of_week(timestamp(c_total))
day_of_month() + month() + year() + days_in_month() + day_of_year()
label_replace(g, "host", "$1-$2", "instance", "(.*):(.*)")
label_replace(g, "job", "x$0", "job", ".*") * 0 + 1 and on () vector(1)
label_join(g, "both", "/", "job", "instance")
g offset 5m
rate(c_total[5m] offset 10m)
g offset -3m
rate(c_total[5m]) / rate(c_total[5m] offset 7m)
max_over_time(rate(c_total[2m])[10m:1m])
avg_over_time((g + other)[5m:30s])
min_over_time(sum by (job) (g)[10m:])
sum_over_time(gaps[10m:10s])
deriv(sum(c_total)[10m:30s])
rate(sum(c_total)[10m:30s])
quantile_over_time(0.5, (g > 0)[20m:1m])
max_over_time(max_over_time(g[5m])[10m:1m])
sum_over_time(odd[3m])
max_over_time(odd[5m])
avg_over_time(odd[2m])
sum(odd) + 1
odd > 0
odd == odd
topk(1, odd)
sum by (nothing) (g)
1 + 2 * 3 % 4 ^ 2 ^ 0.5
1 / 0
-1 % 0
"text"
pi()
""".strip().splitlines()

AT = [
    f"g @ {BEGIN // 1000 + 1207}",
    "rate(c_total[5m] @ end())",
    "g - g @ start()",
    f"avg_over_time(sum(c_total)[10m:1m] @ {BEGIN // 1000 + 1507} offset 3m)",
]


def ours_of(expression: str) -> str:
    return expression.replace("holt_winters", "double_exponential_smoothing")


def comparable(answer: dict[str, Any]) -> Any:
    """An answer with series in a fixed order and numbers as floats."""
    assert answer["status"] == "success", answer
    kind, result = answer["data"]["resultType"], answer["data"]["result"]
    if kind in ("scalar", "string"):
        return kind, result
    rows = {}
    for series in result:
        points = series["values"] if "values" in series else [series["value"]]
        rows[json.dumps(series["metric"], sort_keys=True)] = {moment: float(value) for moment, value in points}
    assert len(rows) == len(result)
    return kind, rows


def assert_same(ours: Any, theirs: Any) -> None:
    assert ours[0] == theirs[0]
    if ours[0] in ("scalar", "string"):
        assert ours == theirs
        return
    assert ours[1].keys() == theirs[1].keys()
    for series, points in theirs[1].items():
        assert ours[1][series] == pytest.approx(points, rel=1e-9, abs=1e-9, nan_ok=True), series


@pytest.mark.parametrize("expression", EXPRESSIONS + AT)
def test_the_same_answers(server: ServerProcess, prometheus: ServerProcess, expression: str) -> None:
    instant = {"time": str(END_S)}
    theirs = comparable(prometheus.post("/api/v1/query", {"query": expression, **instant}).json())
    assert_same(comparable(server.post("/api/v1/query", {"query": ours_of(expression), **instant}).json()), theirs)
    if theirs[0] == "string":
        return
    span = {"start": str(START_S), "end": str(END_S), "step": str(STEP_S)}
    theirs = comparable(prometheus.post("/api/v1/query_range", {"query": expression, **span}).json())
    assert_same(comparable(server.post("/api/v1/query_range", {"query": ours_of(expression), **span}).json()), theirs)


@pytest.mark.parametrize("selector", ["c_total[2m]", "gaps[10m]", "odd[5m]", "sum(g)[5m:30s]", "nothing[5m]"])
def test_the_same_raw_samples(server: ServerProcess, prometheus: ServerProcess, selector: str) -> None:
    form = {"query": selector, "time": str(END_S)}
    ours, theirs = (comparable(each.post("/api/v1/query", form).json()) for each in (server, prometheus))
    assert_same(ours, theirs)


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("labels", {"match[]": '{__name__=~"c_total|g|h_bucket|info"}'}),
        ("label/job/values", {"match[]": "c_total"}),
        ("label/le/values", {"match[]": "h_bucket"}),
        ("label/nothing/values", {}),
        ("series", {"match[]": ["g", 'c_total{code="500"}']}),
    ],
)
def test_the_same_labels(
    server: ServerProcess, prometheus: ServerProcess, path: str, parameters: dict[str, Any]
) -> None:
    asked = {**parameters, "start": str(START_S), "end": str(END_S)}
    ours, theirs = (each.get(f"/api/v1/{path}", asked).json()["data"] for each in (server, prometheus))
    in_order = (
        sorted if path != "series" else lambda rows: sorted(map(json.dumps, (dict(sorted(r.items())) for r in rows)))
    )
    assert in_order(ours) == in_order(theirs)


@pytest.mark.parametrize(
    "expression",
    [
        "c_total +",
        "rate(c_total)",
        "sum(g[5m])",
        "g + on (job) other",
        "g * on (job) group_left () c_total",
        "label_replace(g, 'a b', '', 'job', '(')",
        "c_total{}}",
        "topk(g, g)",
        "{}",
        '{job=~".*"}',
        "nonsense(g)",
        "g[5m] + 1",
        "g offset x",
    ],
)
def test_the_same_refusals(server: ServerProcess, prometheus: ServerProcess, expression: str) -> None:
    form = {"query": expression, "time": str(END_S)}
    ours, theirs = (each.post("/api/v1/query", form) for each in (server, prometheus))
    assert (ours.status, ours.json()["errorType"]) == (theirs.status, theirs.json()["errorType"]), ours.text


def test_numbers_read_as_json_are_the_same_text(server: ServerProcess, prometheus: ServerProcess) -> None:
    """Values are text in the API; both must spell them alike, for clients that compare."""
    form = {"query": "odd[60m]", "time": str(END_S)}
    ours, theirs = (
        each.post("/api/v1/query", form).json()["data"]["result"][0]["values"] for each in (server, prometheus)
    )
    assert ours == theirs
