"""Every name in a data folder, in one place. docs/format/README.md says what each of them is."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

LOCK = "lock"
CATALOG = "catalog.sqlite"
LOG = "log"
BLOCKS = "blocks"
EVENT_BLOCKS = "events"
TMP = "tmp"
SET_ASIDE = "set-aside"
SNAPSHOTS = "snapshots"
DESTINATIONS = "destinations"
CLUSTER_KEY = "cluster-key.pem"
TOKENS = "tokens.json"

BACKUP_MARKER = "backup.json"
"""In a folder that holds backups, and in no data folder."""

SAMPLES = "samples.parquet"
AGGREGATES = "aggregates.parquet"
SERIES = "series.parquet"
CHECKSUMS = "checksums.json"
EVENTS = "events.parquet"
STREAMS = "streams.parquet"

_SEGMENT = re.compile(r"(\d{20})\.log")


def lock_file(data: Path) -> Path:
    """Held by the server that owns the folder; says who it is."""
    return data / LOCK


def catalog_file(data: Path) -> Path:
    return data / CATALOG


def journal_of(database: Path) -> Path:
    """SQLite's rollback journal: there while a change is being made, or after one was interrupted."""
    return database.with_name(f"{database.name}-journal")


def catalog_draft(data: Path) -> Path:
    """A catalog while it is made."""
    return data / f"{CATALOG}.tmp"


def catalog_copy(data: Path, version: int) -> Path:
    """The catalog as it was before it was upgraded from format `version`."""
    return data / f"{CATALOG}.v{version}.bak"


def tokens_file(data: Path) -> Path:
    """Who may come in by a token that was made for the folder."""
    return data / TOKENS


def destination_file(data: Path, name: str) -> Path:
    """How far a destination of events is."""
    return data / DESTINATIONS / f"{name}.sqlite"


def remote_write_file(data: Path, name: str) -> Path:
    """How far a destination of samples is. It may have any name."""
    return data / DESTINATIONS / f"remote_write.{quote(name, safe='')}.sqlite"


def cluster_key_file(data: Path) -> Path:
    """The key that signs cluster tokens, where the configuration names none. Only the server's user may read it."""
    return data / CLUSTER_KEY


def log_dir(data: Path) -> Path:
    return data / LOG


def segment_file(data: Path, sequence: int) -> Path:
    """Segments are numbered from 1; twenty digits make the order of the names the order of the numbers."""
    return data / LOG / f"{sequence:020d}.log"


def segment_sequence(name: str) -> int | None:
    """The number in the name of a segment file, or None when it is not one."""
    match = _SEGMENT.fullmatch(name)
    return int(match[1]) if match else None


def blocks_dir(data: Path) -> Path:
    return data / BLOCKS


def block_dir(data: Path, block_id: str) -> Path:
    return data / BLOCKS / block_id


def samples_file(block: Path) -> Path:
    return block / SAMPLES


def aggregates_file(block: Path) -> Path:
    """What takes the place of the samples in a block of aggregates: other columns, which a tool that reads the samples
    of all blocks would stumble over."""
    return block / AGGREGATES


def rows_name(resolution: int) -> str:
    """The file of rows of a block with this resolution."""
    return AGGREGATES if resolution else SAMPLES


def rows_file(block: Path, resolution: int) -> Path:
    return block / rows_name(resolution)


def block_files(resolution: int) -> tuple[str, str, str]:
    """Every file of a block with this resolution."""
    return rows_name(resolution), SERIES, CHECKSUMS


def series_file(block: Path) -> Path:
    return block / SERIES


def checksums_file(block: Path) -> Path:
    """Checksums of the other two files of the block."""
    return block / CHECKSUMS


def event_blocks_dir(data: Path) -> Path:
    return data / EVENT_BLOCKS


def event_block_dir(data: Path, block_id: str) -> Path:
    return data / EVENT_BLOCKS / block_id


def events_file(block: Path) -> Path:
    return block / EVENTS


def streams_file(block: Path) -> Path:
    """The streams of a block's events."""
    return block / STREAMS


def event_block_files() -> tuple[str, str, str]:
    """Every file of a block of events."""
    return EVENTS, STREAMS, CHECKSUMS


def tmp_dir(data: Path) -> Path:
    """Things being written or being removed. Emptied at start; on the same file system, so a rename moves them."""
    return data / TMP


def set_aside_dir(data: Path) -> Path:
    """What could not be read, each with a .txt beside it that says why. streamgauge never deletes anything here."""
    return data / SET_ASIDE


def restore_draft(data: Path) -> Path:
    """A data folder while it is restored."""
    return data.with_name(f"{data.name}.restoring")


def snapshots_dir(data: Path) -> Path:
    """Whole data folders, made on request. streamgauge never removes one."""
    return data / SNAPSHOTS


def snapshot_dir(data: Path, name: str) -> Path:
    return data / SNAPSHOTS / name


def snapshot_draft(data: Path, name: str) -> Path:
    """A snapshot while it is made."""
    return data / TMP / f"snapshot-{name}"
