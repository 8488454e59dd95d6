"""The section grpc_poll_configs: data readers that are polled."""

from __future__ import annotations

import pytest

from streamgauge.config import parse_config
from streamgauge.errors import ConfigError
from streamgauge.http.options import HttpOptions, Secret, Tls
from streamgauge.ingest.discovery.groups import Group
from streamgauge.ingest.scrape.job import FileSource, Limits, ScrapeJob
from streamgauge.ingest.scrape.target import Target, targets_of
from streamgauge.relabel import Action, Relabelling, Rule
from streamgauge.settings import Config


def parse(text: str) -> Config:
    return parse_config(text, "/etc/f.yml", {})


def test_few_words_are_enough() -> None:
    (job,) = parse("grpc_poll_configs: [{job_name: d, targets: ['a:50052'], labels: {room: kitchen}}]").jobs
    static = (Group("targets", ({"__address__": "a:50052"},), {"room": "kitchen"}),)
    assert job == ScrapeJob(
        "d",
        over_grpc=True,
        interval=60_000,
        timeout=6_000,
        metrics_path="",
        scheme="grpc",
        http=HttpOptions(scheme="Bearer"),
        static=static,
    )
    (target,) = targets_of(job.static[0], job, Relabelling(job.relabel))
    assert isinstance(target, Target)
    assert target.url == "grpc://a:50052"
    assert target.labels == {"job": "d", "instance": "a:50052", "room": "kitchen"}


def test_everything_that_there_is() -> None:
    config = parse("""\
scrape_configs: [{job_name: s}]
grpc_poll_configs:
  - job_name: d
    interval: 5s
    timeout: 2s
    honor_labels: true
    sample_limit: 10
    body_size_limit: 1MB
    target_limit: 3
    tls_config: {ca_file: ca.pem, server_name: reader}
    authorization: {credentials: T}
    static_configs: [{targets: [b:1]}]
    file_sd_configs: [{files: ['*.json']}]
    relabel_configs: [{target_label: x, replacement: y}]
    metric_relabel_configs: [{action: drop, source_labels: [a], regex: b}]
""")
    assert config.warnings == ()
    assert [job.name for job in config.jobs] == ["s", "d"]
    assert config.jobs[1] == ScrapeJob(
        "d",
        over_grpc=True,
        interval=5_000,
        timeout=2_000,
        metrics_path="",
        scheme="grpcs",
        honor_labels=True,
        limits=Limits(body=1 << 20, samples=10),
        target_limit=3,
        http=HttpOptions(
            scheme="Bearer",
            credentials=Secret("T"),
            tls=Tls(ca=Secret(file="/etc/ca.pem"), server_name="reader"),
        ),
        relabel=(Rule(Action.REPLACE, target_label="x", replacement="y"),),
        metric_relabel=(Rule(Action.DROP, ("a",), regex="b"),),
        static=(Group("static_configs.0", ({"__address__": "b:1"},), {}),),
        sources=(FileSource(("/etc/*.json",), 300_000),),
    )


@pytest.mark.parametrize(("interval", "timeout"), [("1m", 6_000), ("5s", 1_000), ("500ms", 500)])
def test_the_timeout_is_a_tenth_of_the_interval_and_a_second_at_least(interval: str, timeout: int) -> None:
    (job,) = parse(f"grpc_poll_configs: [{{job_name: d, interval: {interval}, targets: [a:1]}}]").jobs
    assert job.timeout == timeout


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ("targets: [a:1]", '/etc/f.yml:2: "grpc_poll_configs.0.job_name" is missing'),
        ("job_name: s", "two scrape configs with the job name"),
        ("job_name: d, interval: 0s", "interval: the interval cannot be 0"),
        ("job_name: d, interval: 1s, timeout: 2s", "the timeout is longer than the interval"),
        ("job_name: d, targets: ['http://a:1']", "is no address of a reader"),
        ("job_name: d, tls_config: {insecure_skip_verify: true}", "insecure_skip_verify cannot be had over gRPC"),
        ("job_name: d, tls_config: {min_version: TLS13}", "min_version and max_version cannot be had over gRPC"),
        ("job_name: d, metrics_path: /x", 'unknown key "grpc_poll_configs.0.metrics_path"'),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(keys: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"scrape_configs: [{{job_name: s}}]\ngrpc_poll_configs: [{{{keys}}}]")
    assert complaint in caught.value.message


def test_keys_of_http_change_nothing_and_are_warned_of() -> None:
    (warning,) = parse("grpc_poll_configs: [{job_name: d, follow_redirects: false}]").warnings
    assert "grpc_poll_configs.follow_redirects is not acted on" in warning


def test_another_scheme_is_no_target() -> None:
    (job,) = parse(
        "grpc_poll_configs: [{job_name: d, targets: [a:1], relabel_configs: "
        "[{target_label: __scheme__, replacement: http}]}]"
    ).jobs
    (found,) = targets_of(job.static[0], job, Relabelling(job.relabel))
    assert 'scheme "http" is neither grpc nor grpcs' in str(found)
