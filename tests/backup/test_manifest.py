"""A manifest says all that the catalog did, and nothing passes for one that is not."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from streamgauge.backup.manifest import FileSum, Manifest, decode
from streamgauge.errors import Corrupt, FormatTooNew
from streamgauge.model.events import Stream
from streamgauge.store import names
from streamgauge.store.events.ports import EventBlockMeta, EventCatalog, NamedStream
from streamgauge.store.ports import BlockMeta, CatalogState, Tombstone

BLOCK = BlockMeta("20231114-1-9-0a1b2c3d", 1, 9, -5, 1 << 62, 0, True, 2, 3, 4, 60, ("a", "b"), (1, 7), 300_000)
STATE = CatalogState(
    "0123456789abcdef" * 2,
    99,
    7,
    (BLOCK,),
    (("né", "gauge", "what\nit is", "bytes"),),
    (Tombstone(7, 9, -(1 << 63), (1 << 63) - 1, bytes(range(16))),),
    dropped_before=1234,
    events=EventCatalog(
        98,
        17,
        (EventBlockMeta("20231114-1to9-0a1b2c3d", 1, 9, 5, 1 << 62, 1, 16, 2, 30, 4, 60, ("c",), ("rule",)),),
        (NamedStream(Stream(3, 1 << 60, "http", '{"ä":"b"}', "näme"), 7, (1 << 60) + 1),),
        5,
    ),
)
FILES = {
    BLOCK.id: {name: FileSum(20, at + 1) for at, name in enumerate(names.block_files(BLOCK.resolution))},
    STATE.events.blocks[0].id: {name: FileSum(20, at + 1) for at, name in enumerate(names.event_block_files())},
}
MANIFEST = Manifest(1_700_000_000_000, STATE, FILES)


def test_it_is_read_as_it_was_written() -> None:
    assert decode(MANIFEST.encode(), "it") == MANIFEST
    assert MANIFEST.size == 120


@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: raw.replace(b"99", b"98", 1), lambda raw: b""])
def test_a_damaged_one_is_known(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(Corrupt, match="x is damaged"):
        decode(change(MANIFEST.encode()), "x")


def rewritten(change: Callable[[Any], None]) -> bytes:
    """With a checksum that fits, as somebody might write it."""
    document = json.loads(MANIFEST.encode().splitlines()[0])
    change(document)
    line = json.dumps(document).encode()
    return line + b"\n%08x\n" % zlib.crc32(line)


def test_one_of_a_later_format_is_refused() -> None:
    with pytest.raises(FormatTooNew, match="x is of format 3"):
        decode(rewritten(lambda document: document.update(version=3)), "x")


def test_one_of_the_format_before_knows_no_events() -> None:
    def older(document: Any) -> None:
        document["version"] = 1
        del document["state"]["events"], document["files"][STATE.events.blocks[0].id]

    assert decode(rewritten(older), "x").state.events == EventCatalog()


def rename_block(document: Any, name: str) -> None:
    document["files"][name] = document["files"].pop(BLOCK.id)
    document["state"]["blocks"][0]["id"] = name


@pytest.mark.parametrize(
    "change",
    [
        lambda document: rename_block(document, "../../etc"),
        lambda document: rename_block(document, "/etc"),
        lambda document: document["files"][BLOCK.id].update({"../x": [1, "00"]}),
        lambda document: document["files"].clear(),
        lambda document: document["files"][BLOCK.id].pop(names.SERIES),
        lambda document: document["state"]["blocks"][0].update(resolution=0),
        lambda document: document.pop("state"),
        lambda document: document.update(files=[]),
        lambda document: document["state"].update(tombstones=[{"id": 1}]),
        lambda document: document["state"].update(blocks=[{}]),
        lambda document: document.update(made=float("inf")),
    ],
)
def test_names_lead_nowhere_else_and_nothing_may_lack(change: Callable[[Any], None]) -> None:
    with pytest.raises(Corrupt, match="x makes no sense"):
        decode(rewritten(change), "x")


def test_one_that_is_nested_without_end_makes_no_sense() -> None:
    line = b"[" * 1_000_000
    with pytest.raises(Corrupt, match="x makes no sense"):
        decode(line + b"\n%08x\n" % zlib.crc32(line), "x")


def test_a_state_without_blocks_is_one() -> None:
    empty = Manifest(0, replace(STATE, blocks=(), events=replace(STATE.events, blocks=())), {})
    assert decode(empty.encode(), "it") == empty
