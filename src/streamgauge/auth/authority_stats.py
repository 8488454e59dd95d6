"""What is counted of those who are asked whether somebody may push."""

from __future__ import annotations

from streamgauge.stats import Stats


class AuthorityStats:
    """Made once in a server."""

    def __init__(self, stats: Stats) -> None:
        self.authorized = stats.counter(
            "cluster_authorizations",
            "Requests for a cluster token, and remote writes of clusters, by what became of them: granted, refused, "
            "failed.",
            "path",
            "result",
        )
        self.asked = stats.counter(
            "authority_requests", "Questions to the upstream authority, by its answer's status; 0 for none.", "code"
        )
        self.cache_reads = stats.counter(
            "authority_cache_reads", "Questions to the shared cache: hit, miss, error.", "result"
        )
        self.cache_writes = stats.counter(
            "authority_cache_writes", "Answers given to the shared cache: success, error.", "result"
        )
