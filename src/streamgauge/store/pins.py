"""Blocks that stay while another program copies them: each such copy has a pin, which it renews while it is at work."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from streamgauge.clock import Clock
from streamgauge.errors import NotFound, Overloaded
from streamgauge.store.folder_snapshot import Pinning
from streamgauge.store.ports import CatalogState

PIN_SECONDS = 60.0
"""Without a renewal, which comes three times as often, the program that asked is taken for dead."""
LOOK_SECONDS = 5.0
MAX_PINS = 8
"""At once. Each keeps blocks on the disk that would be gone by now, and a machine has one backup, or two."""


@dataclass(slots=True)
class _Pin:
    release: Callable[[], None]
    ends: float  # by the monotonic clock


class Pins:
    """Used on the event loop. `run` lets go what nobody renews."""

    def __init__(self, store: Pinning, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._pins: dict[str, _Pin] = {}
        self._coming = 0  # asked for, and not there yet
        self.taken = 0  # since the start
        self.refused = 0
        self.expired = 0

    @property
    def held(self) -> int:
        return len(self._pins)

    async def take(self) -> tuple[str, CatalogState]:
        """Pin what the store holds, everything acknowledged included; the pin's id and what is pinned.

        Raises Overloaded and StorageError."""
        if self.held + self._coming >= MAX_PINS:
            self.refused += 1
            raise Overloaded(f"{MAX_PINS} copies of the data folder are being made already", retry_after=60)
        self._coming += 1
        try:
            state, release = await self._store.pin()
        finally:
            self._coming -= 1
        pin_id = secrets.token_hex(8)
        self._pins[pin_id] = _Pin(release, self._clock.monotonic() + PIN_SECONDS)
        self.taken += 1
        return pin_id, state

    def renew(self, pin_id: str) -> None:
        """Raises NotFound when it was not renewed in time."""
        if pin_id not in self._pins:
            raise NotFound("this pin has ended: it was not renewed for a minute, or the server has started anew")
        self._pins[pin_id].ends = self._clock.monotonic() + PIN_SECONDS

    def end(self, pin_id: str) -> None:
        """None of this id is no error."""
        if (pin := self._pins.pop(pin_id, None)) is not None:
            pin.release()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            now = self._clock.monotonic()
            for pin_id in [pin_id for pin_id, pin in self._pins.items() if pin.ends <= now]:
                self.expired += 1
                self.end(pin_id)
