"""Several scrapes as one push."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamgauge.federate.batch import Batch, halves, labels_size, make_push
from streamgauge.wire.metric_family import Metric, MetricFamily, MetricType
from streamgauge.wire.metric_family_protobuf import encode
from streamgauge.wire.push_part import Part

NOW = 1_790_000_000_000
SERIES = st.sampled_from(["a", "b", "c"])


def batch(points: dict[tuple[str, str, int], float]) -> Batch:
    """By metric, series and time."""
    families: dict[str, list[Metric]] = {}
    for (name, series, time), value in sorted(points.items(), key=lambda item: item[0][2]):
        families.setdefault(name, []).append(Metric((("s", series),), MetricType.UNTYPED, value, time))
    return Batch(tuple(MetricFamily(name, MetricType.UNTYPED, tuple(metrics)) for name, metrics in families.items()))


POINTS = st.dictionaries(
    st.tuples(st.sampled_from(["up", "down"]), SERIES, st.integers(NOW, NOW + 5)), st.just(1.0), max_size=8
)
BATCHES = st.lists(POINTS.map(batch), min_size=1, max_size=4)


def points_of(families: tuple[MetricFamily, ...]) -> list[tuple[str, str | None, int | None]]:
    return [(f.name, dict(m.labels)["s"], m.timestamp) for f in families for m in f.metrics]


@given(BATCHES, st.integers(NOW, NOW + 5))
def test_a_push_has_every_sample_once_and_is_in_order(batches: list[Batch], least: int) -> None:
    push = make_push(batches, {"_id": "x"}, least)
    every = [point for one in batches for point in points_of(one.families)]
    assert sorted(points_of(push.families)) == sorted({point for point in every if (point[2] or 0) >= least})
    for family in push.families:
        stamps = [metric.timestamp or 0 for metric in family.metrics]
        assert stamps == sorted(stamps)
        assert all(dict(metric.labels)["_id"] == "x" for metric in family.metrics)
    assert len({family.name for family in push.families}) == len(push.families)
    assert all(family.metrics for family in push.families)
    assert push.dropped == sum((point[2] or 0) < least for point in every)


@given(BATCHES)
def test_what_was_sent_last_is_of_the_newest_batch(batches: list[Batch]) -> None:
    assert points_of(make_push(batches, {}, 0).last) == points_of(batches[-1].families)


@given(POINTS.map(batch))
def test_halves_are_the_whole(whole: Batch) -> None:
    parts = halves(whole)
    if parts is None:
        assert whole.metrics < 2
        return
    assert sorted(p for part in parts for p in points_of(part.families)) == sorted(points_of(whole.families))
    assert abs(parts[0].metrics - parts[1].metrics) <= 1
    assert [one.part for one in parts] == [Part.FIRST, Part.LAST]


def test_a_push_says_where_it_is_within_a_scrape() -> None:
    one = batch({("up", str(number), NOW): 1.0 for number in range(4)})
    quarters = [part for half in halves(one) or () for part in halves(half) or ()]
    assert [part.part for part in quarters] == [Part.FIRST, Part.MIDDLE, Part.MIDDLE, Part.LAST]
    for start, end, part in ((0, 4, Part.WHOLE), (0, 2, Part.FIRST), (1, 3, Part.MIDDLE), (2, 4, Part.LAST)):
        assert make_push(quarters[start:end], {}, 0).part is part
    assert make_push([quarters[-1], one], {}, 0).part is Part.LAST
    assert make_push([quarters[-1], one, quarters[0]], {}, 0).part is Part.MIDDLE


def test_labels_are_not_larger_than_is_said() -> None:
    labels = {"_id": "é" * 100, "tenant": ""}
    one = batch({("up", "a", NOW): 1.0})
    grown = len(encode(make_push([one], labels, 0).families)) - len(encode(one.families))
    assert grown <= labels_size(labels)


def test_a_label_of_the_server_replaces_ours() -> None:
    one = Batch((MetricFamily("up", 3, (Metric((("_id", "forged"), ("s", "a")), MetricType.UNTYPED, 1.0, NOW),)),))
    assert make_push([one], {"_id": "true"}, 0).families[0].metrics[0].labels == (("_id", "true"), ("s", "a"))
