"""Targets in files of JSON or YAML, which others write. Read again when they change."""

from __future__ import annotations

import asyncio
import glob
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from streamgauge.clock import Clock
from streamgauge.errors import BadInput
from streamgauge.ingest.discovery.groups import Found, Group, parse_groups
from streamgauge.ingest.discovery.refresh import Parts, Refresh
from streamgauge.ingest.scrape.job import FileSource
from streamgauge.stats import Stats

LOG = logging.getLogger(__name__)

MAX_FILE_BYTES = 16 << 20
"""100,000 targets take about half of it."""
LOOK_MS = 5000
"""Between two looks at whether files have changed. Looking is a few system calls, reading is not."""

_Seen = tuple[int, int, int]  # inode, size, ns of the last change


class FileDiscovery:
    """A file that cannot be read, or not yet as a whole, leaves its own targets as they were; one that is gone takes
    them along."""

    def __init__(self, source: FileSource, clock: Clock, stats: Stats) -> None:
        self._patterns = source.files
        self._interval = source.interval
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._parts = Parts()  # as of the last look
        self._read_at = float("-inf")
        name = ", ".join(source.files)
        self._refresh = Refresh(self._look, min(LOOK_MS, source.interval), "file", name, clock, stats)

    async def run(self, found: Found) -> None:
        await self._refresh.run(found)

    async def _look(self) -> Parts:
        now = self._clock.monotonic()
        everything = (now - self._read_at) * 1000 >= self._interval
        if everything:
            self._read_at = now
        self._parts = await asyncio.to_thread(self._read, everything)
        return self._parts

    def _read(self, everything: bool) -> Parts:
        """Each file, those that have not changed as they were."""
        parts = Parts()
        for path in sorted({path for pattern in self._patterns for path in glob.glob(pattern)}):
            try:
                parts.groups[path] = self._groups_of(path, everything)
            except BadInput as error:
                parts.failures[path] = f"{path}: {error.message}"
        self._seen = {path: seen for path, seen in self._seen.items() if path in parts.groups}
        return parts

    def _groups_of(self, path: str, everything: bool) -> Sequence[Group]:
        try:
            stat = Path(path).stat()
            seen = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if not everything and self._seen.get(path) == seen and path in self._parts.groups:
                return self._parts.groups[path]
            with Path(path).open("rb") as file:
                raw = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise BadInput(f"cannot be read: {error.strerror}") from None
        if len(raw) > MAX_FILE_BYTES:
            raise BadInput(f"larger than {MAX_FILE_BYTES >> 20} MiB")
        groups = parse_groups(_document(raw, path.endswith(".json")), path)
        self._seen[path] = seen
        return [replace(group, labels={**group.labels, "__meta_filepath": path}) for group in groups]


def _document(raw: bytes, is_json: bool) -> Any:
    try:
        text = raw.decode()
        return json.loads(text) if is_json else yaml.load(text, Loader=_Loader)
    except UnicodeDecodeError as error:
        raise BadInput(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"line {error.lineno}: not valid JSON: {error.msg.removesuffix(' at')}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadInput(f"line {line}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise BadInput(f"cannot be understood: {error}") from None


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """What looks like a number, a truth value or a date stays as it is written, as in Prometheus: `shard: 01`."""

    yaml_constructors = _Base.yaml_constructors | dict.fromkeys(
        (f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "timestamp")),
        yaml.SafeLoader.construct_yaml_str,
    )
