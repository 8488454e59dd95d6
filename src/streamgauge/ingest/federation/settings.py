"""The `federation:` section, as the server's parts use it."""

from __future__ import annotations

from dataclasses import dataclass

from streamgauge.model.source import Matcher

MINUTE = 60_000


@dataclass(frozen=True, slots=True)
class PushSettings:
    """What is done with pushes. Names are the reference's flags. Times are ms, sizes bytes; 0 is no limit.

    ratelimit: between uploads of one cluster, `burst` of which may come at once. receive_ratelimit, receive_burst: the
    same for remote writes, of which Prometheus sends several a second when it catches up. whitelist: sets of matchers,
    one of which a series must fulfil, the empty set fulfilled by all; no sets: nothing passes. labels: set on every
    series. elide_labels: taken off. limit_bytes: of an upload, decompressed. limit_receive_bytes: of a remote write,
    compressed; limit_receive_content_bytes: decompressed. ttl: after which a cluster that is silent is gone.
    """

    partition_label: str = "_id"
    labels: tuple[tuple[str, str], ...] = ()
    elide_labels: tuple[str, ...] = ()
    whitelist: tuple[tuple[Matcher, ...], ...] = ()
    ratelimit: int = 270_000
    burst: int = 20
    receive_ratelimit: int = 50
    receive_burst: int = 200
    limit_bytes: int = 512_000
    limit_receive_bytes: int = 131_072
    limit_receive_content_bytes: int = 4 << 20
    max_series: int = 0  # of one cluster
    max_clusters: int = 100_000
    overwrite_timestamps: bool = False
    ttl: int = 10 * MINUTE
