"""What may come in, and the account of what did not: shared by every way in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from streamgauge.errors import Overloaded, TooLarge
from streamgauge.stats import Stats
from streamgauge.wire.findings import Findings


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of what comes in over the network, in bytes.

    body: of one request, as it comes. Senders stay below 1 MiB.
    content: of one request, decompressed; checked before it is allocated.
    inflight: of all requests being received or decoded, both counted; beyond it senders are told to come again.
    """

    body: int = 16 << 20
    content: int = 32 << 20
    inflight: int = 256 << 20


class InFlight:
    """The memory that requests hold at this moment. Used on the event loop only.

    within: of what it is a part, and then counts there, too.
    """

    def __init__(self, limit: int, stats: Stats, within: InFlight | None = None) -> None:
        self._limit = limit
        self._held = 0
        self._within = within
        if within is None:
            stats.inflight_bytes.set_function(lambda: self._held)

    def account(self) -> Held:
        """The account of one request, for a `with`: it is closed whichever way that ends."""
        return Held(self)

    def take(self, size: int) -> None:
        """Raises Overloaded when `size` more bytes are too many."""
        if self._held + size > self._limit:
            raise Overloaded(
                f"requests in flight already hold {self._held} bytes; the limit is {self._limit}", retry_after=1
            )
        if self._within is not None:
            self._within.take(size)
        self._held += size

    def give(self, size: int) -> None:
        """Give back what was taken."""
        if self._within is not None:
            self._within.give(size)
        self._held -= size


class Held:
    """What one request holds, in bytes."""

    def __init__(self, inflight: InFlight) -> None:
        self._inflight = inflight
        self.size = 0

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._inflight.give(self.size)

    def add(self, size: int) -> None:
        """Hold so many bytes more, or fewer. Raises Overloaded when they are too many."""
        self._inflight.take(size)
        self.size += size


async def read_body(headers: Mapping[str, str], body: AsyncIterator[bytes], limit: int, held: Held) -> bytes:
    """The body of a request, of `limit` bytes at most, on its account. Raises TooLarge and Overloaded, and what `body`
    raises."""
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise TooLarge(f"the body has {announced} bytes; the limit is {limit}")
    chunks: list[bytes] = []
    size = 0
    async for chunk in body:
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"the body has more than {limit} bytes, which is the limit")
        held.add(len(chunk))
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def count(stats: Stats, source: str, stored: int, findings: Findings) -> None:
    """Enter what became of one request into our metrics."""
    if stored:
        stats.ingested_samples.labels(source).inc(stored)
    for reason, number in findings.refused.items():
        stats.refused.labels(source, reason.value).inc(number)
    if findings.start_times:
        stats.ignored_start_times.inc(findings.start_times)


def refusal_text(stored: int, findings: Findings) -> str:
    """The answer to a request of which something was refused: how much was stored, what was not and why."""
    total = findings.refused.total()
    reasons = ", ".join(f"{number} {reason.value}" for reason, number in sorted(findings.refused.items()))
    lines = [f"{stored} samples were stored; {total} items were not: {reasons}", *findings.examples]
    return "\n".join(lines) + "\n"
