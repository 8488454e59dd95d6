"""Counters, as reverse proxies tell them, and the samples that they become."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from streamgauge.config import parse_config
from streamgauge.model.host_history import HostSource
from streamgauge.model.host_sources import SOURCES
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.dispatch import execute
from streamgauge.query.requests import HostSamplesQuery, Job
from streamgauge.testing.source import MemorySource, Series

PAGE = Path(__file__).parents[3] / "docs" / "host-history.md"
NOW = 1_700_000_000_000
MINUTE = 60_000


def counter(before: float | None, now: float, name: str, **labels: str) -> Series:
    """A series with a value a minute and a second ago, and one a second ago."""
    times = [NOW - MINUTE - 1000, NOW - 1000]
    values = [before, now] if before is not None else [now]
    return {"__name__": name, "job": "j", "instance": "i", **labels}, times[-len(values) :], values


def histogram(name: str, bounds: Mapping[str, tuple[float, float]], **labels: str) -> list[Series]:
    return [counter(before, now, name, le=bound, **labels) for bound, (before, now) in bounds.items()]


def ask(series: Sequence[Series], *sources: str | HostSource, by: tuple[str, ...] = ()) -> Any:
    chosen = tuple(SOURCES[each] if isinstance(each, str) else each for each in sources) or tuple(SOURCES.values())
    query = HostSamplesQuery(chosen, NOW - MINUTE, NOW, by)
    return json.loads(b"".join(execute(Job(query), MemorySource.of(series), Budget(Limits())).body))


def samples(series: Sequence[Series], *sources: str | HostSource) -> dict[str, tuple[float, ...]]:
    """Requests a second, p99 in ms, errors in percent and backends, by host."""
    answer = ask(series, *sources)
    assert not answer["failures"]
    return {labels["host"]: tuple(values) for labels, *values in answer["samples"]}


PROXIES: Mapping[str, list[Series]] = {
    "caddy": [
        counter(100, 220, "caddy_http_requests_total", handler="subroute", host="h", server="srv0"),
        counter(0, 12, "caddy_http_request_duration_seconds_count", code="502", host="h", server="srv0"),
        counter(80, 188, "caddy_http_request_duration_seconds_count", code="200", host="h", server="srv0"),
        *histogram(
            "caddy_http_request_duration_seconds_bucket",
            {"0.1": (0, 0), "0.2": (80, 200), "+Inf": (80, 200)},
            code="200",
            host="h",
            server="srv0",
        ),
        counter(1, 1, "caddy_reverse_proxy_upstreams_healthy", upstream="a:1"),
        counter(1, 1, "caddy_reverse_proxy_upstreams_healthy", upstream="b:1"),
        counter(1, 0, "caddy_reverse_proxy_upstreams_healthy", upstream="c:1"),
    ],
    "traefik": [
        counter(100, 208, "traefik_service_requests_total", code="200", service="h"),
        counter(None, 12, "traefik_service_requests_total", code="503", service="h"),
        *histogram(
            "traefik_service_request_duration_seconds_bucket",
            {"0.1": (0, 0), "0.2": (80, 200), "+Inf": (80, 200)},
            service="h",
        ),
        counter(1, 1, "traefik_service_server_up", service="h", url="http://a"),
        counter(1, 1, "traefik_service_server_up", service="h", url="http://b"),
    ],
    "envoy": [
        counter(100, 220, "envoy_cluster_upstream_rq_total", envoy_cluster_name="h"),
        counter(0, 12, "envoy_cluster_upstream_rq_xx", envoy_cluster_name="h", envoy_response_code_class="5"),
        counter(0, 99, "envoy_cluster_upstream_rq_xx", envoy_cluster_name="h", envoy_response_code_class="2"),
        *histogram(
            "envoy_cluster_upstream_rq_time_bucket",
            {"100": (0, 0), "200": (80, 200), "+Inf": (80, 200)},
            envoy_cluster_name="h",
        ),
        counter(3, 2, "envoy_cluster_membership_healthy", envoy_cluster_name="h"),
    ],
    "haproxy": [
        counter(100, 220, "haproxy_backend_http_requests_total", proxy="h"),
        counter(0, 12, "haproxy_backend_http_responses_total", proxy="h", code="5xx"),
        counter(0, 99, "haproxy_backend_http_responses_total", proxy="h", code="2xx"),
        counter(2, 2, "haproxy_backend_active_servers", proxy="h"),
    ],
    "nginx-ingress": [
        counter(100, 208, "nginx_ingress_controller_requests", host="h", status="200"),
        counter(0, 12, "nginx_ingress_controller_requests", host="h", status="500"),
        *histogram(
            "nginx_ingress_controller_request_duration_seconds_bucket",
            {"0.1": (0, 0), "0.2": (80, 200), "+Inf": (80, 200)},
            host="h",
        ),
    ],
    "nginx-vts": [
        counter(100, 208, "nginx_vts_server_requests_total", host="h", code="2xx"),
        counter(0, 12, "nginx_vts_server_requests_total", host="h", code="5xx"),
        counter(100, 220, "nginx_vts_server_requests_total", host="h", code="total"),
        counter(100, 220, "nginx_vts_server_requests_total", host="*", code="2xx"),
        *histogram(
            "nginx_vts_server_request_duration_seconds_bucket",
            {"0.1": (0, 0), "0.2": (80, 200), "+Inf": (80, 200)},
            host="h",
        ),
    ],
    "nginx": [counter(100, 220, "nginx_http_requests_total")],
    "app": [
        counter(100, 220, "http_host_requests_total", host="h"),
        counter(0, 12, "http_host_errors_total", host="h"),
        *histogram(
            "http_host_request_duration_seconds_bucket",
            {"0.1": (0, 0), "0.2": (80, 200), "+Inf": (80, 200)},
            host="h",
        ),
        counter(1, 1, "http_host_backends", host="h"),
    ],
}
LESS = {"haproxy": {"p99": 0.0}, "nginx": {"p99": 0.0, "errors": 0.0, "host": "i"}}
BACKENDS = {"caddy": 2, "traefik": 2, "envoy": 2, "haproxy": 2, "app": 1}


@pytest.mark.parametrize("name", SOURCES)
def test_each_entry_of_the_table_reads_its_program(name: str) -> None:
    less = LESS.get(name, {})
    found = samples(PROXIES[name])
    assert list(found) == [less.get("host", "h")]
    ((per_second, p99, errors, backends),) = found.values()
    assert per_second == pytest.approx(2.0)
    assert p99 == pytest.approx(less.get("p99", 199.0))
    assert errors == pytest.approx(less.get("errors", 10.0))
    assert backends == BACKENDS.get(name, 0)


def test_the_first_sample_has_no_rate() -> None:
    assert samples([counter(None, 5000, "nginx_http_requests_total")]) == {"i": (0.0, 0.0, 0.0, 0)}


def test_a_restart_is_no_request_and_never_less_than_none() -> None:
    series = [
        counter(5000, 7, "http_host_requests_total", host="h"),
        counter(50, 3, "http_host_errors_total", host="h"),
        *histogram("http_host_request_duration_seconds_bucket", {"0.1": (1, 5), "+Inf": (5000, 7)}, host="h"),
        counter(1, 1, "http_host_backends", host="h"),
    ]
    assert samples(series) == {"h": (0.0, 0.0, 0.0, 1)}


def test_a_status_that_is_new_counts_in_full_where_its_program_was_known() -> None:
    series = [
        counter(100, 160, "traefik_service_requests_total", code="200", service="h"),
        counter(None, 60, "traefik_service_requests_total", code="500", service="h"),
    ]
    assert samples(series)["h"][:1] == (2.0,)
    unknown = [counter(None, 60, "traefik_service_requests_total", code="500", service="h", instance="new")]
    assert samples(series + unknown)["h"][:1] == (2.0,), "what it counted before it was seen is nobody's minute"


def test_backends_of_a_host_are_added_up_and_their_histograms_merged() -> None:
    def program(instance: str, fast: float, slow: float) -> list[Series]:
        buckets = {"0.1": (0, fast), "1": (0, fast + slow), "+Inf": (0, fast + slow)}
        return [
            counter(0, fast + slow, "http_host_requests_total", host="h", instance=instance),
            *histogram("http_host_request_duration_seconds_bucket", buckets, host="h", instance=instance),
            counter(1, 1, "http_host_backends", host="h", instance=instance),
        ]

    per_second, p99, errors, backends = samples(program("a", 990, 0) + program("b", 0, 10))["h"]
    assert per_second == pytest.approx(1000 / 60)
    assert p99 == pytest.approx(100.0), "of all thousand, not the mean of 99 and 991"
    assert (errors, backends) == (0.0, 2)


def test_of_two_that_name_a_host_the_first_is_believed() -> None:
    series = [
        counter(0, 120, "caddy_http_requests_total", host="h", server="s"),
        counter(0, 60, "http_host_requests_total", host="h"),
        counter(0, 60, "http_host_requests_total", host="other"),
    ]
    assert {host: values[0] for host, values in samples(series, "caddy", "app").items()} == {"h": 2.0, "other": 1.0}
    assert samples(series, "app", "caddy")["h"][0] == 1.0


def test_caddy_without_names_of_hosts_gives_its_servers() -> None:
    assert samples([counter(0, 60, "caddy_http_requests_total", server="srv0")])["srv0"][0] == 1.0


def test_a_request_that_caddy_counts_for_several_handlers_can_be_counted_once() -> None:
    name = "caddy_http_requests_total"
    several = [counter(0, 60, name, handler=each, server="srv0") for each in ("encode", "headers", "reverse_proxy")]
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (described,) = (block for block in blocks if "caddy-proxy" in block)
    settings = parse_config(described, "page.yml", {}).host_history
    assert settings is not None
    assert samples(several, *settings.sources)["srv0"][0] == 1.0
    assert samples(several, "caddy")["srv0"][0] == 3.0, "which is what the page warns of"


def test_what_is_stored_otherwise_is_described_in_promql() -> None:
    source = HostSource(
        "old",
        ("vhost",),
        'sum by (vhost, instance) (hits{kind!="x"})',
        latency="slow_bucket",
        unit=1.0,
        backends="count by (vhost) (hits)",
    )
    series = [
        counter(0, 60, "hits", vhost="h", kind="a"),
        counter(0, 60, "hits", vhost="h", kind="b"),
        counter(0, 60, "hits", vhost="h", kind="x"),
        *histogram("slow_bucket", {"10": (0, 100), "+Inf": (0, 100)}, vhost="h"),
    ]
    assert samples(series, source)["h"] == pytest.approx((2.0, 9.9, 0.0, 3))


def test_a_source_that_fails_takes_no_other_with_it() -> None:
    broken = HostSource("broken", ("host",), "rate(")
    answer = ask([counter(0, 60, "http_host_requests_total", host="h")], broken, "app")
    assert list(answer["failures"]) == ["broken"]
    assert len(answer["samples"]) == 1


def test_numbers_that_count_nothing_are_left_out() -> None:
    series = [counter(0, 60, "http_host_requests_total", host="h", instance="good")]
    for number, value in enumerate((1e308, float("inf"), float("nan"), -1e308)):
        names = ("http_host_requests_total", "http_host_errors_total", "http_host_backends")
        series.extend(counter(0, value, name, host="h", instance=f"bad{number}") for name in names)
        bucket = "http_host_request_duration_seconds_bucket"
        series += histogram(bucket, {"1e308": (0, value), "+Inf": (0, value)}, host="h", instance=f"bad{number}")
    series.append(counter(0, -3, "http_host_backends", host="h"))
    assert samples(series) == {"h": (1.0, 0.0, 0.0, 0)}


def test_labels_that_are_kept_divide_a_host() -> None:
    series = [
        counter(0, 60, "http_host_requests_total", host="h", team="a"),
        counter(0, 120, "http_host_requests_total", host="h", team="b"),
    ]
    found = {tuple(labels.items()): values[0] for labels, *values in ask(series, "app", by=("team",))["samples"]}
    assert found == {(("host", "h"), ("team", "a")): 1.0, (("host", "h"), ("team", "b")): 2.0}


def test_nothing_stored_is_no_host() -> None:
    assert ask([]) == {"samples": [], "failures": {}}
