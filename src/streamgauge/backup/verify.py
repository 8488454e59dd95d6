"""Reading all that backups name, as `streamgauge backup --verify-only` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from streamgauge.backup import place as places
from streamgauge.backup.blocks import sum_of
from streamgauge.backup.manifest import FileSum
from streamgauge.backup.place import Place
from streamgauge.backup.write import Progress
from streamgauge.errors import Corrupt, NotFound


def problems(place: Place, backups: Sequence[str], progress: Progress) -> Iterator[str]:
    """What is wrong with these backups, as sentences. Each file is read once. Raises StorageError when the place
    cannot be read at all."""
    files: dict[str, FileSum] = {}
    for backup in backups:
        try:
            for block, sums in places.manifest(place, backup).files.items():
                files |= {places.block_path(block, name): file for name, file in sums.items()}
        except (Corrupt, NotFound) as error:
            yield error.message
    progress.expect(sum(file.size for file in files.values()))
    for path, expected in sorted(files.items()):
        try:
            found = sum_of(place.read(path), progress.verified)
        except (Corrupt, NotFound) as error:
            yield error.message
            continue
        if found != expected:
            yield f"{path} in {place.name} is damaged: {_difference(found, expected)}"


def _difference(found: FileSum, expected: FileSum) -> str:
    if found.size != expected.size:
        return f"it has {found.size} bytes and had {expected.size}"
    return f"its checksum is {found.crc:08x} and was {expected.crc:08x}"
