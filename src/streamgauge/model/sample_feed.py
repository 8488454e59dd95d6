"""Where those read samples that hand all of them on: whatever was stored after a commit."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from streamgauge.model.arrays import UInt32s
from streamgauge.model.batch import Metadata, SampleBatch


@dataclass(frozen=True, slots=True)
class SamplePiece:
    """Samples of commits from `first` to `through`, which may be beside those of other pieces of these commits.

    id: what it is called for as long as it is there. lasting: it is there after a restart, too. lease: keeps it, until
    what it returns is called; to be taken in the step of the event loop in which the piece was given.
    read: on any thread, from a row on, the samples of a series in order of time, or of arrival: rows that are read up
    to there, and their samples, without those that surely are of the commit that was asked about or before. Raises
    StorageError.
    """

    id: str
    first: int
    through: int
    samples: int
    lasting: bool
    lease: Callable[[], Callable[[], None]]
    read: Callable[[int], Generator[tuple[int, SampleBatch], None, None]]


class SampleFeed(Protocol):
    """Called on the event loop, but for `keys`."""

    @property
    def commit(self) -> int:
        """The last commit there is."""

    def pieces(self, after: int) -> Sequence[SamplePiece]:
        """All samples of commits after `after` that are still there, in the order in which they are to be handed on."""

    def keys(self, ids: UInt32s) -> list[bytes | None]:
        """The canonical key of each series; None where it is gone. On any thread."""

    def metadata(self) -> Sequence[Metadata]: ...
