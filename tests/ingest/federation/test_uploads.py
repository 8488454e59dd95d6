"""Every outcome of an upload, and that the fast ways of reading it give what the plain one gives."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.auth.cluster_authority import ClusterIdentity
from streamgauge.clock import ManualClock
from streamgauge.errors import (
    BadInput,
    ConfigError,
    Forbidden,
    IndexFull,
    Overloaded,
    PushRefused,
    RateLimited,
    ReadOnly,
    StreamgaugeError,
    TooLarge,
    UnsupportedMedia,
)
from streamgauge.ingest.federation.policy import MAX_AGE, MAX_AHEAD
from streamgauge.stats import Stats
from streamgauge.testing.push_receiver import EVERYTHING, Federation, receiver_of, rule
from streamgauge.testing.pushes import HEADERS, TEXT_HEADERS, body_of, family, identity, labels, upload
from streamgauge.testing.sink import MemorySink
from streamgauge.wire import metric_family_protobuf, metric_family_text, snappy_frames
from streamgauge.wire.metric_family import Histogram, Metric, MetricFamily, MetricType, Summary
from streamgauge.wire.protobuf import span
from streamgauge.wire.varints import varints

pytestmark = pytest.mark.anyio
Federate = Callable[..., Federation]
NOW = ManualClock().now_ms()
COUNTER = MetricType.COUNTER


def one(name: str = "up", value: float = 1.0, time: int | None = NOW, **more: str) -> MetricFamily:
    return family(name, [(labels(**more), value, time)])


def of_metric(metric: Metric, kind: int | None = MetricType.UNTYPED) -> MetricFamily:
    return MetricFamily("up", kind, (metric,))


async def test_an_upload_is_stored_under_its_cluster(federation: Federation) -> None:
    await federation.upload(one(value=2.5, job="x"))
    assert federation.sink.samples(__name__="up", _id="one", job="x") == [(NOW, 2.5)]
    assert federation.metric('streamgauge_ingested_samples_total{source="upload"}') == 1


REFUSED: list[tuple[MetricFamily, type[StreamgaugeError], str]] = [
    (one(time=None), BadInput, 'do not have a timestamp: metric up{_id="one"}'),
    (family("up", [(labels(), 1, NOW), (labels(), 1, NOW - 1)]), BadInput, "not in increasing timestamp order"),
    (one(time=-1), BadInput, "not in increasing timestamp order"),
    (family("up", [(labels(None), 1.0, NOW)]), BadInput, "a required label is missing from the metric"),
    (family("up", [(labels("two"), 1.0, NOW)]), PushRefused, "to have value one instead of two"),
    (family("up", [({"_id": "two", "a": "b"}, 1.0, NOW)]), PushRefused, "instead of two"),
    (one("n" * 256), PushRefused, "metrics_name cannot be longer than 255 characters"),
    (of_metric(Metric(labels(), COUNTER, 1.0, NOW), 5), PushRefused, "unknown metric type 5"),
    (of_metric(Metric(labels(), COUNTER, 1.0, NOW), 77), PushRefused, "unknown metric type 77"),
    (one(**{"l" * 256: "x"}), PushRefused, "label_name cannot be longer than 255 characters"),
    (one(label="é" * 128), PushRefused, "label_value cannot be longer than 255 characters"),
    (of_metric(Metric((*labels(), ("a", None)), MetricType.UNTYPED, 1.0, NOW)), PushRefused, "label_value"),
    (one(time=NOW - MAX_AGE - 1000), BadInput, "too old, check clock skew"),
    (one(time=NOW + MAX_AHEAD + 1), BadInput, "too far in the future"),
    (of_metric(Metric(labels(), COUNTER, 1.0, NOW)), PushRefused, "UNTYPED must have untyped field set"),
    (of_metric(Metric(labels(), COUNTER, None, NOW), COUNTER), PushRefused, "COUNTER must have counter field set"),
    (of_metric(Metric(labels(), None, None, NOW), COUNTER), PushRefused, "COUNTER must have counter field set"),
    (of_metric(Metric((("_id", "one"), ("_id", "two")), COUNTER, 1.0, NOW), COUNTER), PushRefused, "given twice"),
    (of_metric(Metric((*labels(), ("a", "1"), ("a", "1")), COUNTER, 1.0, NOW), COUNTER), PushRefused, "given twice"),
    (one(__name__="other"), PushRefused, 'label "__name__" is given twice'),
    (family("up", [({"_ID": "one"}, 1.0, NOW)]), BadInput, "a required label is missing"),
    (family("up", [({"_id": "оne"}, 1.0, NOW)]), PushRefused, "to have value one instead of оne"),
]


@pytest.mark.parametrize(("bad", "error", "message"), REFUSED, ids=[message[:40] for _, _, message in REFUSED])
async def test_one_broken_rule_refuses_everything_and_says_where(
    federation: Federation, bad: MetricFamily, error: type[StreamgaugeError], message: str
) -> None:
    good = one("good")
    for families in ([good, bad], [bad, good]):
        with pytest.raises(error, match=r"\A[^\n]*\Z") as caught:
            await federation.upload(*families)
        assert message in caught.value.message
        assert type(caught.value) is error
    await federation.upload(good)  # and what was learned does not let the same thing pass
    with pytest.raises(error):
        await federation.upload(bad)
    assert federation.sink.series() == [{"__name__": "good", "_id": "one"}]


@pytest.mark.parametrize("time", [NOW - MAX_AGE, NOW + MAX_AHEAD])
async def test_times_at_the_bounds_pass(federation: Federation, time: int) -> None:
    for _ in range(2):
        await federation.upload(one(time=time))
    with pytest.raises(BadInput):
        await federation.upload(one(time=time + (1 if time > NOW else -1001)))
    assert federation.sink.samples(__name__="up", _id="one") == [(time, 1.0)]


async def test_the_first_rule_that_is_broken_is_named_family_by_family(federation: Federation) -> None:
    with pytest.raises(PushRefused, match="instead of two"):  # the second family's timestamp is looked at later
        await federation.upload(family("a", [(labels("two"), 1.0, NOW)]), one("b", time=None))
    with pytest.raises(BadInput, match="do not have a timestamp"):  # within a family timestamps come first
        await federation.upload(family("a", [(labels("two"), 1.0, NOW), (labels(), 1.0, None)]))


async def test_families_without_type_or_metrics_are_left_out(federation: Federation) -> None:
    untyped = of_metric(Metric(labels(), COUNTER, 1.0, NOW), None)
    await federation.upload(untyped, MetricFamily("empty", 0, ()), one("kept"))
    assert [series["__name__"] for series in federation.sink.series()] == ["kept"]
    with pytest.raises(BadInput):  # the rules before that hold for them, too
        await federation.upload(of_metric(Metric(labels(), COUNTER, 1.0, None), None))


async def test_histograms_and_summaries_are_expanded(federation: Federation) -> None:
    histogram = Metric(labels(), MetricType.HISTOGRAM, Histogram(3, 4.5, ((0.1, 1), (1.0, 2))), NOW)
    summary = Metric(labels(), MetricType.SUMMARY, Summary(5, 6.0, ((0.5, 7.0),)), NOW)
    families = MetricFamily("h", 4, (histogram,), "Help."), MetricFamily("s", 2, (summary,))
    for _ in range(2):
        await federation.upload(*families, one("beside"))
    stored = {(series["__name__"], series.get("le", series.get("quantile", ""))) for series in federation.sink.series()}
    assert stored == {
        ("h_bucket", "0.1"), ("h_bucket", "1.0"), ("h_bucket", "+Inf"), ("h_sum", ""), ("h_count", ""),
        ("s", "0.5"), ("s_sum", ""), ("s_count", ""), ("beside", ""),
    }  # fmt: skip
    assert federation.sink.samples(__name__="h_bucket", _id="one", le="+Inf") == [(NOW, 3.0)]
    assert federation.sink.metadata["h"].type == "histogram"


async def test_no_cluster_changes_what_is_known_of_a_metric(federation: Federation) -> None:
    await federation.upload(replace(family("m", [(labels(), 1.0, NOW)], COUNTER), help="First."))
    gauge = replace(family("m", [(labels("two"), 1.0, NOW)], MetricType.GAUGE), help="Second.")
    await federation.upload(gauge, cluster="two")
    known = federation.sink.metadata["m"]
    assert (known.type, known.help) == ("counter", "First.")


@pytest.mark.parametrize("text", [False, True])
async def test_nothing_is_learned_of_metrics_that_the_whitelist_leaves_out(federate: Federate, text: bool) -> None:
    federation = federate(replace(EVERYTHING, whitelist=(rule(__name__="a", job="y"), rule(__name__="b", job="x"))))
    sample = (labels(job="y"), 1.0, NOW)
    families = [replace(family(name, [sample], MetricType.GAUGE), help="Help.") for name in ("a", "b", "c")]
    if text:
        await federation.send(b"".join(metric_family_text.encode(families)), TEXT_HEADERS)
    else:
        await federation.upload(*families)
    assert sorted(federation.sink.metadata) == ["a"]


@pytest.mark.parametrize("kind", ["gauge", "untyped", "histogram"])
async def test_a_second_name_in_text_is_refused_like_one_in_protobuf(federation: Federation, kind: str) -> None:
    sample = f'a_bucket{{_id="one",le="+Inf",__name__="b"}} 1 {NOW}' if kind == "histogram" else ""
    sample = sample or f'a{{_id="one",__name__="b"}} 1 {NOW}'
    with pytest.raises(PushRefused, match='label "__name__" is given twice'):
        await federation.send(f"# TYPE a {kind}\n{sample}\n".encode(), TEXT_HEADERS)
    assert federation.sink.series() == []


async def test_text_is_read_like_protobuf(federation: Federation) -> None:
    text = f'# TYPE a counter\na{{_id="one"}} 1 {NOW}\nb{{_id="one",x="y"}} 2 {NOW}\n'.encode()
    await federation.send(text, TEXT_HEADERS)
    await federation.send(snappy_frames.encode(text), {**TEXT_HEADERS, "content-encoding": "Snappy"})
    assert federation.sink.samples(__name__="b", _id="one", x="y") == [(NOW, 2.0)]
    for bad in (b"a{", b'a{_id="one"} 1\n', b"\xff\n"):
        with pytest.raises(BadInput):
            await federation.send(bad, TEXT_HEADERS)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json"},
        {"content-type": "application/openmetrics-text; version=1.0.0"},
        {"content-type": "text/plain; version=1.0.0"},
        {"content-type": "application/vnd.google.protobuf; proto=other.Message"},
        {"content-type": "application/vnd.google.protobuf; encoding=text"},
        {"content-type": "text/plain", "content-encoding": "gzip"},
    ],
)
async def test_what_is_not_spoken_here_is_415(federation: Federation, headers: dict[str, str]) -> None:
    with pytest.raises(UnsupportedMedia, match="is not spoken here; send"):
        await federation.send(b"", headers)


@pytest.mark.parametrize("kind", ["application/vnd.google.protobuf", "TEXT/plain; Version=0.0.4", "text/plain"])
async def test_parameters_may_be_absent_and_a_body_empty(federation: Federation, kind: str) -> None:
    await federation.send(b"", {"content-type": kind, "content-encoding": "snappy"})
    assert federation.sink.batches[-1:] == [] or len(federation.sink.batches[-1]) == 0


@pytest.mark.parametrize(
    "body",
    [b"plain", b"\x0a", snappy_frames.encode(b"\x05\x0a\xff"), snappy_frames.encode(b"\x02\x08\x01"), b"\xff" * 9],
)
async def test_an_undecodable_body_is_the_clients_fault(federation: Federation, body: bytes) -> None:
    with pytest.raises(BadInput):
        await federation.send(body)


async def test_the_size_limit_is_the_same_however_a_body_comes(federate: Federate) -> None:
    random.seed(1)
    content = metric_family_protobuf.encode([one(f"m{random.getrandbits(4000):x}"[:255]) for _ in range(50)])
    plain = {"content-type": metric_family_protobuf.CONTENT_TYPE}
    for limit, fits in ((len(content), True), (len(content) - 1, False)):
        for body, headers in ((content, plain), (snappy_frames.encode(content), HEADERS)):
            federation = federate(replace(EVERYTHING, limit_bytes=limit))
            if fits:
                await federation.send(body, headers)
                assert len(federation.sink.series()) == 50
            else:
                with pytest.raises(TooLarge):
                    await federation.send(body, headers)


async def test_a_bomb_is_refused(federation: Federation) -> None:
    with pytest.raises(TooLarge, match="more than 512000 bytes"):
        await federation.send(snappy_frames.encode(bytes(5 << 20)))
    with pytest.raises(TooLarge):
        await federation.send(bytes(1 << 20))
    assert federation.metric('streamgauge_push_beyond_limit_total{limit="bytes",source="upload"}') == 2


async def test_an_empty_whitelist_denies_all(federate: Federate) -> None:
    federation = federate(replace(EVERYTHING, whitelist=()))
    await federation.upload(one())
    assert federation.sink.series() == []
    assert federation.metric('streamgauge_push_left_out_samples_total{source="upload"}') == 1


async def test_labels_are_set_and_taken_off_what_the_whitelist_lets_through(federate: Federate) -> None:
    rules = (rule(__name__="up", job="a"), rule(__name__="h"), rule(env="never"))
    federation = federate(replace(EVERYTHING, whitelist=rules, labels=(("env", "x"),), elide_labels=("secret",)))
    histogram = Metric(labels(), MetricType.HISTOGRAM, Histogram(1, 1.0), NOW)
    partly = family("up", [(labels(job=job, env="old", secret="s"), 1.0, NOW) for job in "ab"])
    for _ in range(3):
        await federation.upload(partly, MetricFamily("h", 4, (histogram,)), one("down"))
    await federation.upload(partly)
    assert {series["__name__"] for series in federation.sink.series()} == {"up", "h_bucket", "h_count", "h_sum"}
    assert federation.sink.samples(__name__="up", _id="one", job="a", env="x") == [(NOW, 1.0)]


@pytest.mark.parametrize(
    "change", [{"labels": (("_id", "x"),)}, {"elide_labels": ("_id",)}, {"elide_labels": ("__name__",)}]
)
async def test_no_setting_may_take_the_clusters_label_away(federate: Federate, change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="must leave"):
        federate(replace(EVERYTHING, **change))


async def test_timestamps_are_kept_or_overwritten(federate: Federate) -> None:
    federation = federate(replace(EVERYTHING, overwrite_timestamps=True))
    times = [NOW - 6 * 60_000, NOW, NOW + 6 * 60_000]
    for _ in range(2):
        await federation.upload(*(one(f"m{number}", time=time) for number, time in enumerate(times)))
    for number in range(3):
        assert federation.sink.samples(__name__=f"m{number}", _id="one") == [(NOW // 1000 * 1000, 1.0)]
    for tense in ("past", "present", "future"):
        assert federation.metric(f'streamgauge_push_overwritten_timestamps_total{{tense="{tense}"}}') == 2


async def test_a_token_must_name_a_cluster(federation: Federation) -> None:
    with pytest.raises(Forbidden, match="must contain a '_id' label"):
        await federation.receiver.upload(ClusterIdentity("", {}), HEADERS, body_of(b""))


async def test_all_labels_of_the_token_are_required(federation: Federation) -> None:
    await federation.upload(one(env="a"), env="a")
    with pytest.raises(PushRefused, match="expected label env to have value b instead of a"):
        await federation.upload(one(env="a"), env="b")


async def test_metrics_with_more_label_sets_than_are_remembered_keep_their_labels(federation: Federation) -> None:
    sets = [labels(n=str(number)) for number in range(4200)]
    families = [family(name, [(pairs, float(at), NOW) for at, pairs in enumerate(sets)]) for name in ("a", "b")]
    await federation.upload(*families)
    assert federation.sink.samples(__name__="a", _id="one", n="0") == [(NOW, 0.0)]
    assert federation.sink.samples(__name__="b", _id="one", n="4199") == [(NOW, 4199.0)]
    assert len(set(federation.sink.keys)) == 8400


async def test_no_cluster_gets_what_was_learned_of_another(federation: Federation) -> None:
    for _ in range(2):
        await federation.upload(one())
        with pytest.raises(PushRefused, match="to have value two instead of one"):
            await federation.upload(one(), cluster="two")
    assert federation.metric('streamgauge_push_layouts_total{outcome="same"}') == 1


# ---- limits ---------------------------------------------------------------------------------------------------------


async def test_a_cluster_may_push_once_an_interval_and_a_few_times_at_once(federate: Federate) -> None:
    federation = federate(replace(EVERYTHING, ratelimit=60_000, burst=2))
    for _ in range(2):
        await federation.upload(one())
    with pytest.raises(RateLimited, match='write limit reached for cluster with id "one"') as caught:
        await federation.upload(one())
    assert caught.value.retry_after == 60
    await federation.upload(family("up", [(labels("two"), 1.0, NOW)]), cluster="two")  # others are unaffected
    await federation.clock.advance(60)
    await federation.upload(one())


async def test_what_is_refused_costs_no_interval_and_has_a_limit_of_its_own(federate: Federate) -> None:
    federation = federate(replace(EVERYTHING, ratelimit=60_000, burst=1))
    for _ in range(10):
        with pytest.raises(BadInput):
            await federation.send(b"malformed")

    async def unread():
        raise AssertionError("the body was read")
        yield b""

    with pytest.raises(RateLimited, match="too many refused pushes") as caught:
        await federation.receiver.upload(identity(), HEADERS, unread())
    assert caught.value.retry_after == 6
    await federation.clock.advance(6)
    await federation.upload(one())
    with pytest.raises(RateLimited, match="write limit"):  # before the body is read
        await federation.receiver.upload(identity(), HEADERS, unread())


async def test_a_push_that_could_not_be_stored_costs_nothing(federate: Federate) -> None:
    federation = federate(replace(EVERYTHING, ratelimit=60_000, burst=1))
    federation.sink.failure = ReadOnly("the disk is full")
    with pytest.raises(ReadOnly):
        await federation.upload(one())
    federation.sink.failure = None
    await federation.upload(one())


async def test_the_series_of_a_cluster_are_limited(federate: Federate) -> None:
    federation = federate(replace(EVERYTHING, max_series=3))
    three = [one("m", i=str(number)) for number in range(3)]
    await federation.upload(*three)
    for new in ("x", "y"):
        with pytest.raises(PushRefused, match='cluster with id "one" has 4 series; the limit is 3'):
            await federation.upload(*three, one("m", i=new))
    assert len(federation.sink.keys) == 3  # nothing is left of what was refused
    assert federation.metric('streamgauge_push_beyond_limit_total{limit="series",source="upload"}') == 2
    await federation.upload(*three)


async def test_a_series_that_is_spelled_in_two_ways_is_one(federate: Federate) -> None:
    federation = federate(replace(EVERYTHING, max_series=1, elide_labels=("pod",)))
    await federation.upload(one(pod="a"))
    await federation.upload(one(pod="a"), one(pod="b"))
    with pytest.raises(PushRefused, match='cluster with id "one" has 2 series; the limit is 1'):
        await federation.upload(one(pod="a"), one(pod="b", job="x"))


async def test_parts_of_a_scrape_are_limited_together(federate: Federate) -> None:
    federation = federate(replace(EVERYTHING, max_series=3))
    first, last = ({**HEADERS, "x-streamgauge-part": word} for word in ("first", "last"))
    for _ in range(2):
        await federation.send(upload([one("m", i="0"), one("m", i="1")]), first)
        await federation.send(upload([one("m", i="2")]), last)
    await federation.send(upload([one("m", i="0"), one("m", i="1")]), first)
    with pytest.raises(PushRefused, match="has 4 series; the limit is 3"):
        await federation.send(upload([one("m", i="2"), one("m", i="3")]), last)


async def test_a_part_that_is_none_is_refused(federation: Federation) -> None:
    with pytest.raises(BadInput, match='x-streamgauge-part: "second" is none of first, middle and last'):
        await federation.send(upload([one()]), {**HEADERS, "x-streamgauge-part": "second"})


async def test_series_that_the_store_has_no_room_for_are_named_and_the_rest_is_stored(federation: Federation) -> None:
    await federation.upload(one("old"))
    federation.sink.refuse_series = IndexFull("the index is full")
    with pytest.raises(PushRefused, match=r"^1 samples were stored; 2 items were not(.|\n)*the index is full"):
        await federation.upload(one("old", 2.0), one("new"), one("newer"))
    assert federation.sink.samples(__name__="old", _id="one") == [(NOW, 2.0)]


async def test_one_cluster_more_than_there_may_be_is_told_to_come_later(federate: Federate) -> None:
    federation = federate(replace(EVERYTHING, max_clusters=1))
    await federation.upload(one())
    with pytest.raises(Overloaded, match="1 clusters push already"):
        await federation.upload(family("up", [(labels("two"), 1.0, NOW)]), cluster="two")
    await federation.upload(one())
    assert federation.metric('streamgauge_push_beyond_limit_total{limit="clusters",source="upload"}') == 1


async def test_series_that_were_pruned_are_found_again(federation: Federation) -> None:
    for _ in range(2):
        await federation.upload(one())
        federation.sink.prune()
    await federation.upload(one(value=3.0))
    assert federation.sink.samples(__name__="up", _id="one")[-1] == (NOW, 3.0)


# ---- the three ways of reading --------------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "c_total"])
values = st.floats(allow_nan=False) | st.just(0.0)


@st.composite
def metrics(draw: st.DrawFn, kind: MetricType) -> Metric:
    pairs = labels(**draw(st.dictionaries(st.sampled_from("xyz"), st.text(max_size=3), max_size=3)))
    time = NOW - draw(st.integers(0, 5)) * 1000
    if kind is MetricType.SUMMARY:
        return Metric(pairs, kind, Summary(draw(st.integers(0, 9)), draw(values), ((0.5, draw(values)),)), time)
    return Metric(pairs, kind, draw(values), time)


@st.composite
def bodies(draw: st.DrawFn) -> list[MetricFamily]:
    kinds = st.sampled_from([COUNTER, MetricType.GAUGE, MetricType.UNTYPED, MetricType.SUMMARY])
    families = []
    for name in draw(st.lists(names, max_size=3, unique=True)):
        kind = draw(kinds)
        found = sorted(draw(st.lists(metrics(kind), max_size=6)), key=lambda metric: metric.timestamp or 0)
        families.append(MetricFamily(name, kind, tuple(found), draw(st.sampled_from(["", "Help."]))))
    return families


@settings(max_examples=15)
@given(st.lists(bodies(), min_size=1, max_size=4), st.randoms())
async def test_every_way_of_reading_gives_the_same(pushed: list[list[MetricFamily]], shuffle: random.Random) -> None:
    clock = ManualClock()
    sinks = MemorySink(), MemorySink()
    wanted = replace(EVERYTHING, whitelist=(rule(__name__="a"), rule(x="")), labels=(("y", "set"),))
    quick, plain = (receiver_of(sink, Stats(), clock, wanted) for sink in sinks)
    for families in [*pushed, *shuffle.sample(pushed, len(pushed)), pushed[0], pushed[0]]:
        await quick.upload(identity(), HEADERS, body_of(upload(families)))
        await plain.upload(identity(), HEADERS, body_of(_spelt_unusually(families)))
        rows = [_rows(sink) for sink in sinks]
        assert rows[0] == rows[1]
        assert sinks[0].metadata == sinks[1].metadata


def _spelt_unusually(families: list[MetricFamily]) -> bytes:
    """The same push, with an unknown field in front of each family, for the way that reads everything."""
    body = b""
    for each in families:
        encoded = metric_family_protobuf.encode([each])
        message = b"\x7a\x00" + encoded[span(encoded, 0, len(encoded))[0] :]
        body += varints(np.array([len(message)])).to_pylist()[0] + message
    return snappy_frames.encode(body)


def _rows(sink: MemorySink) -> list[tuple[bytes, int, int]]:
    """What the last append of samples held, in order."""
    rows = []
    for batch in sink.batches:
        bits = batch.values.view("i8").tolist()
        rows += [
            (sink.keys[s], t, b) for s, t, b in zip(batch.series.tolist(), batch.times.tolist(), bits, strict=True)
        ]
    return rows


@settings(max_examples=40)
@given(st.data())
async def test_no_damage_to_a_known_push_does_harm(data: st.DataObject) -> None:
    stats = Stats()
    sink = MemorySink()
    receiver = receiver_of(sink, stats, ManualClock())
    content = bytearray(metric_family_protobuf.encode([one("a"), one("b", x="y")]))
    plain = {"content-type": metric_family_protobuf.CONTENT_TYPE}
    await receiver.upload(identity(), plain, body_of(bytes(content)))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.sampled_from([len(content), len(content) - 1, 20]))]
    try:
        await receiver.upload(identity(), plain, body_of(bytes(content)))
    except StreamgaugeError as error:
        assert 400 <= error.status < 500
    assert all(series["_id"] == "one" for series in sink.series())
