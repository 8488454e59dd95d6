"""The configuration file: what is understood, what is refused, and with which words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.config import MAX_FILE_BYTES, load_config, parse_config
from streamgauge.errors import ConfigError
from streamgauge.forward.remote_write.target import MetadataPolicy, Protocol, QueuePolicy, RemoteWriteTarget
from streamgauge.http.options import ClientCredentials, HttpOptions, Secret, Tls
from streamgauge.ingest.discovery.groups import Group
from streamgauge.ingest.scrape.job import DnsSource, FileSource, ScrapeJob
from streamgauge.ingest.scrape.job import Limits as JobLimits
from streamgauge.relabel import Action, Rule
from streamgauge.settings import Config

FULL = """\
global:
  scrape_interval: 15s
  external_labels: {cluster: "${CLUSTER:-home}"}
scrape_configs:
  - job_name: node
    static_configs: [{targets: ['localhost:9100'], labels: {rack: a1}}]
    relabel_configs:
      - {source_labels: [a], target_label: b, replacement: "${1}-x"}
    basic_auth: {username: u, password: hunter2}
    kubernetes_sd_configs: [{role: pod, bearer_token: sesame}]
remote_write:
  - url: https://user:hunter2@example.org/write
    headers: {X-Token: sesame}
storage: {tsdb: {retention: {time: 30d, size: 10GB}}}
streamgauge:
  listen: ${LISTEN:-127.0.0.1:0}
  allow_host: [a.example, b.example]
