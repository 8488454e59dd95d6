"""Telling blocks of samples as they came from blocks of aggregates.

Everything before one moment is in blocks of aggregates, and everything from it on in blocks of samples and the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamgauge.store.ports import DAY_MS, FIRST_TIME, BlockMeta


@dataclass(frozen=True, slots=True)
class Tier:
    """Aggregates over `resolution` ms, for samples that are up to `keep` ms old."""

    resolution: int
    keep: int


def raw(metas: Sequence[BlockMeta]) -> list[BlockMeta]:
    """The blocks of samples as they came."""
    return [meta for meta in metas if meta.resolution == 0]


def thinned(metas: Sequence[BlockMeta]) -> list[BlockMeta]:
    """The blocks of aggregates, in order of time."""
    return sorted((meta for meta in metas if meta.resolution > 0), key=lambda meta: meta.window)


def end_of(meta: BlockMeta) -> int:
    """The end of the last day that a block of aggregates is of, ms, exclusive."""
    return (meta.max_time // DAY_MS + 1) * DAY_MS


def thinned_through(metas: Sequence[BlockMeta]) -> int:
    """Before this time (ms) there are only aggregates."""
    return max(map(end_of, thinned(metas)), default=FIRST_TIME)
