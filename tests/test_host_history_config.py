"""The section host_history: of the configuration file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamgauge.client.host_counters import MAX_HOSTS
from streamgauge.config import parse_config
from streamgauge.errors import ConfigError
from streamgauge.host_history_config import HostHistorySection
from streamgauge.model.host_history import RANGES, HostSettings, HostSource
from streamgauge.model.host_sources import SOURCES

PAGE = (Path(__file__).parents[1] / "docs" / "host-history.md").read_text(encoding="utf-8")


def settings(text: str) -> HostSettings | None:
    config = parse_config(text, "file.yml", {})
    assert not config.warnings
    return config.host_history


def test_nothing_is_sampled_unless_that_is_asked_for() -> None:
    assert settings("streamgauge: {}") is None


def test_an_empty_section_samples_everything_each_minute() -> None:
    assert settings("host_history: {}") == HostSettings(60_000, tuple(SOURCES.values()))


def test_each_setting_can_be_given() -> None:
    found = settings("""
host_history:
  interval: 30s
  by: [team]
  max-hosts: 5
  sources:
    - haproxy
    - name: old
      host: [vhost, server]
      requests: hits_total
      errors: hits_total{status=~"5.."}
      latency: slow_ms_bucket
      latency-unit: ms
      backends: alive
""")
    old = HostSource(
        "old", ("vhost", "server"), "hits_total", 'hits_total{status=~"5.."}', "slow_ms_bucket", 1.0, "alive"
    )
    assert found == HostSettings(30_000, (SOURCES["haproxy"], old), ("team",), 5)


@pytest.mark.parametrize(
    ("section", "part"),
    [
        ("{interval: 1ms}", "from 1s to 1h"),
        ("{interval: soon}", "duration"),
        ("{max-hosts: 0}", "greater than or equal to 1"),
        ("{max-hosts: 10001}", "less than or equal to 10000"),
        ("{sources: []}", "at least 1"),
        ("{sources: [apache]}", '"apache" is none of caddy, traefik'),
        ("{sources: [caddy, caddy]}", "same name"),
        ("{sources: [{name: x, host: h, requests: ''}]}", "requests"),
        ("{sources: [{name: x, host: 1, requests: r}]}", "label"),
        ("{sources: [{name: x, host: h, requests: r, latency-unit: min}]}", "s, ms, us, ns"),
        ("{by: [host]}", "host is no label"),
        ("{hosts: 1}", "hosts"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_line(section: str, part: str) -> None:
    with pytest.raises(ConfigError, match=r"file\.yml:1") as refused:
        parse_config(f"host_history: {section}", "file.yml", {})
    assert part in refused.value.message


def test_the_page_names_every_source_key_and_range_and_its_examples_are_right() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)
    keys = [field.alias or name for name, field in HostHistorySection.model_fields.items()]
    assert {*SOURCES, *keys, *RANGES} <= set(rows)
    for snippet in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        assert settings(snippet) is not None
    assert f"the first {MAX_HOSTS} names" in PAGE