"""


def parse(text: str, **environment: str) -> Config:
    return parse_config(text, "f.yml", environment)


def test_reads_an_existing_prometheus_file_and_our_section() -> None:
    config = parse(FULL)
    assert config.own == {
        "listen": "127.0.0.1:0",
        "allow_host": ("a.example", "b.example"),
        "retention": 30 * 86_400_000,
        "retention_size": 10 << 30,
    }
    assert config.external_labels == {"cluster": "home"}


def test_keys_that_are_not_acted_on_are_warned_of_once_each_with_their_line() -> None:
    warnings = parse(FULL).warnings
    assert sorted(warning.split(" is not acted on")[0] for warning in warnings) == [
        "f.yml:10: scrape_configs.kubernetes_sd_configs",
    ]


def test_shown_configuration_hides_secrets_and_keeps_the_rest_as_written() -> None:
    shown = parse(FULL).text
    assert "hunter2" not in shown
    assert "sesame" not in shown
    for kept in ("15s", "30d", "localhost:9100", "${1}-x", "username: u", "https://user:<secret>@example.org/write"):
        assert kept in shown


def test_variables() -> None:
    assert parse("global: {external_labels: {a: 'x${A}y${B:-z}'}}", A="1").external_labels == {"a": "x1yz"}
    assert parse("global: {external_labels: {a: '$${A}$1'}}").external_labels == {"a": "${A}$1"}
    assert parse("global: {external_labels: {a: '${A:-d}'}}", A="").external_labels == {"a": "d"}
    assert parse("streamgauge: {query_concurrency: '${N}'}", N="7").own == {"query_concurrency": 7}


def test_a_variable_cannot_change_the_structure() -> None:
    config = parse("global: {external_labels: {a: '${A}'}}", A="x}\nscrape_configs: [{job_name: evil}]")
    assert config.warnings == ()
    assert config.external_labels["a"].startswith("x}")


def test_variables_are_left_alone_in_relabel_configs() -> None:
    parse("scrape_configs: [{job_name: a, metric_relabel_configs: [{target_label: b, replacement: '${1}${NOT_SET}'}]}]")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("streamgauge:\nretention: 3d", 2, 'unknown key "retention"; indent it, below streamgauge: as its section'),
        ("scrape_confgs: []", 1, 'unknown key "scrape_confgs"; did you mean "scrape_configs"?'),
        ("scrape_configs:\n- job_nam: x", 2, 'unknown key "scrape_configs.0.job_nam"; did you mean "job_name"?'),
        ("scrape_configs:\n- metrics_path: x", 2, '"scrape_configs.0.job_name" is missing'),
        ("global:\n  scrape_interval: 15", 2, "expected a duration"),
        ("global:\n  scrape_interval: soon", 2, '"soon" is not a duration'),
        ("scrape_configs:\n- job_name: a\n  relabel_configs:\n  - regex: '('", 4, "bad regular expression: missing )"),
        ("scrape_configs:\n- job_name: a\n  relabel_configs:\n  - action: kep", 4, 'unknown relabel action "kep"'),
        ("scrape_configs: [{job_name: [3]}]", 1, "scrape_configs.0.job_name: expected text"),
        ("global: 3", 1, "global: expected a mapping"),
        ("global:\n  scrape_interval: 5s\n  scrape_timeout: 6s", 1, "scrape_timeout is longer than scrape_interval"),
        ("scrape_configs: [{job_name: a, http_sd_configs: [{url: 'http:///x'}]}]", 1, "the URL has no host"),
        ("scrape_configs: [{job_name: a, dns_sd_configs: [{names: [n], refresh_interval: 0}]}]", 1, "cannot be 0"),
        ("global:\n  scrape_interval: 1m\n  scrape_interval: 2m", 3, '"scrape_interval" is given twice'),
        ("a: [", 1, "not valid YAML"),
        ("- a", 1, "must be a mapping"),
        ("streamgauge:\n  lisen: x", 2, 'unknown setting "lisen"; did you mean "listen"?'),
        ("streamgauge:\n  listen: x", 2, "is not an address"),
        ("streamgauge:\n  retention: {a: 1}", 2, "must be a plain value"),
        ("global:\n  query_log_file: ${NOPE}", 2, "the environment variable NOPE is not set"),
        ("global:\n  query_log_file: ${1A}", 2, "${1A} is no variable"),
        ("scrape_configs: [{job_name: a, basic_auth: {password: a, password_file: b}}]", 1, "not both"),
        ("? [a]\n: b", 1, "a key must be a plain word"),
    ],
)
def test_refusals_name_file_line_and_what_was_meant(text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(text)
    assert refused.value.message.startswith(f"f.yml:{line}: ")
    assert words in refused.value.message


def test_text_that_looks_like_something_else_is_taken_as_written() -> None:
    """As Prometheus takes it: existing files are full of it."""
    config = parse(
        "global: {external_labels: {a: 1, b: 01, c: on, d: 1.50, e: 2024-01-01, f: 0x_}}\n"
        "scrape_configs: [{job_name: 5, honor_labels: yes, params: {x: [1]}, basic_auth: {password: 123}}]\n"
        "streamgauge: {allow_host: [1.10, 007]}"
    )
    assert config.external_labels == {"a": "1", "b": "01", "c": "on", "d": "1.50", "e": "2024-01-01", "f": "0x_"}
    assert config.own == {"allow_host": ("1.10", "007")}
    with pytest.raises(ConfigError, match="expected a whole number"):
        parse("remote_write: [{url: http://x, queue_config: {capacity: '5'}}]")


def test_a_key_without_a_value_is_one_that_is_not_there() -> None:
    """As in Prometheus."""
    (job,) = jobs(
        "global: {scrape_interval: , scrape_timeout: }\n"
        "scrape_configs:\n"
        "- job_name: a\n"
        "  scheme:\n"
        "  relabel_configs: [{source_labels: [x], regex: , replacement: , target_label: y}]\n"
        "  static_configs: [{targets: }, {targets: ['h:1'], labels: {x: , y: z}}]\n"
    )
    assert (job.interval, job.timeout, job.scheme) == (60_000, 10_000, "http")
    assert job.relabel == (Rule(source_labels=("x",), target_label="y"),)
    assert [(len(group.targets), group.labels) for group in job.static] == [(0, {}), (1, {"y": "z"})]
    for text in ("scrape_configs: [{job_name: }]", "scrape_configs: [{job_name: a, relabel_configs: [ , ]}]"):
        with pytest.raises(ConfigError):
            parse(text)
    with pytest.raises(ConfigError, match="expected text"):
        parse("event_metrics: [{name: , type: count}]")


def test_a_mapping_may_override_what_it_merges_in() -> None:
    config = parse(
        "scrape_configs:\n"
        "- &base {job_name: a, scheme: http, metrics_path: /m}\n"
        "- &more {<<: *base, scheme: https, job_name: b}\n"
        "- {job_name: c, <<: [*more]}\n"
    )
    own = "job_name: b\n  scheme: https\n  metrics_path: /m"
    assert config.text.count(own) == 1
    assert "job_name: c\n  scheme: https" in config.text


def test_a_secret_is_not_quoted_in_a_complaint() -> None:
    with pytest.raises(ConfigError) as refused:
        parse("scrape_configs: [{job_name: a, basic_auth: {password: [hunter2]}}]")
    assert "hunter2" not in refused.value.message


@pytest.mark.parametrize(
    "secret",
    ["{consul_sd_configs: [{server: x, password: 123456}]", "{http_sd_configs: [{url: 'http://u:x@123456@h/'}]"],
)
def test_secrets_in_unusual_places_are_hidden(secret: str) -> None:
    assert "123456" not in parse(f"scrape_configs: [{secret}, job_name: a}}]").text


def test_values_of_parameters_of_urls_are_hidden_as_in_the_log() -> None:
    shown = parse("""
