"""What leaves the machine, against a model that does one thing after the other to dictionaries."""

from __future__ import annotations

import base64
import copy
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.federate.transforms import Reason, Transforms, oldest, with_labels
from streamgauge.wire.metric_family import Labels, Metric, MetricFamily, MetricType

NOW = 1_790_000_000_500
OLDEST = (NOW - 86_400_000) // 1000 * 1000


def family(name: str, *metrics: Metric, kind: int | None = MetricType.UNTYPED) -> MetricFamily:
    return MetricFamily(name, kind, metrics)


def metric(labels: Labels = (), timestamp: int | None = NOW, value: float | None = 1.0) -> Metric:
    return Metric(labels, MetricType.UNTYPED, value, timestamp)


def names_and_labels(transforms: Transforms, *families: MetricFamily) -> list[tuple[str, Labels]]:
    done = transforms.apply(families, NOW)
    return [(each.name, one.labels) for each in done.families for one in each.metrics]


def test_the_hash_is_the_one_that_servers_know() -> None:
    transforms = Transforms(anonymize=frozenset({"instance"}), salt="salt")
    labels = (("instance", "host1"), ("job", "host1"), ("empty", ""))
    assert names_and_labels(transforms, family("up", metric(labels))) == [
        ("up", (("instance", "Mf5nfIpj-nAq"), ("job", "host1"), ("empty", "")))
    ]


def test_an_empty_value_stays_empty() -> None:
    transforms = Transforms(anonymize=frozenset({"a"}), salt="salt")
    assert names_and_labels(transforms, family("up", metric((("a", ""),)))) == [("up", (("a", ""),))]


def test_a_label_that_is_set_here_is_hashed_too_and_not_one_of_the_server() -> None:
    transforms = Transforms({"a": "host1"}, {}, frozenset({"a"}), "salt")
    [(_, labels)] = names_and_labels(transforms, family("up", metric((("a", "other"), ("b", "c")))))
    assert labels == (("a", "Mf5nfIpj-nAq"), ("b", "c"))
    assert with_labels(labels, {"a": "plain", "_id": "x"}) == (("a", "plain"), ("b", "c"), ("_id", "x"))


def test_families_are_renamed_before_their_names_are_looked_at() -> None:
    transforms = Transforms({}, {"ALERTS": "alerts", "gone": "", "m" * 300: "short"})
    given_families = [family(name, metric()) for name in ("ALERTS", "gone", "m" * 300, "n" * 256, "o" * 255)]
    done = transforms.apply(given_families, NOW)
    assert [each.name for each in done.families] == ["alerts", "short", "o" * 255]
    assert done.removed == {(Reason.NAME, ""): 1, (Reason.NAME, "n" * 256): 1}
    assert (done.scraped, done.left) == (5, 3)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (metric(timestamp=None), Reason.NO_TIME),
        (metric(timestamp=OLDEST - 1), Reason.OLD),
        (metric(value=None), Reason.VALUE),
        (Metric((), MetricType.GAUGE, 1.0, NOW), Reason.VALUE),
        (Metric((), None, None, NOW), Reason.VALUE),
    ],
)
def test_what_a_server_would_refuse_is_removed_and_counted(broken: Metric, reason: Reason) -> None:
    done = Transforms().apply([family("up", broken, metric(timestamp=OLDEST)), family("only", broken)], NOW)
    assert [(each.name, len(each.metrics)) for each in done.families] == [("up", 1)]
    assert done.removed == {(reason, "up"): 1, (reason, "only"): 1}


@pytest.mark.parametrize("kind", [None, MetricType.GAUGE_HISTOGRAM, 17])
def test_a_family_of_an_unknown_type_is_removed(kind: int | None) -> None:
    done = Transforms().apply([family("up", metric(), metric(), kind=kind)], NOW)
    assert not done.families
    assert done.removed == {(Reason.TYPE, "up"): 2}


