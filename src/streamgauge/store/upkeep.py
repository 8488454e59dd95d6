"""What the kinds of upkeep of a store share."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from streamgauge.clock import Clock
from streamgauge.errors import StorageError
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.catalog import SqliteCatalog
from streamgauge.store.changes import Changes
from streamgauge.store.helper import Runner
from streamgauge.store.store import Store


@dataclass(slots=True)
class Counts:
    """What was done since the start."""

    flushes: int = 0
    flush_failures: int = 0
    compactions: int = 0
    compaction_failures: int = 0
    expiry_failures: int = 0
    downsampling_runs: int = 0
    blocks_dropped: Counter[str] = field(default_factory=lambda: Counter(age=0, size=0, room=0))


@dataclass(frozen=True, slots=True)
class Upkeep:
    """One store and what it is worked on with. flusher, compacter: processes that read and write blocks."""

    store: Store
    catalog: SqliteCatalog
    blocks: LocalBlocks
    changes: Changes
    flusher: Runner
    compacter: Runner
    clock: Clock
    rewriting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while blocks are being replaced by others of the same samples."""
    counts: Counts = field(default_factory=Counts)

    async def remove_written(self, first_commit: int, last_commit: int) -> None:
        """Remove what a helper had written for some commits when it died: by the next start nobody would know what that
        was."""
        live = {meta.id for meta in self.store.state.blocks}

        def keep(block_id: str) -> bool:
            return block_id in live or self.changes.is_doomed([block_id])

        with suppress(StorageError):
            await asyncio.to_thread(self.blocks.remove_written, first_commit, last_commit, keep)
