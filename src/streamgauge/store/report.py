"""What a store holds, as plain values for people and programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamgauge.store.damage import Damage
from streamgauge.store.events.ports import EventBlockMeta
from streamgauge.store.ports import BlockMeta, Tombstone
from streamgauge.store.retention import NS
from streamgauge.store.tombstones import applying, series_of


def report(
    blocks: Sequence[BlockMeta],
    head_samples: int,
    series: int,
    commit: int,
    flushed_through: int,
    damage: Sequence[Damage],
    cardinality: dict[str, Any],
    tombstones: Sequence[Tombstone],
    event_blocks: Sequence[EventBlockMeta],
    head_events: int,
) -> dict[str, Any]:
    """The answer of `inspect`. Times in ms, sizes in bytes."""
    return {
        "blocks": [
            {
                "id": meta.id,
                "min_time": meta.min_time,
                "max_time": meta.max_time,
                "series": meta.series,
                "samples": meta.samples,
                "bytes": meta.bytes,
                "level": meta.level,
                "late": meta.late,
                "resolution": meta.resolution,
            }
            for meta in sorted(blocks, key=lambda meta: (meta.min_time, meta.id))
        ],
        "event_blocks": [
            {
                "id": meta.id,
                "min_time": meta.min_time // NS,
                "max_time": meta.max_time // NS,
                "streams": meta.streams,
                "events": meta.events,
                "bytes": meta.bytes,
                "level": meta.level,
            }
            for meta in event_blocks
        ],
        "head": {"samples": head_samples, "series": series, "events": head_events},
        "commit": commit,
        "flushed_through": flushed_through,
        "tombstones": [
            {
                "id": tombstone.id,
                "min_time": tombstone.start,
                "max_time": tombstone.end,
                "series": len(series_of(tombstone)),
                "blocks": sum(bool(applying([tombstone], meta)) for meta in blocks),
            }
            for tombstone in tombstones
        ],
        "damage": [{"path": entry.path, "what": entry.what} for entry in damage],
        "cardinality": cardinality,
    }
