"""Where samples go: the store's writing side, as everything that ingests sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from streamgauge.errors import StreamgaugeError
from streamgauge.model.batch import Metadata, SampleBatch

Done = Callable[[StreamgaugeError | None], None]
"""Called on the event loop when a batch is stored, or with why it is not."""


class Sink(Protocol):
    """All methods are called on the event loop's thread."""

    def resolve(self, key: bytes) -> int:
        """The series id of a canonical key (`model.labels.series_key`), new if the key is new.

        Raises IndexFull when the series index is at its byte budget, MetricFull and LabelFull, which are such, when a
        metric or label is at its limit, and another Overloaded or StorageError when the server is short of memory. An
        id stays valid for the life of `generation`.
        """

    @property
    def generation(self) -> int:
        """Changes when ids given before may no longer be used (series are pruned): drop every cached id. An append with
        such an id that was waiting then raises Overloaded. Ids given after the change are good until the next."""

    def admitted(self) -> tuple[int, int]:
        """The oldest and the newest time in ms, both inclusive, that a sample may have at this moment."""

    async def append(self, batch: SampleBatch, metadata: Sequence[Metadata] = ()) -> None:
        """Store a batch whose times are all admitted. Returns when it is on disk and visible to the next query.

        Raises ReadOnly or SyncFailed (nothing of the batch is visible; a retry is harmless) and Overloaded.
        """

    def begin(self, batch: SampleBatch, done: Done, metadata: Sequence[Metadata] = ()) -> bool:
        """Begin what `append` does, with ids that are good in the present generation, where it can be begun at once.
        False where it cannot: nothing has happened then, and `append` waits for what there is to wait for, or tells
        what is wrong. `done` is called once, and not before this has returned, with what `append` would raise; it
        raises nothing."""

    async def bulk_room(self) -> None:
        """Return when somebody who is in no hurry may append some ten thousand samples and leave room to those who are.

        Raises ReadOnly and Overloaded as `append` does.
        """
