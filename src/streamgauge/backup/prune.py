"""Letting old backups go, and then the blocks that no backup needs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from streamgauge.backup import place as places
from streamgauge.backup.place import Place
from streamgauge.store.failpoints import hit


@dataclass(frozen=True, slots=True)
class Pruned:
    backups: int
    blocks: int
    size: int  # bytes


def prune(place: Place, keep: int) -> Pruned:
    """Keep the `keep` newest backups, and of blocks what they need. Raises StorageError.

    A backup that cannot be read is an error before anything is removed: its blocks are not known. Manifests go before
    files, so that a kill leaves none that lacks some.
    """
    listed = places.backups(place)
    old, kept = listed[:-keep], listed[-keep:]
    needed = {block for backup in kept for block in places.manifest(place, backup).files}
    for backup in old:
        place.remove(places.backup_path(backup))
    sizes: Counter[str] = Counter()
    for path, size in place.sizes(places.BLOCKS).items():
        sizes[path.split("/")[1]] += size
    superfluous = sizes.keys() - needed
    for block in sorted(superfluous):
        place.remove_folder(f"{places.BLOCKS}/{block}")
        hit("backup.after_prune")
    return Pruned(len(old), len(superfluous), sum(sizes[block] for block in superfluous))
