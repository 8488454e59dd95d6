"""Who is told what has just been stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from streamgauge.model.batch import SampleBatch
from streamgauge.model.events import EventBatch


class Listener(Protocol):
    """Called on the event loop, for each commit once, in ascending order, when it is on disk and every snapshot has it:
    a snapshot that is taken in the same step has it, too. No more may be done than to note it down."""

    def stored_samples(self, commit: int, batch: SampleBatch) -> None: ...

    def stored_events(self, commit: int, batches: Sequence[EventBatch]) -> None: ...
