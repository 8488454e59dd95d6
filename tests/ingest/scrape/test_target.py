"""What discovery finds becomes targets, as relabelling says."""

from __future__ import annotations

import pytest

from streamgauge.errors import BadInput
from streamgauge.ingest.discovery.groups import Group, parse_groups
from streamgauge.ingest.scrape.job import ScrapeJob
from streamgauge.ingest.scrape.target import SLOT_MS, Dropped, Target, targets_of
from streamgauge.relabel import Action, Relabelling, Rule


def one(job: ScrapeJob, labels: dict[str, str] | None = None, **own: str) -> Target | Dropped | BadInput:
    target = {"__address__": "h:1", **own}
    (found,) = targets_of(Group("test", (target,), labels or {}), job, Relabelling(job.relabel))
    return found


def test_defaults() -> None:
    found = one(
        ScrapeJob("j", interval=15_000, timeout=5000, params=(("m", ("x", "y")),)), {"a": "group", "b": "g"}, a="own"
    )
    assert isinstance(found, Target)
    assert found.url == "http://h:1/metrics?m=x&m=y"
    assert found.labels == {"job": "j", "instance": "h:1", "a": "own", "b": "g"}
    assert (found.interval, found.timeout) == (15_000, 5000)
    assert found.discovered == {
        "__address__": "h:1",
        "__metrics_path__": "/metrics",
        "__param_m": "x",
        "__scheme__": "http",
        "__scrape_interval__": "15s",
        "__scrape_timeout__": "5s",
        "a": "own",
        "b": "g",
        "job": "j",
    }


def test_relabelling_may_change_everything() -> None:
    def to(label: str, value: str) -> Rule:
        return Rule(target_label=label, replacement=value)

    rules = (
        to("__address__", "other:2"),
        to("__scheme__", "HTTPS"),
        to("__metrics_path__", "m/x y%20"),
        to("__param_m", "z&"),
        to("__param_n", "1"),
        to("__scrape_interval__", "30s"),
        to("__scrape_timeout__", "20s"),
        to("job", "other"),
        Rule(source_labels=("__meta_x",), target_label="x"),
        to("__tmp_y", "gone"),
    )
    found = one(ScrapeJob("j", params=(("m", ("x", "y")),), relabel=rules), __meta_x="meta")
    assert isinstance(found, Target)
    assert found.url == "https://other:2/m/x%20y%2520?m=z%26&m=y&n=1"
    assert found.labels == {"job": "other", "instance": "other:2", "x": "meta"}
    assert (found.interval, found.timeout) == (30_000, 20_000)


def test_dropped() -> None:
    found = one(ScrapeJob("j", relabel=(Rule(Action.DROP, ("x",), regex="1"),)), x="1")
    assert isinstance(found, Dropped)
    assert found.discovered["x"] == "1"


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"__address__": ""}, "it has no address"),
        ({"__address__": "http://h:1"}, '"http://h:1" is no address; write host:port'),
        ({"__address__": "h:1?x=1"}, '"h:1?x=1" is no address; write host:port'),
        ({"__address__": "h:1#x"}, "is no address"),
        (
            {"__address__": "u:secret@h:1"},
            "h:1: its address has a user in it; write host:port, and basic_auth in the job",
        ),
        ({"__scheme__": "ftp"}, 'scheme "ftp" is neither http nor https'),
        ({"__scrape_interval__": "soon"}, 'scrape interval: "soon" is not a duration'),
        ({"__scrape_timeout__": "0s"}, "the scrape timeout cannot be 0"),
        ({"__scrape_timeout__": "2m"}, "its timeout, 2m, is longer than its interval, 1m"),
        ({"x": "\ud800"}, "a label of a target is not valid Unicode"),
    ],
)
def test_what_cannot_be_scraped(labels: dict[str, str], words: str) -> None:
    found = one(ScrapeJob("j"), **labels)
    assert isinstance(found, BadInput)
    assert words in found.message
    assert found.message.startswith("test: ")
    assert "secret" not in found.message


def test_offsets_are_spread_and_stay() -> None:
    targets = [one(ScrapeJob("j", interval=15_000), __address__=f"h:{port}") for port in range(1, 1001)]
    offsets = [target.offset("seed") for target in targets if isinstance(target, Target)]
    assert offsets == [target.offset("seed") for target in targets if isinstance(target, Target)]
    assert offsets != [target.offset("other") for target in targets if isinstance(target, Target)]
    per_second = [sum(offset // 1000 == second for offset in offsets) for second in range(15)]
    assert sum(per_second) == 1000
    assert max(per_second) < 110


@pytest.mark.parametrize("interval", [50, 100, 1000, 1050, 15_000])
def test_targets_are_scraped_in_slots(interval: int) -> None:
    job = ScrapeJob("j", interval=interval, timeout=interval)
    targets = [one(job, {"x": str(number)}) for number in range(2000)]
    offsets = sorted({target.offset("seed") for target in targets if isinstance(target, Target)})
    slots = max(1, interval // SLOT_MS)
    assert offsets == [slot * interval // slots for slot in range(slots)]


def test_groups_of_a_document() -> None:
    groups = parse_groups([{"targets": ["a:1", "b:2"], "labels": {"x": "y"}}, {"targets": None}], "f")
    assert groups == [
        Group("f:0", ({"__address__": "a:1"}, {"__address__": "b:2"}), {"x": "y"}),
        Group("f:1", (), {}),
    ]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "expected a list of target groups"),
        (None, "expected a list of target groups"),
        (["a:1"], "group 0: expected targets and labels"),
        ([{"targets": [], "label": {}}], "group 0: expected targets and labels"),
        ([{"targets": "a:1"}], "group 0: targets must be a list"),
        ([{}, {"targets": [1]}], "group 1: targets must be a list of texts"),
        ([{"labels": ["x"]}], "group 0: labels must be a mapping"),
        ([{"labels": {"x": 1}}], "group 0: the values of labels must be texts"),
        ([{"targets": ["a:1"] * 100_001}], "more than 100000 targets"),
        ([{"targets": ["a:1"] * 50_001}] * 2 + [{"wrong": 1}], "more than 100000 targets"),
    ],
)
def test_what_are_no_groups(document: object, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        parse_groups(document, "f")