remote_write: [{url: 'https://a.example/w?key=hunter2&tenant=', name: a}]
federation: {authorize: 'https://b.example/ask?hunter2=hunter2#x', push-tokens: [], whitelist: ['{a=~"x?b=c"}']}
""").text
    assert "=hunter2" not in shown
    for kept in ("a.example/w?key=<secret>&tenant=", "b.example/ask?hunter2=<secret>#x", '{a=~"x?b=c"}'):
        assert kept in shown


def test_parameters_of_a_request_for_a_token_are_hidden() -> None:
    config = parse("""
remote_write:
  - url: https://a.example
    oauth2: {client_id: a, token_url: 'https://c.example', endpoint_params: {client_assertion: hunter2}}
""")
    assert "hunter2" not in config.text
    assert "client_assertion: <secret>" in config.text


def test_empty_file_is_an_empty_configuration() -> None:
    assert parse("") == parse("# nothing\n") == Config()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.yml", {})
    (tmp_path / "latin.yml").write_bytes(b"a: \xe9")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 3"):
        load_config(tmp_path / "latin.yml", {})
    with (tmp_path / "huge.yml").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ConfigError, match="larger than"):
        load_config(tmp_path / "huge.yml", {})


def test_aliases_cannot_blow_up_the_file() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for here, there in zip("bcdefg", "abcdef", strict=True):
        bomb += f"{here}: &{here} [{', '.join([f'*{there}'] * 10)}]\n"
    with pytest.raises(ConfigError, match="more than"):
        parse(bomb)


def test_deep_nesting_is_an_error_and_no_crash() -> None:
    with pytest.raises(ConfigError):
        parse("a: " + "[" * 5000)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_fuzz_any_text_is_a_configuration_or_a_config_error(text: str) -> None:
    try:
        parse(text)
    except ConfigError as error:
        assert error.message.startswith("f.yml")


_NAMES = st.sampled_from(
    ["global", "scrape_configs", "job_name", "streamgauge", "retention", "storage", "tsdb", "<<", "${X}"]
)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["${X}", "15s", "!!python/name:os"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(_NAMES, _VALUES, max_size=4))
def test_fuzz_any_structure_is_a_configuration_or_a_config_error(values: dict[str, object]) -> None:
    try:
        parse(json.dumps(values))
    except ConfigError as error:
        assert error.message.startswith("f.yml")


# ---- what is scraped ------------------------------------------------------------------------------------------------


def jobs(text: str) -> tuple[ScrapeJob, ...]:
    return parse(text).jobs


def test_a_job_has_what_all_jobs_have_unless_it_says_otherwise() -> None:
    first, second = jobs(
        "global: {scrape_interval: 5s, scrape_timeout: 3s, sample_limit: 7, scrape_protocols: [PrometheusText0.0.4]}\n"
        "scrape_configs:\n"
        "- job_name: a\n"
        "  static_configs: [{targets: ['h:1', 'h:2'], labels: {x: y}}]\n"
        "- job_name: b\n"
        "  scrape_interval: 1m\n"
        "  scrape_timeout: 20s\n"
        "  sample_limit: 8\n"
        "  body_size_limit: 1MB\n"
        "  scrape_protocols: [OpenMetricsText1.0.0]\n"
        "  metrics_path: /m\n"
        "  scheme: https\n"
        "  params: {m: [x, y]}\n"
        "  honor_labels: true\n"
        "  bearer_token: sesame\n"
        "  relabel_configs: [{source_labels: [x], action: DROP, regex: a}]\n"
        "  dns_sd_configs: [{names: [n], type: a, port: 9}]\n"
    )
    assert (first.interval, first.timeout, first.limits.samples) == (5000, 3000, 7)
    assert first.protocols == ("PrometheusText0.0.4",)
    assert first.static == (Group("static_configs.0", ({"__address__": "h:1"}, {"__address__": "h:2"}), {"x": "y"}),)
    assert (second.interval, second.timeout, second.limits) == (60_000, 20_000, JobLimits(body=1 << 20, samples=8))
    assert (second.protocols, second.metrics_path, second.scheme) == (("OpenMetricsText1.0.0",), "/m", "https")
    assert (second.params, second.honor_labels) == ((("m", ("x", "y")),), True)
    assert second.http.authorization() == "Bearer sesame"
    assert second.relabel == (Rule(Action.DROP, ("x",), regex="a"),)
    assert second.sources == (DnsSource(("n",), "A", 9, 30_000),)


def test_a_timeout_is_never_longer_than_its_interval() -> None:
    (job,) = jobs("scrape_configs: [{job_name: a, scrape_interval: 5s}]")
    assert job.timeout == 5000
    (job,) = jobs("scrape_configs: [{job_name: a}]")
    assert (job.interval, job.timeout) == (60_000, 10_000)


def test_names_of_files_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "a.yml").write_text(
        "scrape_configs: [{job_name: a, bearer_token_file: t, proxy_url: 'http://p'}]", encoding="utf-8"
    )
    (tmp_path / "jobs" / "b.yml").write_text(
        "scrape_configs: [{job_name: b, file_sd_configs: [{files: ['*.json']}]}]", encoding="utf-8"
    )
    main = tmp_path / "main.yml"
    main.write_text("scrape_config_files: ['jobs/*.yml']\nscrape_configs: [{job_name: m}]", encoding="utf-8")
    config = load_config(main, {})
    assert [job.name for job in config.jobs] == ["m", "a", "b"]
    assert config.jobs[1].http.credentials.file == str(tmp_path / "jobs" / "t")
    assert config.jobs[2].sources == (FileSource((str(tmp_path / "jobs" / "*.json"),), 300_000),)
    (warning,) = config.warnings
    assert warning.startswith(f"{tmp_path / 'jobs' / 'a.yml'}:1: scrape_configs.proxy_url is not acted on yet")
    (tmp_path / "jobs" / "b.yml").write_text("scrape_configs:\n- job_name: a", encoding="utf-8")
    with pytest.raises(ConfigError, match=r'b\.yml:2: .* two scrape configs with the job name "a"'):
        load_config(main, {})


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ("scrape_timeout: 20s, scrape_interval: 10s", "the timeout is longer than the scrape interval"),
        ("scheme: ftp", '"ftp" is not one of http, https'),
        ("scrape_protocols: [Text]", '"Text" is not one of'),
        ("scrape_protocols: []", "at least 1 item"),
        ("scrape_protocols: [PrometheusProto, PrometheusProto]", "given twice"),
        ("authorization: {credentials: x}, basic_auth: {username: x}", "give one of basic_auth and authorization"),
        ("tls_config: {cert_file: x}", "a certificate and its key are given together"),
        ("tls_config: {min_version: SSL3}", '"SSL3" is not one of'),
        ("file_sd_configs: [{files: [x.txt]}]", '"x.txt" must end in .json, .yml or .yaml'),
        ("file_sd_configs: [{files: ['*/x.yml']}]", "in its last part only"),
        ("http_sd_configs: [{url: x}]", "expected a URL that begins with http"),
        ("dns_sd_configs: [{names: [x], type: A}]", "records of type A need a port"),
        ("dns_sd_configs: [{names: [x], type: TXT}]", 'unknown record type "TXT"'),
        ("relabel_configs: [{action: hashmod, target_label: x}]", "the action hashmod needs a modulus"),
        ("job_name: a}, {job_name: a", 'two scrape configs with the job name "a"'),
    ],
)
def test_scrape_configs_that_make_no_sense(job: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(f"scrape_configs:\n- {{job_name: a, {job}}}" if "job_name" not in job else f"scrape_configs: [{{{job}}}]")
    assert words in refused.value.message
    assert refused.value.message.startswith("f.yml:")


EVENT_METRICS = """\
event_metrics:
- name: errors_total
  type: count
  where:
  - level=ERROR
  - http.status>=500
  labels: {route: http.route}
