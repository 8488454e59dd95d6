"""The events of a store, for tests."""

from __future__ import annotations

import pyarrow as pa

from streamgauge.model.event_source import EventPart, EventRange, Fixed, Rest
from streamgauge.store.events.block_part import BlockPart
from streamgauge.store.snapshot import StoreSnapshot
from streamgauge.store.store import Store

Events = dict[tuple[int, int], str]
"""Payload by stream and index."""


def payloads(*texts: str) -> pa.BinaryArray:
    return pa.array([text.encode() for text in texts], pa.binary())


def events_in(snapshot: StoreSnapshot) -> Events:
    source = snapshot.open({})
    found: Events = {}
    for part in source.events().parts():
        rows = 0
        for batch in part.read([Fixed.STREAM, Fixed.INDEX], EventRange()):
            rows += batch.num_rows
        texts = _texts_of(part)
        keys = [
            key
            for batch in part.read([Fixed.STREAM, Fixed.INDEX], EventRange())
            for key in zip(*(column.to_pylist() for column in batch.columns), strict=True)
        ]
        assert rows == part.rows == len(keys) == len(texts)
        assert not found.keys() & set(keys), "an event is there twice"
        found.update(zip(keys, texts, strict=True))
    return found


def _texts_of(part: EventPart) -> list[str]:
    if isinstance(part, BlockPart):
        return [text for batch in part.payloads(EventRange()) for text in map(str, batch.column(3).to_pylist())]
    return [text for batch in part.read([Rest(())], EventRange()) for text in map(str, batch.column(0).to_pylist())]


def events_of(store: Store) -> Events:
    snapshot, release = store.snapshot()
    try:
        return events_in(snapshot)
    finally:
        release()


def streams_of(store: Store) -> list[dict[str, object]]:
    snapshot, release = store.snapshot()
    try:
        return snapshot.open({}).events().streams().to_pylist()
    finally:
        release()
