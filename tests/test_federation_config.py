"""The section `federation:` takes the reference's flags by their names, and refuses the rest by line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from streamgauge.auth.client_info import ClientInfo
from streamgauge.auth.cluster_settings import AuthoritySettings, PushToken
from streamgauge.config import load_config, parse_config
from streamgauge.errors import BadInput, ConfigError
from streamgauge.federation_config import FederationConfig, parse_rule
from streamgauge.ingest.federation.settings import PushSettings
from streamgauge.model.source import Matcher, MatchOp

DIGEST = hashlib.sha256(b"a token of some length").hexdigest()


def section(text: str) -> FederationConfig:
    body = "".join(f"  {line}\n" for line in text.splitlines())
    config = parse_config(f"federation:\n{body}", "f.yml", {})
    assert config.federation is not None
    assert config.warnings == ()
    return config.federation


def test_without_the_section_nothing_is_pushed() -> None:
    assert parse_config("global: {}", "f.yml", {}).federation is None


def test_defaults_are_the_references() -> None:
    read = section("partition-label: _id")
    assert read == FederationConfig(PushSettings(), AuthoritySettings())
    assert (read.pushes.ratelimit, read.pushes.limit_bytes, read.pushes.limit_receive_bytes) == (
        270_000,
        512_000,
        131_072,
    )
    assert (read.authority.expire_seconds, read.authority.memcached_expire) == (86_400, 86_400)


def test_flags_are_taken_as_they_are_written() -> None:
    read = section(
        "ratelimit: 15s\nlimit-bytes: 1000\nlimit-receive-bytes: 128KB\nelide-label: _elide\nlabel: {shard: 01}\n"
        "required-label: a=b,c=d\ntoken-expire-seconds: 60\nmemcached: 'one:11211,[::1]:2'\n"
        "authorize: https://upstream/api\noidc-issuer: https://issuer\nclient-id: 5\nclient-secret: hunter2\n"
        "overwrite-timestamps: true\noidc-audience: telemetry\nauthorize-cache: 0\nttl: 5m\nburst: 3\n"
        "max-series: 10\nmax-clusters: 4"
    )
    pushes, authority = read.pushes, read.authority
    assert (pushes.ratelimit, pushes.limit_bytes, pushes.limit_receive_bytes) == (15_000, 1000, 131_072)
    assert (pushes.elide_labels, pushes.labels) == (("_elide",), (("shard", "01"),))
    assert (pushes.overwrite_timestamps, pushes.ttl, pushes.burst) == (True, 300_000, 3)
    assert (pushes.max_series, pushes.max_clusters) == (10, 4)
    assert authority.required_labels == (("a", "b"), ("c", "d"))
    assert (authority.expire_seconds, authority.cache_ms) == (60, 0)
    assert authority.memcached == (("one", 11211), ("::1", 2))
    assert authority.upstream == "https://upstream/api"
    assert authority.oidc is not None
    assert (authority.oidc.client_id, authority.oidc.client_secret.read()) == ("5", "hunter2")
    assert authority.oidc.audience == "telemetry"


def test_the_whitelist_and_its_file_are_selectors(tmp_path: Path) -> None:
    (tmp_path / "more").write_text('\n  node_load1{cpu!="0"}  \n\n{job=~"a|b"}\n')
    file = tmp_path / "streamgauge.yml"
    file.write_text("federation:\n  whitelist: up\n  whitelist-file: more\n")
    read = load_config(file, {}).federation
    assert read is not None
    assert read.pushes.whitelist == (
        (Matcher("__name__", MatchOp.EQUAL, "up"),),
        (Matcher("cpu", MatchOp.NOT_EQUAL, "0"), Matcher("__name__", MatchOp.EQUAL, "node_load1")),
        (Matcher("job", MatchOp.MATCH, "a|b"),),
    )


@pytest.mark.parametrize(
    ("text", "matchers"),
    [
        ("{}", ()),
        ('{a=""}', (Matcher("a", MatchOp.EQUAL, ""),)),
        ('{a=~".*",}', (Matcher("a", MatchOp.MATCH, ".*"),)),
        ('up{a!~"x{2}"}', (Matcher("a", MatchOp.NOT_MATCH, "x{2}"), Matcher("__name__", MatchOp.EQUAL, "up"))),
    ],
)
def test_a_rule_may_demand_nothing(text: str, matchers: tuple[Matcher, ...]) -> None:
    assert parse_rule(text) == matchers


@pytest.mark.parametrize(
    "text", ["up[5m]", "up offset 1m", "rate(up[1m])", "{", '{a=~"("}', '{a="b"} or up', "", "{a}"]
)
def test_refuses_what_is_no_selector(text: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse_rule(text)
    assert "__any__" not in refused.value.message


def test_push_tokens_are_known_by_their_digests(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a token of some length\n")
    (tmp_path / "short").write_text("secret")
    file = tmp_path / "streamgauge.yml"
    file.write_text(
        f"federation:\n  push-tokens:\n  - name: one\n    sha256: '{DIGEST.upper()}'\n    clusters: [a, b]\n"
        "  - name: two\n    file: token\n"
    )
    config = load_config(file, {})
    assert config.federation is not None
    assert config.federation.authority.push_tokens == (PushToken("one", DIGEST, ("a", "b")), PushToken("two", DIGEST))
    file.write_text("federation:\n  push-tokens:\n  - name: one\n    file: short\n")
    with pytest.raises(ConfigError, match=r"streamgauge.yml:4: .*fewer than 16 characters"):
        load_config(file, {})


def test_how_a_proxy_tells_clusters_apart_is_read_from_the_references_file(tmp_path: Path) -> None:
    names = {"secret_header": "x-secret", "common_name_header": "x-subject", "issuer_header": "x-issuer"}
    (tmp_path / "info.json").write_text(json.dumps({"secret": "a secret of some length", "config": names}))
    file = tmp_path / "streamgauge.yml"
    lines = "federation:\n  client-info-data-file: info.json\n  client-info-subject-label: _id\n"
    file.write_text(lines + "  client-certificates: true\n")
    config = load_config(file, {})
    assert config.federation is not None
    authority = config.federation.authority
    digest = hashlib.sha256(b"a secret of some length").digest()
    assert (authority.client_info, authority.certificates) == (ClientInfo(digest, "x-secret", "x-subject"), True)
    (tmp_path / "info.json").write_text("{}")
    with pytest.raises(
        ConfigError, match=r"streamgauge.yml:2: federation.client-info-data-file: .*info.json: expected"
    ):
        load_config(file, {})


def test_secrets_are_not_shown() -> None:
    config = parse_config(
        f"federation:\n  authorize: http://me:hunter1@up/\n  oidc-issuer: http://issuer\n  client-id: c\n"
        f"  client-secret: hunter2\n  token-expire-seconds: 60\n  push-tokens: [{{name: a, sha256: {DIGEST}}}]\n",
        "f.yml",
        {},
    )
    assert "hunter" not in config.text
    assert DIGEST not in config.text
    assert "token-expire-seconds: '60'" in config.text
    assert "hunter2" not in repr(config.federation)


def test_what_changes_nothing_is_warned_of() -> None:
    config = parse_config("federation:\n  tenant-id: x\n  whitelist: up\n", "f.yml", {})
    assert config.warnings == ("f.yml:2: federation.tenant-id is not acted on yet and changes nothing",)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("whitlist: up", 'unknown key "federation.whitlist"; did you mean "whitelist"'),
        ("partition_label: a", 'did you mean "partition-label"'),
        ("whitelist: [up, '{']", r"whitelist: whitelist.1: \{: "),
        ("whitelist-file: nowhere", "nowhere cannot be read"),
        ("ratelimit: soon", 'ratelimit: "soon" is not a duration'),
        ("partition-label: a-b", '"a-b" is no label name'),
        ("label: x", '"x" is no label; write NAME=VALUE'),
        ("elide-label: __name__", "is no label name"),
        ("memcached: nowhere", '"nowhere" is no address; write HOST:PORT'),
        ("memcached-expire: 9999999", "between 0 and 2592000"),
        ("client-info-data-file: nowhere", "nowhere cannot be read"),
        ("client-info-subject-label: cluster", "is partition-label"),
        ("burst: 0", "0 is not between 1"),
        ("limit-bytes: much", '"much" is not a size'),
        ("authorize: ftp://x", "begins with http"),
        ("client-id: x", "oidc-issuer: is missing"),
        ("ttl: 0", "more than 0"),
        ("shared-key: [a]", "expected text"),
        ("push-tokens: [{name: a}]", "push-tokens.0: give sha256 or file"),
        ("push-tokens: [{name: a, sha256: abc}]", "push-tokens.0.sha256: expected 64"),
        (f"push-tokens: [{{name: a, sha256: {DIGEST}}}, {{name: a, sha256: {DIGEST}}}]", "a name of its own"),
    ],
)
def test_complaints_name_the_line(line: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as refused:
        parse_config(f"federation:\n  overwrite-timestamps: false\n  {line}\n", "f.yml", {})
    assert refused.value.message.startswith(("f.yml:3: ", "f.yml:1: federation.oidc-issuer"))


def test_two_ways_to_say_the_same_are_refused() -> None:
    with pytest.raises(ConfigError, match="not both"):
        section("shared-key: a\nshared-keys: [b]")
