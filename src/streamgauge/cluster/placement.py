"""Which node of several owns a key: a consistent hash ring, on which a node that comes or goes moves few keys.

The ring of telemeter's servers: each name has 40 digests of three points each, and a key belongs to the first point
behind its own.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable

REPLICAS = 40
"""Digests of a name. With 120 points each, the most loaded of a few nodes has about a third more than the mean."""
_POINT_BYTES = (0, 4, 8)  # where a digest's points begin


def owner(key: str, nodes: Iterable[str]) -> str | None:
    """The node that owns a key, None when there are none. Depends on the names alone, in any order."""
    return Ring(nodes).owner(key)


class Ring:
    """The ring of some nodes, for many questions."""

    def __init__(self, nodes: Iterable[str]) -> None:
        # Two names with one point would be a draw, which the order of names decides.
        points = {point: node for node in sorted(set(nodes), reverse=True) for point in _points(node)}
        self._points = sorted(points)
        self._nodes = [points[point] for point in self._points]

    def owner(self, key: str) -> str | None:
        """`owner` among these nodes."""
        if not self._points:
            return None
        place = bisect_right(self._points, _number(_digest(key), 0))
        return self._nodes[place % len(self._points)]


def _points(node: str) -> Iterable[int]:
    for replica in range(REPLICAS):
        digest = _digest(f"{node}-{replica}")
        yield from (_number(digest, at) for at in _POINT_BYTES)


def _digest(text: str) -> bytes:
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()


def _number(digest: bytes, at: int) -> int:
    return int.from_bytes(digest[at : at + 4], "little")
