"""Pushes of clusters for tests: uploads of metric families, and an authority that knows a few tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping

from streamgauge.auth.cluster_authority import ClusterIdentity
from streamgauge.wire import metric_family_protobuf, metric_family_text, snappy_frames
from streamgauge.wire.metric_family import Labels, Metric, MetricFamily, MetricType

CLUSTER = "_id"
HEADERS = {"content-type": metric_family_protobuf.CONTENT_TYPE, "content-encoding": "snappy"}
TEXT_HEADERS = {"content-type": metric_family_text.CONTENT_TYPE}


def identity(cluster: str = "one", **required: str) -> ClusterIdentity:
    return ClusterIdentity("", {CLUSTER: cluster, **required})


def labels(cluster: str | None = "one", **more: str) -> Labels:
    pairs: dict[str, str] = {**more, **({} if cluster is None else {CLUSTER: cluster})}
    return tuple(sorted(pairs.items()))


def family(
    name: str,
    samples: Iterable[tuple[Labels | Mapping[str, str], float, int | None]],
    kind: MetricType = MetricType.UNTYPED,
) -> MetricFamily:
    """A family of numbers: (labels, value, ms) each."""
    metrics = [
        Metric(tuple(each.items()) if isinstance(each, Mapping) else each, kind, value, time)
        for each, value, time in samples
    ]
    return MetricFamily(name, kind, tuple(metrics))


def upload(families: Iterable[MetricFamily]) -> bytes:
    """The body of an upload, as the reference's client sends it."""
    return snappy_frames.encode(metric_family_protobuf.encode(families))


async def body_of(content: bytes, piece: int = 1 << 30) -> AsyncIterator[bytes]:
    """A body as it comes over the network, in pieces."""
    for start in range(0, len(content), piece):
        yield content[start : start + piece]
