"""Made-up events: log lines of a few services, as JSON texts of some 212 bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

_MESSAGES = ("request served", "cache miss", "upstream timed out", "connection reset by peer", "retrying", "slow query")
_LEVELS = ("INFO", "INFO", "INFO", "INFO", "INFO", "INFO", "DEBUG", "DEBUG", "WARN", "ERROR")
_METHODS = ("GET", "GET", "GET", "POST", "PUT")
_STATUS = (200, 200, 200, 200, 200, 201, 204, 301, 404, 500)
_ROUTES = tuple(f"/api/v1/{thing}" for thing in ("users", "orders", "items", "carts", "search", "health", "prices"))
_TABLES = ("users", "orders", "items", "carts")


class Numbers:
    """Random numbers for one event after the other, drawn in advance."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._drawn: list[int] = []

    def below(self, limit: int) -> int:
        if not self._drawn:
            self._drawn = self._random.integers(0, 1 << 62, 65_536).tolist()
        return self._drawn.pop() % limit

    def hexadecimal(self, digits: int) -> str:
        return f"{self.below(1 << 4 * digits if digits < 16 else 1 << 62):0{digits}x}"


def _request(n: Numbers) -> str:
    return (
        f'"logger":"http","msg":"{_MESSAGES[n.below(2)]}","http":{{"method":"{_METHODS[n.below(5)]}",'
        f'"status":{_STATUS[n.below(10)]},"route":"{_ROUTES[n.below(7)]}","bytes":{n.below(40_000)}}},'
        f'"duration_ms":{n.below(250_000) / 1000},"trace":"{n.hexadecimal(15)}"'
    )


def _query(n: Numbers) -> str:
    return (
        f'"logger":"database","msg":"{_MESSAGES[5]}","table":"{_TABLES[n.below(4)]}","rows":{n.below(1000)},'
        f'"duration_ms":{n.below(90_000) / 1000},"cached":{"true" if n.below(4) == 0 else "false"},'
        f'"trace":"{n.hexadecimal(15)}","host":"db-{n.below(3)}"'
    )


def _failure(n: Numbers) -> str:
    return (
        f'"logger":"upstream","msg":"{_MESSAGES[2 + n.below(3)]}","peer":"10.0.{n.below(4)}.{n.below(200)}:8443",'
        f'"attempt":{1 + n.below(5)},"error":{{"kind":"late","code":{110 + n.below(3)}}},"user":"{n.hexadecimal(8)}"'
    )


_SHAPES: tuple[Callable[[Numbers], str], ...] = (_request, _request, _request, _query, _failure)


def log_events(count: int, seed: int = 1, start: int = 1_760_000_000_000) -> pa.LargeBinaryArray:
    """Events of three shapes, a millisecond or two apart from `start` (ms since the Unix epoch) on."""
    n = Numbers(seed)
    texts = []
    time = start
    for _ in range(count):
        time += n.below(4)
        stamp = str(np.datetime64(time, "ms"))
        texts.append(
            f'{{"ts":"{stamp}Z","level":"{_LEVELS[n.below(10)]}","service":"shop-{n.below(4)}",'
            f"{_SHAPES[n.below(5)](n)}}}".encode()
        )
    return pa.array(texts, pa.large_binary())