- name: seconds
  type: histogram
  value: http.seconds
  buckets: [1, 2.5, .inf]
"""


def test_event_metrics_are_read() -> None:
    errors, seconds = parse(EVENT_METRICS).event_metrics
    assert (errors.name, errors.kind.value, errors.labels) == ("errors_total", "count", (("route", ("http", "route")),))
    assert [term.path for term in errors.where.terms] == [("level",), ("http", "status")]
    assert (seconds.value, seconds.buckets) == (("http", "seconds"), (1.0, 2.5))
    assert parse(EVENT_METRICS).event_metrics == (errors, seconds)
    assert not parse(EVENT_METRICS).warnings
    (plain,) = parse("event_metrics: [{name: a, type: histogram, value: n}]").event_metrics
    assert plain.buckets == tuple(sorted(plain.buckets))
    assert plain.buckets[-1] == 10


@pytest.mark.parametrize(
    ("line", "wrong", "number", "words"),
    [
        ("name: errors_total", "name: 5xx", 2, 'event_metrics.0.name: "5xx" is no metric name'),
        ("name: seconds", "name: errors_total", 8, '"errors_total" is written by the rule "errors_total" already'),
        ("errors_total", "seconds_count", 8, '"seconds_count" is written by the rule "seconds_count" already'),
        ("type: count", "type: counts", 3, '"counts" is none of count, sum, histogram'),
        ("type: count", "typ: count", 3, 'unknown key "event_metrics.0.typ"; did you mean "type"?'),
        ("type: count", "type: sum", 2, "value is missing"),
        ("type: count", "type: count\n  value: a", 4, "a count has none"),
        ("type: count", "type: count\n  buckets: [1]", 4, "a count has none"),
        ("value: http.seconds", "value: http..seconds", 10, '"http..seconds" is no path'),
        ("[1, 2.5, .inf]", "[1, 1]", 11, "must be ascending numbers"),
        ("[1, 2.5, .inf]", "[.nan]", 11, "must be ascending numbers"),
        ("[1, 2.5, .inf]", "[.inf]", 11, "write 1 to 100 upper bounds"),
        ("[1, 2.5, .inf]", "[a]", 11, "expected a number"),
        ("http.status>=500", "http.status", 6, '"http.status" is no condition'),
        ("http.status>=500", "message~(", 6, "invalid regular expression"),
        ("route: http.route", "1route: http.route", 7, '"1route" is no label name'),
        ("route: http.route", "job: http.route", 7, 'the label "job" is set by the server'),
        ("type: histogram", "type: histogram\n  labels: {le: a}", 10, 'the label "le" is set by the server'),
    ],
)
def test_event_metrics_that_make_no_sense_are_refused_with_their_line(
    line: str, wrong: str, number: int, words: str
) -> None:
    assert line in EVENT_METRICS
    with pytest.raises(ConfigError) as refused:
        parse(EVENT_METRICS.replace(line, wrong, 1))
    assert refused.value.message.startswith(f"f.yml:{number}: ")
    assert words in refused.value.message


REMOTE_WRITE = """\
global: {external_labels: {cluster: home}}
remote_write:
  - url: https://a.example/write
    name: centre
    protobuf_message: io.prometheus.write.v2.Request
    remote_timeout: 5s
    headers: {THANOS-TENANT: home}
    oauth2:
      client_id: me
      client_secret_file: secret
      token_url: https://login.example/token
      scopes: [a, b]
      endpoint_params: {audience: metrics}
    write_relabel_configs:
      - {source_labels: [a], target_label: b, replacement: "${1}"}
    queue_config: {capacity: 5, max_shards: 3, batch_send_deadline: 1s, retry_on_http_429: false}
    metadata_config: {send: false}
    tls_config: {insecure_skip_verify: true}
  - {url: "http://b.example", send_exemplars: true, send_native_histograms: true, basic_auth: {username: u}}
  - {url: "http://c.example", send_exemplars: true}
