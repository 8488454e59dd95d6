"""What the demonstrations have in common: saying what happens, waiting for it, and checking what came of it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence

PATIENCE = 60
"""Seconds for what should take a few."""


class Checks:
    """What was found, in words; `failed` when something is not as it should be."""

    def __init__(self) -> None:
        self.failed = False

    def check(self, good: bool, what: str) -> None:
        print(f"  {'yes' if good else 'NO '}  {what}", flush=True)
        self.failed = self.failed or not good

    def end(self) -> int:
        """Say how it went; the exit code."""
        say("Something is not as it should be." if self.failed else "All is as it should be.")
        return 1 if self.failed else 0


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


def until(condition: Callable[[], object], what: str, said: Sequence[str] = ()) -> None:
    """Ask again until it holds. Raises SystemExit after a while, with the last that somebody has `said`."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("\n".join([f"{what} has not come within {PATIENCE} s", *map(str.rstrip, said[-3:])]))
        threading.Event().wait(0.25)


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port
