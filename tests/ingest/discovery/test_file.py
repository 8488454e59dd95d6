"""Files of targets, while others write them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from streamgauge.clock import ManualClock
from streamgauge.ingest.discovery.file import MAX_FILE_BYTES, FileDiscovery
from streamgauge.ingest.discovery.groups import Discovery, Group
from streamgauge.ingest.scrape.job import FileSource
from streamgauge.stats import Stats
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio

Follow = Callable[[Discovery], list[Sequence[Group]]]


def addresses(groups: Sequence[Group]) -> list[str]:
    return [target["__address__"] for group in groups for target in group.targets]


def failures(stats: Stats) -> int:
    lines = stats.exposition().decode().splitlines()
    found = (line for line in lines if line.startswith('streamgauge_discovery_failures_total{kind="file"}'))
    return int(float(next(found, "x 0").split()[1]))


async def test_json_and_yaml_and_what_changes_in_them(
    tmp_path: Path, follow: Follow, clock: ManualClock, stats: Stats
) -> None:
    (tmp_path / "a.json").write_text('[{"targets": ["a:1"], "labels": {"x": "y"}}]')
    (tmp_path / "b.yml").write_text("- targets: ['b:1', 'b:2']\n")
    source = FileSource((str(tmp_path / "*.json"), str(tmp_path / "b.yml")), 60_000)
    found = follow(FileDiscovery(source, clock, stats))
    await until(lambda: found)
    assert addresses(found[0]) == ["a:1", "b:1", "b:2"]
    assert found[0][0].labels == {"x": "y", "__meta_filepath": str(tmp_path / "a.json")}
    (tmp_path / "c.json").write_text('[{"targets": ["c:1"]}]')
    (tmp_path / "b.yml").write_text("- targets: ['b:3']\n")
    await clock.advance(5)
    await until(lambda: len(found) == 2)
    assert addresses(found[1]) == ["a:1", "b:3", "c:1"]
    (tmp_path / "a.json").unlink()
    await clock.advance(5)
    await until(lambda: len(found) == 3)
    assert addresses(found[2]) == ["b:3", "c:1"]
    assert failures(stats) == 0


async def test_what_looks_like_a_number_is_taken_as_it_is_written(
    tmp_path: Path, follow: Follow, clock: ManualClock, stats: Stats
) -> None:
    """As in Prometheus, where YAML is concerned: in JSON a number is no text."""
    labels = "{shard: 01, on: yes, since: 2024-01-01, ratio: 1.50, none: }"
    (tmp_path / "a.yml").write_text(f"- targets: [80]\n  labels: {labels}\n")
    (tmp_path / "b.json").write_text('[{"targets": ["b:1"], "labels": {"shard": 1}}]')
    found = follow(FileDiscovery(FileSource((str(tmp_path / "*"),), 60_000), clock, stats))
    await until(lambda: found)
    (group,) = found[0]
    assert group.targets == ({"__address__": "80"},)
    expected = {"shard": "01", "on": "yes", "since": "2024-01-01", "ratio": "1.50", "none": ""}
    assert group.labels == {**expected, "__meta_filepath": str(tmp_path / "a.yml")}
    assert failures(stats) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"targets": ["a:', "line 1: not valid JSON"),
        ("", "line 1: not valid JSON"),
        ('{"targets": []}', "expected a list of target groups"),
        ("[" * 100_000, "cannot be understood"),
        (" " * (MAX_FILE_BYTES + 1), "larger than 16 MiB"),
    ],
)
async def test_a_file_that_is_half_written_leaves_its_targets(
    tmp_path: Path,
    follow: Follow,
    clock: ManualClock,
    stats: Stats,
    caplog: pytest.LogCaptureFixture,
    text: str,
    words: str,
) -> None:
    file = tmp_path / "a.json"
    file.write_text('[{"targets": ["a:1"]}]')
    found = follow(FileDiscovery(FileSource((str(file),), 60_000), clock, stats))
    await until(lambda: found)
    file.write_text(text)
    await clock.advance(5)
    await until(lambda: failures(stats) == 1)
    assert f"{file}: {words}" in caplog.text
    assert len(found) == 1
    file.write_text('[{"targets": ["a:2"]}]')
    await clock.advance(5)
    await until(lambda: len(found) == 2)
    assert addresses(found[1]) == ["a:2"]


async def test_yaml_that_is_none(
    tmp_path: Path, follow: Follow, clock: ManualClock, stats: Stats, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.yml").write_text("- targets: [a:1\n- b\n")
    (tmp_path / "b.yml").write_bytes(b"\xff")
    found = follow(FileDiscovery(FileSource((str(tmp_path / "*.yml"),), 60_000), clock, stats))
    await until(lambda: failures(stats) == 1)
    assert "a.yml: line " in caplog.text
    assert "b.yml: not UTF-8 at byte 0" in caplog.text
    assert not found


async def test_a_broken_file_does_not_hold_up_the_others(
    tmp_path: Path, follow: Follow, clock: ManualClock, stats: Stats, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "a.json").write_text('[{"targets": ["a:1"]}]')
    (tmp_path / "b.json").write_text('[{"targets": ["b:1"]}]')
    (tmp_path / "c.json").write_text("[")
    found = follow(FileDiscovery(FileSource((str(tmp_path / "*.json"),), 60_000), clock, stats))
    await until(lambda: found)
    assert addresses(found[0]) == ["a:1", "b:1"], "with one that was never good"
    (tmp_path / "a.json").write_text("[")
    (tmp_path / "b.json").write_text('[{"targets": ["b:2"]}]')
    await clock.advance(5)
    await until(lambda: len(found) == 2)
    assert addresses(found[1]) == ["a:1", "b:2"]
    assert f"{tmp_path / 'a.json'}: line 1: not valid JSON" in caplog.text
    (tmp_path / "b.json").unlink()
    (tmp_path / "c.json").write_text('[{"targets": ["c:1"]}]')
    await clock.advance(5)
    await until(lambda: len(found) == 3)
    assert addresses(found[2]) == ["a:1", "c:1"]
    assert f"{tmp_path / 'c.json'}: works again" in caplog.text
    assert failures(stats) == 3
