"""Samples of senders who are bound to labels: every series that they write has these.

That is seen to once a series, where its canonical key gets an id, and not once a sample. So whatever a decoder
remembers of a sender's spellings holds for one binding only, and each has a memory of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from streamgauge.errors import ForeignLabel
from streamgauge.model.batch import Metadata, SampleBatch
from streamgauge.model.labels import series_key, split_key
from streamgauge.model.sink import Done, Sink

Bound = tuple[tuple[str, str], ...]
"""Names and values of labels, as `auth.identity.Identity` has them; none for whoever may write everything."""

MAX_BINDINGS = 1024
"""Bindings that are remembered. Each takes some kilobytes before it has seen any series."""
_SHOWN = 60  # characters of a label's value in a message


class BoundSink:
    """Implements model.sink.Sink: gives series the labels that they lack, and refuses those with others.

    What is known of a metric is of the whole server, so that metadata goes no further.
    """

    def __init__(self, sink: Sink, bound: Bound) -> None:
        self._sink = sink
        self._bound = [(name.encode(), value.encode()) for name, value in bound]

    def resolve(self, key: bytes) -> int:
        """As the sink has it. Raises ForeignLabel, too, and BadInput where labels become too many or too long."""
        labels = dict(split_key(key))
        for name, value in self._bound:
            if (found := labels.get(name, value)) != value:
                raise ForeignLabel(
                    f"its label {_text(name)} is {_shown(found)}, and its sender may only write {_shown(value)}"
                )
            labels[name] = value
        return self._sink.resolve(series_key(labels.items()))

    @property
    def generation(self) -> int:
        return self._sink.generation

    def admitted(self) -> tuple[int, int]:
        return self._sink.admitted()

    async def append(self, batch: SampleBatch, metadata: Sequence[Metadata] = ()) -> None:
        if len(batch):
            await self._sink.append(batch)

    def begin(self, batch: SampleBatch, done: Done, metadata: Sequence[Metadata] = ()) -> bool:
        return self._sink.begin(batch, done)

    async def bulk_room(self) -> None:
        await self._sink.bulk_room()


class Remembering(Protocol):
    @property
    def size(self) -> int:
        """Bytes."""


Memory = TypeVar("Memory", bound=Remembering)


class Bindings(Generic[Memory]):
    """What is remembered for each binding. The one that was not used for longest goes when there are too many, or when
    together they take more than `limit` bytes. Used on the event loop.

    make: begins a memory, given the sink that the binding writes to.
    """

    def __init__(self, sink: Sink, make: Callable[[Sink], Memory], limit: int) -> None:
        self.size = 0  # bytes of all, as they were when they were last used
        self._sink = sink
        self._make = make
        self._limit = limit
        self._memories: OrderedDict[Bound, Memory] = OrderedDict()
        self._sizes: dict[Bound, int] = {}

    def of(self, bound: Bound) -> Memory:
        """Call `used` when what it is used for is over."""
        memory = self._memories.get(bound)
        if memory is None:
            memory = self._memories[bound] = self._make(BoundSink(self._sink, bound))
        self._memories.move_to_end(bound)
        return memory

    def used(self, bound: Bound) -> None:
        """Keep to the limits."""
        if bound in self._memories:
            size = self._memories[bound].size
            self.size += size - self._sizes.get(bound, 0)
            self._sizes[bound] = size
        while len(self._memories) > MAX_BINDINGS or (self.size > self._limit and len(self._memories) > 1):
            oldest, _ = self._memories.popitem(last=False)
            self.size -= self._sizes.pop(oldest, 0)


def _shown(value: bytes) -> str:
    text = _text(value)
    return f'"{text[:_SHOWN]}…"' if len(text) > _SHOWN else f'"{text}"'


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")