"""


def test_remote_write_sections() -> None:
    config = parse_config(REMOTE_WRITE, "/etc/f.yml", {})
    first, second, third = config.remote_writes
    assert first == RemoteWriteTarget(
        name="centre",
        url="https://a.example/write",
        timeout=5000,
        protocol=Protocol.V2,
        http=HttpOptions(scheme="Bearer", tls=Tls(verify=False), headers=(("THANOS-TENANT", Secret("home")),)),
        oauth2=ClientCredentials(
            "me",
            Secret(file="/etc/secret"),
            "https://login.example/token",
            ("a", "b"),
            (("audience", "metrics"),),
            Tls(),
        ),
        relabel=(Rule(Action.REPLACE, ("a",), target_label="b", replacement="${1}"),),
        external=(("cluster", "home"),),
        queue=QueuePolicy(capacity=5, max_shards=3, batch_send_deadline=1000, retry_on_429=False),
        metadata=MetadataPolicy(0),
    )
    assert (second.queue, second.metadata) == (QueuePolicy(), MetadataPolicy())
    assert second.http.user == Secret("u")
    assert len({first.name, second.name, third.name}) == 3
    assert sorted(warning.partition(" is not")[0] for warning in config.warnings) == [
        "/etc/f.yml:19: remote_write.send_exemplars",
        "/etc/f.yml:19: remote_write.send_native_histograms",
    ]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("{url: x}", "remote_write.0.url: expected a URL"),
        ("{url: http://a, protobuf_message: x}", '"x" is not one of'),
        ("{url: http://a, headers: {Host: x}}", "remote_write.0.headers.Host: this header cannot be set here"),
        ("{url: http://a, queue_config: {max_shards: 1, min_shards: 2}}", "must not be below min_shards"),
        ("{url: http://a, queue_config: {min_backoff: 9s}}", "must not be below min_backoff"),
        ("{url: http://a, queue_config: {capacity: 0}}", "remote_write.0.queue_config.capacity"),
        ("{url: http://a, name: %s}" % ("x" * 81), "longer than 80 bytes"),
        (
            "{url: http://a, oauth2: {client_id: a, token_url: http://b, grant_type: x}}",
            "client_credentials is",
        ),
        (
            "{url: http://a, oauth2: {client_id: a, token_url: http://b, client_secret: x, client_secret_file: y}}",
            "not both",
        ),
        ("{url: http://a}, {url: http://a}", "name each"),
    ],
)
def test_a_remote_write_section_that_is_wrong(section: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(f"global: {{}}\nremote_write: [{section}]")
    assert refused.value.message.startswith("f.yml:2: ")
    assert words in refused.value.message
