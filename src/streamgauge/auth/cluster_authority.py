"""Which cluster a push comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

MAX_ID_BYTES = 255
"""Of a cluster's id: it becomes a label's value, of which uploads may have no longer ones, and a key of what is
remembered of each cluster."""


@dataclass(frozen=True, slots=True)
class ClusterIdentity:
    """account: whose the cluster is, "" where nobody says. labels: what every series of its pushes has, the label that
    names the cluster among them."""

    account: str
    labels: Mapping[str, str]


class ClusterAuthority(Protocol):
    def verify(self, authorization: str | None) -> ClusterIdentity:
        """The cluster that the token of an upload was given to; `authorization` is the header. Raises Unauthorized."""

    async def verify_receive(self, authorization: str | None) -> ClusterIdentity:
        """The cluster that a remote write says it comes from, once the authority has confirmed that. Raises BadInput
        for credentials that are none, Unauthorized, Forbidden, RateLimited, Overloaded while the authority is away."""
