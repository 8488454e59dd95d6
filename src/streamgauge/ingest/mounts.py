"""Asking file systems for their sizes, when any of them may never answer (a dead network mount)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from streamgauge.ingest.sampling import labelled
from streamgauge.stats import Family

TIMEOUT_SECONDS = 2.0
"""A local file system answers in microseconds, a network one in milliseconds."""


_TEXTS = {
    "device_error": "Whether the file system could not be measured.",
    "size_bytes": "Size.",
    "free_bytes": "Space that is free.",
    "avail_bytes": "Space that is free for users who are not root.",
    "files": "Inodes.",
    "files_free": "Inodes that are free.",
    "readonly": "Whether it is mounted read-only.",
}


@dataclass(frozen=True, slots=True)
class Usage:
    """Sizes in bytes. `files` and `files_free` are numbers of inodes; None where the system has none."""

    size: int
    free: int
    available: int
    files: int | None = None
    files_free: int | None = None


class MountProbe:
    """Measures mount points on threads of its own. A mount point that hangs is left out until it has answered.

    The threads are daemons: one that hangs in the kernel cannot be stopped, and must not hold up the exit.
    """

    def __init__(self, measure: Callable[[str], Usage], timeout: float = TIMEOUT_SECONDS) -> None:
        self._measure = measure
        self._timeout = timeout
        self._lock = threading.Lock()
        self._stuck: set[str] = set()  # protected by _lock

    def measure(self, mountpoints: Iterable[str]) -> dict[str, Usage | None]:
        """Usage by mount point; None for one that fails or hangs. Waits at most `timeout` for each that begins to."""
        results: dict[str, Usage | None] = dict.fromkeys(mountpoints)
        with self._lock:
            waiting = [mountpoint for mountpoint in results if mountpoint not in self._stuck]
        while waiting:
            done: queue.SimpleQueue[tuple[str, Usage | None]] = queue.SimpleQueue()
            threading.Thread(target=self._work, args=(tuple(waiting), done), name="mounts", daemon=True).start()
            try:
                while waiting:
                    mountpoint, usage = done.get(timeout=self._timeout)
                    results[mountpoint] = usage
                    waiting.remove(mountpoint)
            except queue.Empty:
                with self._lock:
                    self._stuck.add(waiting[0])
                del waiting[0]
        return results

    def _work(self, mountpoints: tuple[str, ...], done: queue.SimpleQueue[tuple[str, Usage | None]]) -> None:
        """Measure one after the other; ends after the first that was given up meanwhile."""
        for mountpoint in mountpoints:
            try:
                usage: Usage | None = self._measure(mountpoint)
            except OSError:
                usage = None
            done.put((mountpoint, usage))
            with self._lock:
                if mountpoint in self._stuck:
                    self._stuck.discard(mountpoint)
                    return


def filesystem_families(mounts: Iterable[tuple[Mapping[str, str], bool, Usage | None]]) -> Iterator[Family]:
    """Families of (labels, mounted read-only, usage; None where it could not be measured)."""
    columns: dict[str, list[tuple[Mapping[str, str], float]]] = {}

    def add(name: str, labels: Mapping[str, str], value: float | None) -> None:
        if value is not None:
            columns.setdefault(name, []).append((labels, float(value)))

    for labels, readonly, usage in mounts:
        add("device_error", labels, usage is None)
        if usage is not None:
            add("size_bytes", labels, usage.size)
            add("free_bytes", labels, usage.free)
            add("avail_bytes", labels, usage.available)
            add("files", labels, usage.files)
            add("files_free", labels, usage.files_free)
            add("readonly", labels, readonly)
    for name, samples in columns.items():
        yield labelled(f"node_filesystem_{name}", "gauge", _TEXTS[name], samples)
