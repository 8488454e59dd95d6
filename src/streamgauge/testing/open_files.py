"""Which files this process has open."""

from __future__ import annotations

from pathlib import Path

import psutil


def open_files(folder: Path) -> list[Path]:
    """Those below a folder, by their paths."""
    below = folder.resolve()
    opened = [Path(file.path) for file in psutil.Process().open_files()]
    return sorted(path for path in opened if path.is_relative_to(below))
