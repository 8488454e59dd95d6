"""How far the import of a file has come, kept on disk, so that a run that was ended goes on where it was.

One small JSON file for each file and place that it is imported to, in `$XDG_STATE_HOME/streamgauge/import` (without
that variable `~/.local/state`). It is removed when the import is done.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from streamgauge.commands.importer.blocks import Position, files_of

VERSION = 1
MAX_EXAMPLES = 5
"""Refused things of each reason that are kept and shown."""


@dataclass(slots=True)
class Tally:
    """What has become of a file so far. refused: by reason. examples: by reason, the first few, in words."""

    stored: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    oldest: int | None = None  # of the times, ms
    faults: list[str] = field(default_factory=list)  # of the file as a whole, in words

    def refuse(self, reason: str, count: int) -> None:
        self.refused[reason] += count

    def example(self, reason: str, text: str) -> None:
        known = self.examples.setdefault(reason, [])
        if len(known) < MAX_EXAMPLES and text not in known:
            known.append(text)


@dataclass(slots=True)
class Saved:
    """What a run that was ended has left. memory: its reader's."""

    position: Position
    tally: Tally
    memory: Mapping[str, Any]


class StateFile:
    """Of one file, one place to import to, and what else decides the outcome (`parts`): with others it is another one.

    identity: what the file was when it began; a file that is another by now is imported from its beginning.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], *parts: str) -> None:
        name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
        self.path = folder / f"{name}.json"
        self._identity = {"version": VERSION, **identity}

    def load(self) -> Saved | None:
        """None when nothing is kept, or it is of a file that has changed."""
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            if kept["identity"] != self._identity:
                return None
            tally = Tally(**kept["tally"])
            tally.refused = Counter(tally.refused)
            return Saved(Position(**kept["position"]), tally, kept["memory"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, saved: Saved) -> None:
        """Raises OSError."""
        kept = {
            "identity": self._identity,
            "position": asdict(saved.position),
            "tally": {field.name: getattr(saved.tally, field.name) for field in fields(Tally)},
            "memory": saved.memory,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(kept), encoding="utf-8")
        beside.replace(self.path)

    def remove(self) -> None:
        with suppress(OSError):
            self.path.unlink()


def state_folder(environment: Mapping[str, str]) -> Path:
    home = environment.get("XDG_STATE_HOME", "")
    base = Path(home) if os.path.isabs(home) else Path.home() / ".local" / "state"
    return base / "streamgauge" / "import"


def identity_of(path: Path) -> dict[str, Any]:
    """What tells a file, or a folder of files, from what it may become. Raises OSError."""
    if path.is_dir():
        stats = [file.stat() for file in files_of(path)]
        return {
            "files": len(stats),
            "size": sum(s.st_size for s in stats),
            "mtime": max((s.st_mtime_ns for s in stats), default=0),
        }
    stat = path.stat()
    return {"size": stat.st_size, "mtime": stat.st_mtime_ns}
