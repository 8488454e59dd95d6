"""Queries that want too much or make no sense: each is answered for what it is, and the server goes on."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from streamgauge.testing.requests import Series
from streamgauge.testing.server import Parameters, Response, ServerProcess

pytestmark = pytest.mark.usefixtures("responsive")

NOW = int(time.time() * 1000)
YEAR = 31_536_000


@pytest.fixture(scope="module", autouse=True)
def data(server: ServerProcess) -> None:
    samples = [(NOW - 1000 * age, float(age)) for age in range(100)]
    series = [Series({"__name__": "some", "i": str(i), "path": "a" * 40 + "b"}, samples) for i in range(5)]
    assert server.write(series).status == 204


def ask(server: ServerProcess, expression: str, **parameters: str) -> Response:
    path = "/api/v1/query_range" if "step" in parameters else "/api/v1/query"
    return server.post(path, {"query": expression, "time": str(NOW / 1000), **parameters})


def assert_refused(answer: Response, part: str, status: int = 400) -> None:
    assert answer.status == status, answer.text[:500]
    told = answer.json()
    assert told["status"] == "error"
    assert told["errorType"] == {400: "bad_data", 413: "bad_data", 422: "execution", 503: "timeout"}[status]
    assert part in told["error"]
    assert len(answer.text) < 1000


def nested(levels: int, inner: str, range_: str) -> str:
    for _ in range(levels):
        inner = f"max_over_time({inner}{range_})"
    return inner


def test_fifty_nested_subqueries(server: ServerProcess) -> None:
    answer = ask(server, nested(50, "some", "[10s:1s]"))
    assert [series["value"][1] for series in answer.json()["data"]["result"]] == ["99"] * 5
    assert_refused(ask(server, nested(50, "some", "[1y:1s]")), "--query-max-samples", 422)
    assert_refused(ask(server, nested(101, "some", "[10s:1s]")), "nested more than 100 levels")


def test_ten_thousand_chained_operators(server: ServerProcess) -> None:
    for operator in ("+", "*", "-", "/", "or ", "==bool "):
        assert_refused(ask(server, operator.join(["1 "] * 6_000)), "the query has more than 500 operators")
    for prefix in ("-", "1^", "+"):
        assert_refused(ask(server, prefix * 10_000 + "1"), "nested more than 100 levels deep")
    assert_refused(ask(server, " + ".join(["some"] * 10_000)), "the query has 69997 bytes; the limit is 65536")
    answer = ask(server, "+".join(["some"] * 500))
    assert sorted(series["value"][1] for series in answer.json()["data"]["result"]) == ["0"] * 5


def test_a_query_of_a_megabyte(server: ServerProcess) -> None:
    for text in ("some" + " " * (1 << 20), "some+" * 200_000 + "1", 'some{i="' + "x" * (1 << 20) + '"}'):
        assert_refused(ask(server, text), "larger than", 413)
        assert_refused(ask(server, text[:1_000_000].replace(" ", "_").replace("+", "_")), "the limit is 65536")
    long = server.get("/api/v1/query", {"query": "x" * (1 << 20)})
    assert (long.status, long.text) == (431, "the request's header is longer than 65536 bytes\n")
    long = server.get("/api/v1/query", {"query": "x" * 40_000})
    assert (long.status, long.text) == (414, "the request target is longer than 32768 bytes\n")


@pytest.mark.parametrize(
    ("expression", "part"),
    [
        ("some[1e20]", '1:6: parse error: duration out of range: "1e20" s'),
        ("rate(some[1e20:1m])", "duration out of range"),
        ("rate(some[5m:1e20])", "duration out of range"),
        ("some offset 1e20", "duration out of range"),
        ("some @ -1", "1:8: parse error: a time before 1970 after @"),
        ("some @ 1e20", "parse error"),
        ("some @ NaN", "timestamp out of bounds"),
        ("some @ -Inf", "parse error"),
        ("", "no expression"),
        ("(((", "unclosed left parenthesis"),
        ('some{path=~"(a"}', "regex"),
        ('some{path=~"(?=a)b"}', "regex"),
        ('some{path=~"((a{1,100}){1,100}){1,100}"}', "regex"),
        ("some{", "inside braces"),
        ("some[5m", "unclosed"),
        ("sum(some", "unclosed"),
        ("\x00", "unexpected character"),
        ("some \U0001f4a5", "unexpected character"),
        ("nonsense(some)", "nonsense"),
    ],
)
def test_expressions_that_are_refused(server: ServerProcess, expression: str, part: str) -> None:
    assert_refused(ask(server, expression), part)
    assert_refused(ask(server, expression, start="0", end="100", step="1"), part)


@pytest.mark.parametrize(
    "pattern", ["(a+)+c", "(a|aa)+$x", "(.*)*x", "(.*.*)*c", "(a*)*(a*)*(a*)*c", "(x+x+)+y", "(a?){30}a{60}"]
)
def test_a_regex_that_backtracks_elsewhere(server: ServerProcess, pattern: str) -> None:
    assert ask(server, f'some{{path=~"{pattern}"}}').json()["data"]["result"] == []
    assert len(ask(server, f'some{{path!~"{pattern}"}}').json()["data"]["result"]) == 5
    replaced = ask(server, f'label_replace(some, "new", "$1", "path", "{pattern}")').json()["data"]["result"]
    assert len(replaced) == 5


def test_a_year_at_one_second(server: ServerProcess) -> None:
    start, end = str(NOW / 1000 - YEAR), str(NOW / 1000)
    assert_refused(ask(server, "some", start=start, end=end, step="1"), "exceeded maximum resolution of 11,000 points")
    assert_refused(ask(server, "count_over_time(some[1y:1s])"), "--query-max-samples", 422)
    assert_refused(ask(server, "max_over_time((some * 2)[1y:1ms])"), "--query-max-samples", 422)
    month = ask(server, 'count_over_time(some{i="1"}[30d:1s])').json()["data"]["result"]
    assert float(month[0]["value"][1]) >= 99


def test_a_query_that_takes_too_long_is_stopped(server: ServerProcess) -> None:
    sines = "sum_over_time((sum(some * on (i) group_left some))[10d:100ms])"
    assert_refused(ask(server, sines, timeout="1ms"), "timed out after 0.001 s", 503)


@pytest.mark.parametrize(
    ("path", "parameters", "part"),
    [
        ("/api/v1/query", {"query": "1", "time": "NaN"}, 'invalid parameter "time"'),
        ("/api/v1/query", {"query": "1", "time": "9223372036854775.807"}, 'invalid parameter "time"'),
        ("/api/v1/query", {"query": "1", "time": "1e400"}, 'invalid parameter "time"'),
        ("/api/v1/query", {"query": "1", "time": "yesterday"}, 'invalid parameter "time"'),
        ("/api/v1/query", {"query": "1", "timeout": "-1s"}, 'invalid parameter "timeout"'),
        ("/api/v1/query", {"query": "1", "limit": "-1"}, 'invalid parameter "limit"'),
        ("/api/v1/query_range", {"query": "1", "start": "0", "end": "1"}, 'invalid parameter "step"'),
        ("/api/v1/query_range", {"query": "1", "start": "0", "end": "1", "step": "0"}, "positive"),
        ("/api/v1/query_range", {"query": "1", "start": "0", "end": "1", "step": "NaN"}, 'invalid parameter "step"'),
        ("/api/v1/query_range", {"query": "1", "start": "1", "end": "0", "step": "1"}, "before start"),
        ("/api/v1/query_range", {"query": "1", "end": "0", "step": "1"}, 'invalid parameter "start"'),
        ("/api/v1/series", {}, "no match[] parameter provided"),
        ("/api/v1/series", {"match[]": "{"}, "parse error"),
        ("/api/v1/series", {"match[]": "rate(some[5m])"}, "selector"),
        ("/api/v1/labels", {"match[]": '{a=~"("}'}, "regex"),
    ],
)
def test_parameters_that_are_refused(server: ServerProcess, path: str, parameters: Parameters, part: str) -> None:
    assert_refused(server.post(path, parameters), part)


@pytest.mark.parametrize(
    "time", ["-4611686018427387", "-62135596800", "-0.001", "0", "253402300799", "4611686018427387"]
)
def test_times_far_away(server: ServerProcess, time: str) -> None:
    for expression in ("some", "rate(some[290y] offset 290y)", "some offset -290y", "max_over_time(some[100y:1y])"):
        answer = ask(server, expression, time=time)
        assert answer.status == 200, answer.text
        assert answer.json()["data"]["result"] == [] or "290y" in expression


def test_bodies_that_are_no_forms(server: ServerProcess) -> None:
    form = "application/x-www-form-urlencoded"
    for body, kind, status in (
        (b"query=\xff\xfe", form, 400),
        (b"query=%ff", form, 400),
        (b"&".join(b"a=1" for _ in range(20_000)), form, 400),
        (b'{"query": "1"}', "application/json", 415),
        (b"x" * (2 << 20), form, 413),
    ):
        answer = server.request("POST", "/api/v1/query", body, {"content-type": kind})
        assert answer.status == status, answer.text
        assert answer.json()["errorType"] == "bad_data"


def test_what_is_asked_about_series_has_a_limit_too(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server("--query-max-bytes", "100KB", "--query-lookback", "1d")
    many = [Series({"__name__": "m", "i": str(i), "pod": f"{i:0100}"}, [(NOW, 1.0)]) for i in range(3000)]
    assert server.write([*many, Series({"__name__": "few"}, [(NOW, 1.0)])]).status == 204
    for path in ("series?match[]=m", "label/pod/values"):
        assert_refused(server.get(f"/api/v1/{path}"), "102400 bytes of memory (--query-max-bytes)", 422)
    refused = server.get("/federate", {"match[]": "m"})
    assert (refused.status, refused.text.count("--query-max-bytes")) == (422, 1)
    assert server.data_of("/api/v1/labels") == ["__name__", "i", "pod"]
    assert len(server.get("/api/v1/series", {"match[]": "m", "limit": "5"}).json()["data"]) == 5
    assert server.get("/api/v1/status/inspect").status == 200
    assert server.stop() == 0
    server = start_server("--query-max-bytes", "20KB")
    assert_refused(server.get("/api/v1/status/inspect"), "20480 bytes of memory (--query-max-bytes)", 422)
    assert server.stop() == 0
