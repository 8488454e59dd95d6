"""Where the metrics of reverse proxies, and of our own middleware, say how their hosts are doing: one entry each.

A request that goes through several of these is counted by each of them. Where two name the same host, the one that
stands first here, or in the configuration, is believed.
"""

from __future__ import annotations

from collections.abc import Mapping

from streamgauge.model.host_history import HostSource

_ALL = (
    HostSource(
        "caddy",
        host=("host", "server"),  # the first with `per_host`
        requests="caddy_http_requests_total",  # once for each route; docs/host-history.md
        errors='caddy_http_request_duration_seconds_count{code=~"5.."}',
        latency="caddy_http_request_duration_seconds_bucket",
        backends="caddy_reverse_proxy_upstreams_healthy",
    ),
    HostSource(
        "traefik",
        host=("service",),
        requests="traefik_service_requests_total",
        errors='traefik_service_requests_total{code=~"5.."}',
        latency="traefik_service_request_duration_seconds_bucket",
        backends="traefik_service_server_up",
    ),
    HostSource(
        "envoy",
        host=("envoy_cluster_name",),
        requests="envoy_cluster_upstream_rq_total",
        errors='envoy_cluster_upstream_rq_xx{envoy_response_code_class="5"}',
        latency="envoy_cluster_upstream_rq_time_bucket",
        unit=1.0,
        backends="envoy_cluster_membership_healthy",
    ),
    HostSource(
        "haproxy",
        host=("proxy",),
        requests="haproxy_backend_http_requests_total",
        errors='haproxy_backend_http_responses_total{code="5xx"}',
        backends="haproxy_backend_active_servers",
    ),
    HostSource(
        "nginx-ingress",
        host=("host",),
        requests="nginx_ingress_controller_requests",
        errors='nginx_ingress_controller_requests{status=~"5.."}',
        latency="nginx_ingress_controller_request_duration_seconds_bucket",
    ),
    HostSource(
        "nginx-vts",
        host=("host",),
        requests='nginx_vts_server_requests_total{host!="*",code=~"[1-5]xx"}',
        errors='nginx_vts_server_requests_total{host!="*",code="5xx"}',
        latency='nginx_vts_server_request_duration_seconds_bucket{host!="*"}',
    ),
    HostSource("nginx", host=("instance",), requests="nginx_http_requests_total"),
    HostSource(
        "app",
        host=("host",),
        requests="http_host_requests_total",
        errors="http_host_errors_total",
        latency="http_host_request_duration_seconds_bucket",
        backends="http_host_backends",
    ),
)

SOURCES: Mapping[str, HostSource] = {source.name: source for source in _ALL}
