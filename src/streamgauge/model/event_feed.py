"""Where those read events that hand all of them on: in the order of commits, from a commit on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from streamgauge.model.events import Stream


@dataclass(frozen=True, slots=True)
class EventPiece:
    """Events of commits from `first` to `through`. Of one stream they ascend by index, also from piece to piece."""

    first: int
    through: int
    events: int  # how many, in so far as that is known before they are read; 0 when not
    streams: Callable[[], Sequence[Stream]]  # all whose events are in it
    batches: Callable[[], Iterator[pa.RecordBatch]]  # with the columns event_source.EVENT_COLUMNS


class EventFeed(Protocol):
    def take(self) -> tuple[int, Sequence[EventPiece], Callable[[], None]]:
        """The last commit, all events up to it as pieces in order of commit, and what ends the lease on these.

        Called on the event loop; pieces are read on any one thread, until the lease ends.
        """
