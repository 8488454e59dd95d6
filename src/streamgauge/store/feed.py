"""All samples after a commit, for those that hand them on: implements model.sample_feed.SampleFeed.

Rows do not know their commits. A block, or a run of the head, may hold commits from both sides of the one that was
asked about: of those, rows older than any sample of a later commit are left out, and some may be given again.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial

import numpy as np

from streamgauge.model.arrays import UInt32s
from streamgauge.model.batch import Metadata, SampleBatch
from streamgauge.model.sample_feed import SamplePiece
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.head_view import columns_of
from streamgauge.store.ports import FIRST_TIME, BlockMeta, Tombstone
from streamgauge.store.resolutions import raw
from streamgauge.store.runs import Run
from streamgauge.store.store import Store
from streamgauge.store.tombstones import applying, kept


class StoreSampleFeed:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._blocks = LocalBlocks(store.data)

    @property
    def commit(self) -> int:
        return self._store.state.commit

    def pieces(self, after: int) -> Sequence[SamplePiece]:
        """Blocks of aggregates are none: what they stand for is past its retention."""
        state, oldest = self._store.state, self._store.commit_times.oldest_after(after)
        blocks = [meta for meta in raw(state.blocks) if meta.last_commit > after]
        blocks.sort(key=lambda meta: (meta.first_commit, meta.last_commit, meta.late, meta.min_time))
        runs = [run for run in self._store.head.snapshot().runs if run.last_commit > after]
        return [
            *(self._of_block(meta, oldest if meta.first_commit <= after else FIRST_TIME) for meta in blocks),
            *(self._of_run(run, oldest if run.first_commit <= after else FIRST_TIME) for run in runs),
        ]

    def keys(self, ids: UInt32s) -> list[bytes | None]:
        try:
            return [*self._store.index.keys_of(ids)]
        except KeyError:
            return [self._key(series) for series in np.split(ids, len(ids))]

    def _key(self, series: UInt32s) -> bytes | None:
        try:
            return self._store.index.keys_of(series)[0]
        except KeyError:
            return None

    def metadata(self) -> Sequence[Metadata]:
        return self._store.metadata()

    def _of_block(self, meta: BlockMeta, oldest: int) -> SamplePiece:
        tombstones = applying(self._store.state.tombstones, meta)
        return SamplePiece(
            meta.id,
            meta.first_commit,
            meta.last_commit,
            meta.samples,
            True,
            partial(self._store.leases.acquire, (meta.id,)),
            partial(self._rows_of_block, meta, oldest, tombstones),
        )

    def _of_run(self, run: Run, oldest: int) -> SamplePiece:
        return SamplePiece(
            run.name,
            run.first_commit,
            run.last_commit,
            run.rows,
            False,
            partial(self._store.leases.acquire, (run.name,)),
            partial(_rows_of_run, run, oldest),
        )

    def _rows_of_block(
        self, meta: BlockMeta, oldest: int, tombstones: Sequence[Tombstone], start: int
    ) -> Generator[tuple[int, SampleBatch], None, None]:
        """A row group at a time."""
        if meta.max_time < oldest:
            return
        with self._blocks.open(meta.id) as reader:
            ids, first, ends = reader.series_ids(), reader.first_rows, reader.first_rows + reader.rows
            for group, (begin, end) in enumerate(
                zip(reader.samples.row_starts.tolist(), reader.samples.row_ends.tolist(), strict=True)
            ):
                if end <= start:
                    continue
                times, values = reader.samples.decode(group, group + 1)
                here = slice(int(np.searchsorted(ends, begin, "right")), int(np.searchsorted(first, end, "left")))
                counts = np.minimum(ends[here], end) - np.maximum(first[here], begin)
                wanted = times >= oldest
                if tombstones:
                    wanted &= kept(counts, times, ids[here], tombstones)
                batch = SampleBatch(np.repeat(ids[here], counts), times, values)
                yield end, batch if wanted.all() else _only(batch, np.flatnonzero(wanted))


def _rows_of_run(run: Run, oldest: int, start: int) -> Generator[tuple[int, SampleBatch], None, None]:
    batch = columns_of(run)
    wanted = np.flatnonzero(batch.times >= oldest)
    yield run.rows, _only(batch, wanted[wanted >= start])


def _only(batch: SampleBatch, rows: np.typing.NDArray[np.int64]) -> SampleBatch:
    return SampleBatch(batch.series[rows], batch.times[rows], batch.values[rows])
