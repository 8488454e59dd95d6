"""Events on disk, for when memory is full and for the next start of the program.

The folder has files `<stream>-<index>.jsonl`: events of the stream of that name, an event a line, the first of them
with that index. So they can be read, and sent by hand. What is whole in a file survives the end of the program, not of
the machine: nothing is synced. Whoever writes a stream's files, or sends them, has locked `<stream>.lock`; what is
found unlocked at a start was left by a program that has ended, and is adopted.
"""

from __future__ import annotations

import os
import re
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_NAME = re.compile(r"([0-9a-f-]{36})-(\d{1,19})\.jsonl")


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of events with consecutive indexes."""

    path: Path
    stream: str
    first: int
    size: int
    adopted: bool = False  # from an earlier program


class Spill:
    """Segments in the order in which they are to be sent, within `max_bytes`. Its owner sees to threads.

    Raises OSError where the folder cannot be used.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._locks: dict[str, int] = {}  # descriptors of what is locked here, by stream
        self._segments: deque[Segment] = deque()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._segments.extend(self._adopt())
        self.bytes = sum(segment.size for segment in self._segments)  # of all files, those that are loaded too

    def __bool__(self) -> bool:
        return bool(self._segments)

    def add(self, stream: str, first: int, events: Sequence[bytes]) -> bool:
        """Append a segment; false when there is no room for it. Raises OSError when it cannot be written."""
        data = b"\n".join(events) + b"\n"
        if self.bytes + len(data) > self._max_bytes:
            return False
        self._segments.append(self._write(stream, first, data))
        return True

    def keep(self, stream: str, first: int, events: Sequence[bytes], instead: Sequence[Segment]) -> Segment | None:
        """Write what is left of the loaded segments `instead`, which go, as one that counts as loaded; None when there
        is no room for it. Raises OSError, and then nothing has changed."""
        data = b"\n".join(events) + b"\n"
        if self.bytes - sum(segment.size for segment in instead) + len(data) > self._max_bytes:
            return None
        kept = self._write(stream, first, data)
        for segment in instead:
            self.bytes -= segment.size
            if segment.path != kept.path:
                segment.path.unlink(missing_ok=True)
        return kept

    def next_stream(self) -> tuple[str, int]:
        """Of which stream the oldest segment is, and from which index on."""
        return self._segments[0].stream, self._segments[0].first

    def load(self) -> tuple[Segment, list[bytes]]:
        """Take the oldest segment; its file stays until it is removed. Raises OSError."""
        segment = self._segments.popleft()
        lines = segment.path.read_bytes().split(b"\n")
        return segment, [line for line in lines[:-1] if line]  # behind the last break is what a crash cut off

    def remove(self, segment: Segment) -> None:
        segment.path.unlink(missing_ok=True)
        self.bytes -= segment.size

    def lock(self, stream: str) -> bool:
        """Take a stream's files; false when another program has them."""
        if stream not in self._locks:
            descriptor = _try_lock(self._folder / f"{stream}.lock")
            if descriptor is None:
                return False
            self._locks[stream] = descriptor
        return True

    def close(self) -> None:
        """Let go of all files."""
        for stream, descriptor in self._locks.items():
            if not any(self._folder.glob(f"{stream}-*.jsonl")):
                (self._folder / f"{stream}.lock").unlink(missing_ok=True)
            os.close(descriptor)
        self._locks.clear()

    def abandon(self) -> None:
        """In a child after a fork: the files are the parent's."""
        for descriptor in self._locks.values():
            os.close(descriptor)
        self._locks.clear()

    def _write(self, stream: str, first: int, data: bytes) -> Segment:
        path = self._folder / f"{stream}-{first}.jsonl"
        if not self.lock(stream):
            raise OSError(f"{path} belongs to another program")
        part = path.with_suffix(".part")
        try:
            part.write_bytes(data)
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        self.bytes += len(data)
        return Segment(path, stream, first, len(data))

    def _adopt(self) -> list[Segment]:
        """The segments of programs that have ended; the oldest stream first."""
        streams: dict[str, list[tuple[float, Segment]]] = {}
        for path in self._folder.iterdir():
            if (found := _NAME.fullmatch(path.name)) and self.lock(found[1]):
                status = path.stat()
                segment = Segment(path, found[1], int(found[2]), status.st_size, adopted=True)
                streams.setdefault(found[1], []).append((status.st_mtime, segment))
        by_age = sorted(streams.values(), key=lambda files: min(age for age, _ in files))
        return [segment for files in by_age for _, segment in sorted(files, key=lambda file: file[1].first)]


def _try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock of a file as long as it is open; None when another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink == 0:  # its owner has just removed it
                raise BlockingIOError
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
