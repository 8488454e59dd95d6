"""Every invariant of a store, as one list of sentences about what does not hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from streamgauge.errors import Corrupt, StorageError
from streamgauge.store import names
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.catalog import CatalogLost, SqliteCatalog
from streamgauge.store.check import check_block, check_blocks, check_tombstones
from streamgauge.store.events.blocks import LocalEventBlocks
from streamgauge.store.events.ports import EventBlockMeta
from streamgauge.store.events.records import decode_events, decode_streams
from streamgauge.store.log import SegmentLog
from streamgauge.store.ports import BlockMeta, RecordKind, Tombstone
from streamgauge.store.records import decode_metadata, decode_samples, decode_series
from streamgauge.store.recovery import in_blocks_through
from streamgauge.store.token_file import token_problems


def check_live_blocks(
    data: Path, metas: Sequence[BlockMeta], tombstones: Sequence[Tombstone], next_series_id: int
) -> list[str]:
    """What is wrong with blocks that the catalog names: each by itself, with each other, their series' ids, and with
    the deletions that wait for them."""
    blocks = LocalBlocks(data)
    problems: list[str] = []
    readable: list[BlockMeta] = []
    keys: dict[int, bytes | None] = {}
    for meta in metas:
        try:
            with blocks.open(meta.id) as reader:
                problems += check_block(reader)
                if reader.meta != meta:
                    problems.append(f"block {meta.id}: its footer and the catalog do not say the same")
                for series, key in zip(reader.series_ids().tolist(), reader.keys().to_pylist(), strict=True):
                    if keys.setdefault(series, key) != key:
                        problems.append(f"block {meta.id}: series {series} has other labels than in an earlier block")
            readable.append(meta)
        except Corrupt as error:  # also for a file that is missing
            problems.append(error.message)
    problems += check_blocks(readable, blocks.open)
    return problems + check_tombstones(tombstones, readable, next_series_id, blocks.open)


def check_live_event_blocks(data: Path, metas: Sequence[EventBlockMeta]) -> list[str]:
    """What is wrong with blocks of events that the catalog names: each by itself, and with each other."""
    return LocalEventBlocks(data).verify(metas)


def check_folder(data: Path) -> list[str]:
    """What is wrong with a folder that no server holds. Nothing is changed."""
    return [*token_problems(data), *_check_store(data)]


def _check_store(data: Path) -> list[str]:
    try:
        catalog = SqliteCatalog.open(data, writable=False)
    except CatalogLost as lost:
        return [f"{lost.message}; the next start rebuilds the catalog from the blocks"]
    except StorageError as error:
        return [error.message]
    state = catalog.load()
    catalog.close()
    problems = check_live_blocks(data, state.blocks, state.tombstones, state.next_series_id)
    problems += check_live_event_blocks(data, state.events.blocks)
    commits = {meta.id: meta.last_commit for meta in state.blocks}
    commits |= {meta.id: meta.last_commit for meta in state.events.blocks}
    problems += [
        f"block {block_id} is not in the catalog; the next start removes it or sets it aside"
        for block_id in (*LocalBlocks(data).names(), *LocalEventBlocks(data).names())
        if block_id not in commits
    ]
    log = SegmentLog(data, state.store_id, in_blocks_through(state), writable=False)
    problems += _check_log(log)
    # Blocks may hold what the log has too, where the catalog was rebuilt, but nothing that came after it.
    last = max(state.flushed_through, state.events.flushed_through, log.last_commit)
    problems += [
        f"block {block_id} holds commits after {last}, the last"
        for block_id, commit in commits.items()
        if commit > last
    ]
    problems += [f"{damage.path}: {damage.what}" for damage in log.damage]
    aside = names.set_aside_dir(data)
    if aside.is_dir():
        problems += [f"{path} was set aside as damaged" for path in sorted(aside.iterdir()) if path.suffix != ".txt"]
    return problems


def _check_log(log: SegmentLog) -> Iterator[str]:
    """Records that decode, commits that do not go back, and a definition of each series and stream before what is of
    it."""
    defined: set[int] = set()
    streams: set[int] = set()
    last = 0
    for record in log.replay():
        if record.commit < last:
            yield f"the log goes back from commit {last} to {record.commit}"
        last = record.commit
        try:
            if record.kind == RecordKind.SERIES:
                ids, keys = decode_series(record.payload)
                defined.update(ids.tolist())
                if len(ids) != len(keys):
                    yield f"commit {record.commit} defines {len(ids)} series with {len(keys)} keys"
            elif record.kind == RecordKind.SAMPLES:
                unknown = set(np.unique(decode_samples(record.payload).series).tolist()) - defined
                if unknown:
                    yield f"commit {record.commit} has samples of series {min(unknown)}, which the log does not define"
            elif record.kind == RecordKind.METADATA:
                decode_metadata(record.payload)
            elif record.kind == RecordKind.STREAMS:
                streams.update(stream.id for stream in decode_streams(record.payload))
            elif record.kind == RecordKind.EVENTS:
                unknown = {batch.stream for batch in decode_events(record.payload)} - streams
                if unknown:
                    yield f"commit {record.commit} has events of stream {min(unknown)}, which the log does not define"
        except Corrupt as error:
            yield f"commit {record.commit} cannot be read: {error.message}"
