"""Which pushed series were live when the server stopped, found again in the store."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np

from streamgauge.clock import Clock
from streamgauge.errors import BadInput
from streamgauge.ingest.federation.liveness import Liveness
from streamgauge.ingest.turns import Turns
from streamgauge.model.labels import series_key
from streamgauge.model.sink import Sink
from streamgauge.wire.exposition_text import read_sample

_LINES = 64
"""Read before other tasks get their turn: about a millisecond."""


class Recovery:
    """Reads the latest sample of each live series as exposition text, with its timestamp."""

    def __init__(self, label: str, sink: Sink, liveness: Liveness, clock: Clock, turns: Turns) -> None:
        self._label = label.encode()
        self._sink = sink
        self._liveness = liveness
        self._clock = clock
        self._turns = turns
        self._series: dict[str, list[int]] = {}
        self._newest: dict[str, int] = {}

    async def run(self, text: AsyncIterator[bytes]) -> int:
        """How many series are live."""
        generation = self._sink.generation
        rest = b""
        async for piece in text:
            *lines, rest = (rest + piece).split(b"\n")
            for start in range(0, len(lines), _LINES):
                part = lines[start : start + _LINES]
                await self._turns.take(lambda part=part: self._read(part))  # type: ignore[misc]
        if self._sink.generation != generation:
            return 0
        now = self._clock.monotonic()
        for cluster, series in self._series.items():
            self._liveness.found(cluster, np.unique(np.array(series, np.uint32)), self._newest[cluster], now)
        return sum(map(len, self._series.values()))

    def _read(self, lines: list[bytes]) -> None:
        for line in lines:
            if not line or line.startswith(b"#"):
                continue
            try:
                sample = read_sample(line)
                series = self._sink.resolve(series_key(sample.pairs))
            except BadInput:  # a name that the text format cannot spell: its series ends by itself
                continue
            cluster = next((value for name, value in sample.pairs if name == self._label), b"").decode()
            self._series.setdefault(cluster, []).append(series)
            time = int(sample.timestamp or b"0")
            self._newest[cluster] = max(time, self._newest.get(cluster, 0))