def test_labels_that_are_too_long_or_missing_are_removed_and_their_metric_stays() -> None:
    labels = (("a", "v" * 256), ("b", "é" * 128), ("c", None), ("d" * 256, "x"), ("e", "v" * 255), ("f", ""))
    done = Transforms().apply([family("up", metric(labels))], NOW)
    assert done.families[0].metrics[0].labels == (("e", "v" * 255), ("f", ""))
    assert done.removed == {(Reason.LABEL, "up"): 4}


def test_24_hours_are_counted_in_whole_seconds() -> None:
    assert oldest(1_000_086_400_999) == 1_000_000_000_000


# ---- against a model ------------------------------------------------------------------------------------------------

SALT = "s"
LABEL_NAMES = st.sampled_from(["a", "b", "c", "n" * 256])
VALUES = st.sampled_from(["", "x", "y", "v" * 256]) | st.none()
STAMPS = st.sampled_from([NOW, NOW - 1, NOW - 2, OLDEST, OLDEST - 1, -5]) | st.none()
METRICS = st.builds(
    Metric,
    st.lists(st.tuples(LABEL_NAMES, VALUES), max_size=3).map(tuple),
    st.sampled_from([MetricType.UNTYPED, MetricType.GAUGE, None]),
    st.floats(0, 9) | st.none(),
    STAMPS,
)
FAMILIES = st.lists(
    st.builds(
        MetricFamily,
        st.sampled_from(["up", "down", "n" * 256]),
        st.sampled_from([None, 1, 3, 5, 9]),
        st.lists(METRICS, max_size=5).map(tuple),
    ),
    max_size=4,
)
TEXTS = st.dictionaries(st.sampled_from(["a", "b", "d"]), st.sampled_from(["x", "set", ""]), max_size=2)
RENAMES = st.dictionaries(st.sampled_from(["up", "down"]), st.sampled_from(["alerts", "up", ""]), max_size=2)


def model(families: list[MetricFamily], labels: dict[str, str], renames: dict[str, str], hashed: frozenset[str]) -> Any:
    """Step by step, each over everything, on lists that are changed in place."""
    rows: list[Any] = [
        [f.name, f.type, [[list(map(list, m.labels)), m.kind, m.value, m.timestamp] for m in f.metrics]]
        for f in families
    ]
    for row in rows:  # --label
        for pairs, *_ in row[2]:
            for name in sorted(labels):
                found = [pair for pair in pairs if pair[0] == name]
                for pair in found:
                    pair[1] = labels[name]
                if not found:
                    pairs.append([name, labels[name]])
    for row in rows:
        row[0] = renames.get(row[0], row[0])
    rows = [row for row in rows if 0 < len(row[0]) <= 255 and row[1] in (0, 1, 2, 3, 4)]
    for row in rows:
        for one in row[2]:
            one[0] = [pair for pair in one[0] if len(pair[0]) <= 255 and pair[1] is not None and len(pair[1]) <= 255]
        row[2] = [m for m in row[2] if m[3] is not None and m[3] >= OLDEST and m[1] == row[1] and m[2] is not None]
    rows = [row for row in rows if row[2]]
    for row in rows:
        row[2].sort(key=lambda one: one[3])
    for row in copy.copy(rows):
        for pairs, *_ in row[2]:
            for pair in pairs:
                if pair[0] in hashed and pair[1]:
                    digest = hashlib.sha256((SALT + pair[1]).encode()).digest()
                    pair[1] = base64.urlsafe_b64encode(digest[:9]).decode()
    return rows


@given(FAMILIES, TEXTS, RENAMES, st.sets(st.sampled_from("abd")).map(frozenset))
def test_everything_is_done_in_its_order(
    families: list[MetricFamily], labels: dict[str, str], renames: dict[str, str], hashed: frozenset[str]
) -> None:
    done = Transforms(labels, renames, hashed, SALT).apply(families, NOW)
    found = [
        [f.name, f.type, [[list(map(list, m.labels)), m.kind, m.value, m.timestamp] for m in f.metrics]]
        for f in done.families
    ]
    assert found == model(families, labels, renames, hashed)
    assert done.left == sum(len(row[2]) for row in found)
    metrics = sum(count for (reason, _), count in done.removed.items() if reason is not Reason.LABEL)
    assert metrics == done.scraped - done.left
