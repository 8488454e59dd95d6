"""Which cluster a push comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

MAX_ID_BYTES = 255
"""Of a cluster's id: it becomes a label's value, of which uploads may have no longer ones, and a key of what is
remembered of each cluster."""


@dataclass(frozen=True, slots=True)
class ClusterIdentity:
    """account: whose the cluster is, "" where nobody says. labels: what every series of its pushes has, the label that
    names the cluster among them. adds: series without one of them get it; else they are refused. owner: the labels in
    order of their names."""

    account: str
    labels: Mapping[str, str]
    adds: bool = False
    owner: tuple[tuple[str, str], ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "owner", tuple(sorted(self.labels.items())))


class ClusterAuthority(Protocol):
    def verify(self, authorization: str | None) -> ClusterIdentity:
        """The cluster that the token of an upload was given to; `authorization` is the header. Raises Unauthorized."""

    async def verify_receive(
        self, authorization: str | None, headers: Sequence[tuple[bytes, bytes]], certificate: Mapping[str, Any] | None
    ) -> ClusterIdentity:
        """The cluster that a remote write comes from: as its credentials say, once the authority has confirmed that; or
        without these, as a proxy says in the headers; or else as its certificate says, which has been verified.

        headers: all, names in lower case. Raises BadInput for credentials that are none, Unauthorized, Forbidden,
        RateLimited, Overloaded while the authority is away."""
