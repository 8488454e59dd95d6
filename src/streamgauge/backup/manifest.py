"""What one backup holds, as the JSON that stands for it in a destination. In prose: docs/format/backup.md."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from streamgauge.errors import Corrupt, FormatTooNew
from streamgauge.model.events import Stream
from streamgauge.store import names
from streamgauge.store.events.ports import EventBlockMeta, EventCatalog, NamedStream
from streamgauge.store.ports import BlockMeta, CatalogState, Tombstone

FORMAT_VERSION = 2
_BLOCK_ID = re.compile(r"[\w-]+", re.ASCII)
"""It becomes the name of a folder, and a bucket may be somebody else's."""

BlockFiles = Mapping[str, "FileSum"]
"""By the name of the file within its block."""


@dataclass(frozen=True, slots=True)
class FileSum:
    """By what a file is known again: bytes, and the CRC-32 of all of them."""

    size: int
    crc: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """One backup. `made` is its time in ms; `files` has those of each block of `state`, by the block's id; `tokens`
    is the folder's file of tokens as it was, good or not."""

    made: int
    state: CatalogState
    files: Mapping[str, BlockFiles]
    tokens: bytes | None = None

    @property
    def size(self) -> int:
        """Of all its files, in bytes."""
        return sum(file.size for files in self.files.values() for file in files.values())

    def encode(self) -> bytes:
        """One line of JSON, and a line with the CRC-32 of the first."""
        document = {
            "version": FORMAT_VERSION,
            "made": self.made,
            "state": encode_state(self.state),
            "files": {
                block: {name: [file.size, f"{file.crc:08x}"] for name, file in files.items()}
                for block, files in self.files.items()
            },
            "tokens": None if self.tokens is None else self.tokens.decode("latin-1"),
        }
        line = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
        return line + b"\n%08x\n" % zlib.crc32(line)


def decode(raw: bytes, what: str) -> Manifest:
    """The opposite of `Manifest.encode`; `what` names it in messages. Raises Corrupt and FormatTooNew."""
    line, _, rest = raw.partition(b"\n")
    if rest != b"%08x\n" % zlib.crc32(line):
        raise Corrupt(f"{what} is damaged: its checksum is wrong")
    try:
        document = json.loads(line)
        if document["version"] > FORMAT_VERSION:
            raise FormatTooNew(
                f"{what} is of format {document['version']} and this streamgauge knows formats up to {FORMAT_VERSION}; "
                "use the newer one"
            )
        files = {
            block: {name: FileSum(int(size), int(crc, 16)) for name, (size, crc) in sums.items()}
            for block, sums in document["files"].items()
        }
        state = decode_state(document["state"])
        expected = {meta.id: set(names.block_files(meta.resolution)) for meta in state.blocks}
        expected |= {meta.id: set(names.event_block_files()) for meta in state.events.blocks}
        if len(expected) != len(state.blocks) + len(state.events.blocks):
            raise ValueError("two blocks have one id")
        if files.keys() != expected.keys() or not all(map(_BLOCK_ID.fullmatch, files)):
            raise ValueError("its files are not those of its blocks")
        if any(sums.keys() != expected[block] for block, sums in files.items()):
            raise ValueError("a block has other files than a block has")
        tokens = document.get("tokens")
        return Manifest(int(document["made"]), state, files, None if tokens is None else tokens.encode("latin-1"))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise Corrupt(f"{what} makes no sense: {error!r}") from None


def encode_state(state: CatalogState) -> dict[str, Any]:
    """A catalog's state as JSON types."""
    return {
        "store_id": state.store_id,
        "flushed_through": state.flushed_through,
        "next_series_id": state.next_series_id,
        "dropped_before": state.dropped_before,
        "metadata": [list(entry) for entry in state.metadata],
        "tombstones": [{**asdict(each), "series": base64.b64encode(each.series).decode()} for each in state.tombstones],
        "blocks": [asdict(meta) for meta in state.blocks],
        "events": asdict(state.events),
    }


def decode_state(document: Mapping[str, Any]) -> CatalogState:
    """The opposite of `encode_state`. Raises ValueError, KeyError and TypeError."""
    return CatalogState(
        store_id=str(document["store_id"]),
        flushed_through=int(document["flushed_through"]),
        next_series_id=int(document["next_series_id"]),
        dropped_before=int(document["dropped_before"]),
        metadata=tuple((str(m), str(t), str(h), str(u)) for m, t, h, u in document["metadata"]),
        tombstones=tuple(
            Tombstone(**{**each, "series": base64.b64decode(each["series"], validate=True)})
            for each in document["tombstones"]
        ),
        blocks=tuple(
            BlockMeta(**{**each, "parents": tuple(each["parents"]), "tombstones": tuple(each["tombstones"])})
            for each in document["blocks"]
        ),
        events=_decode_events(document["events"]) if "events" in document else EventCatalog(),
    )


def _decode_events(document: Mapping[str, Any]) -> EventCatalog:
    return EventCatalog(
        flushed_through=int(document["flushed_through"]),
        next_stream=int(document["next_stream"]),
        dropped_before=int(document["dropped_before"]),
        blocks=tuple(
            EventBlockMeta(**{**each, "parents": tuple(each["parents"]), "pruned": tuple(each["pruned"])})
            for each in document["blocks"]
        ),
        named=tuple(
            NamedStream(Stream(**each["stream"]), int(each["next_index"]), int(each["last_used"]))
            for each in document["named"]
        ),
    )
