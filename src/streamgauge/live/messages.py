"""Messages on their way out: texts put together in Arrow, and many of them as one piece for all who want the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.model.arrays import Int64s, cut

TEXT = pa.large_string()
FRAME_BYTES = 32 << 10
"""Of messages that are sent, or lost, together; one that is larger is alone."""
_DATA = b"\ndata: "


def strings(numbers: Int64s) -> Any:
    return pa.array(numbers).cast(TEXT)


def times_of(times: Int64s, unit: str) -> Any:
    """Times since the Unix epoch as RFC 3339 in UTC, with all digits of the unit, "ms" or "ns"."""
    moments: Any = pa.array(times).cast(pa.timestamp(unit))
    return pc.strftime(moments, format="%Y-%m-%dT%H:%M:%SZ").cast(TEXT)


def taken(texts: Any, rows: Int64s) -> Any:
    """The texts at some rows."""
    return texts.take(pa.array(rows))


def joined_texts(*parts: Any) -> Any:
    """Columns of texts, and texts that stand in each row, side by side."""
    columns = [pa.scalar(part, TEXT) if isinstance(part, str) else part for part in parts]
    return pc.binary_join_element_wise(*columns, pa.scalar("", TEXT))


@dataclass(frozen=True, eq=False)
class Frame:
    """Messages of one kind, of commits from `commit` on. `sse` has them as Server-Sent Events."""

    commit: int
    messages: int
    sse: bytes

    @cached_property
    def texts(self) -> list[str]:
        """The messages alone."""
        return texts_of(self.sse.split(b"\n\n")[:-1])


def texts_of(events: Iterable[bytes]) -> list[str]:
    """The data of whole Server-Sent Events."""
    return [event.partition(_DATA)[2].decode() for event in events]


def as_sse(positions: Any, texts: Any) -> Any:
    """Messages that end with their position, from which a client may resume."""
    return joined_texts("id: ", positions, "\ndata: ", texts, "\n\n")


def frames_of(commit: int, events: Any) -> Iterator[Frame]:
    """Server-Sent Events in pieces of some size."""
    sizes: Int64s = pc.binary_length(events).to_numpy(zero_copy_only=False).astype(np.int64)
    for first, last in cut(sizes, FRAME_BYTES):
        yield Frame(commit, last - first, content(events[first:last]))


def content(texts: Any) -> bytes:
    """All texts, one behind the other."""
    if not len(texts):
        return b""
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    piece: bytes = data[int(ends[0]) : int(ends[-1])].to_pybytes()
    return piece
