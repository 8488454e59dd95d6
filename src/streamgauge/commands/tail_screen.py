"""Lines on a terminal that the space bar stops and lets go on."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

HELD_LINES = 10_000
"""While it stands still. More than anybody scrolls back through."""

_SPACE = b" "


class Screen:
    """Used by the thread that has lines and by the one that reads keys. write: puts text out; say: tells about it."""

    def __init__(self, write: Callable[[str], None], say: Callable[[str], None], held_lines: int = HELD_LINES) -> None:
        self._write = write
        self._say = say
        self._lock = threading.Lock()  # protects what follows, and the order of output
        self._paused = False
        self._held: deque[str] = deque(maxlen=held_lines)
        self._dropped = 0

    def show(self, lines: Sequence[str]) -> None:
        """Now, or when it goes on."""
        with self._lock:
            if not self._paused:
                self._put(lines)
                return
            assert self._held.maxlen is not None
            self._dropped += max(0, len(self._held) + len(lines) - self._held.maxlen)
            self._held.extend(lines)

    def key(self, key: bytes) -> None:
        if key == _SPACE:
            self.toggle()

    def toggle(self) -> None:
        with self._lock:
            self._paused = not self._paused
            if self._paused:
                self._say("paused; space goes on")
                return
            if self._dropped:
                self._say(f"{self._dropped} lines came while it was paused and are not shown")
            self._put(self._held)
            self._held.clear()
            self._dropped = 0

    def _put(self, lines: Sequence[str] | deque[str]) -> None:
        if lines:
            self._write("".join(f"{line}\n" for line in lines))


@contextlib.contextmanager
def reading_keys(pressed: Callable[[bytes], None]) -> Iterator[None]:
    """Passes keys on as they are pressed, where standard input is a terminal. Ctrl-C works as ever, and the terminal is
    afterwards as it was."""
    if sys.stdin is None or not sys.stdin.isatty():
        yield
        return
    if sys.platform == "win32":
        import msvcrt

        _in_background(msvcrt.getch, pressed)
        yield
        return
    import termios
    import tty

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        _in_background(lambda: os.read(number, 1), pressed)
        yield
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _in_background(read: Callable[[], bytes], pressed: Callable[[bytes], None]) -> None:
    def run() -> None:
        with contextlib.suppress(OSError):
            while key := read():
                pressed(key)

    threading.Thread(target=run, name="keys", daemon=True).start()
