"""The checker finds what must not be, and nothing in what the writer makes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from streamgauge.model.event_source import LeafType, Node
from streamgauge.model.events import Stream
from streamgauge.store.events.blocks import LocalEventBlocks
from streamgauge.store.events.format import RowGroup
from streamgauge.store.events.ports import UNDIVIDED, EventBlockMeta
from streamgauge.store.events.tree import struct_type

NODE = Node({"a": LeafType.INT}, {"o": Node({"b": LeafType.TEXT})})
META = EventBlockMeta("x", 1, 2, 0, 0, 0, 0, 0, 0, 0, 0)
GOOD: list[dict[str, Any]] = [
    {"a": 1, "o": {"b": "x", "$rest": '{"c":[1]}'}, "$rest": None},
    {"a": None, "o": None, "$rest": "[1]"},
    {"a": 2, "o": None, "$rest": '{"o":5}'},
]


@pytest.fixture
def blocks(tmp_path: Path) -> LocalEventBlocks:
    blocks = LocalEventBlocks(tmp_path)
    blocks.scan()
    return blocks


def write(
    blocks: LocalEventBlocks,
    block_id: str = "x",
    payloads: list[dict[str, Any]] = GOOD,
    streams: tuple[int, ...] = (1, 1, 2),
    indexes: tuple[int, ...] = (1, 2, 1),
    listed: tuple[int, ...] = (1, 2),
    meta: EventBlockMeta = META,
) -> EventBlockMeta:
    group = RowGroup(
        np.array(streams, np.int64), np.array(indexes, np.int64), np.arange(3),
        pa.array(payloads, struct_type(NODE)), 100,
    )  # fmt: skip
    return blocks.write_groups(
        replace(meta, id=block_id), NODE, iter([group]), [Stream(number, 0, "http", "{}") for number in listed], 1
    )


def test_a_good_block_has_no_problems(blocks: LocalEventBlocks) -> None:
    assert blocks.verify([write(blocks), write(blocks, "y", streams=(1, 3, 3), indexes=(7, 1, 2), listed=(1, 3))]) == []


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ({"streams": (1, 2, 1)}, "not in order of stream and index"),
        ({"indexes": (1, 1, 1)}, "or one occurs twice"),
        ({"indexes": (0, 1, 1)}, "below 1"),
        ({"listed": (1,)}, "not in the file of streams"),
        ({"meta": replace(META, first_commit=9)}, "its commits run from 9 to 2"),
        ({"meta": replace(META, level=1)}, "level 1 and 0 parents"),
        ({"meta": replace(META, level=UNDIVIDED, parents=("y",))}, "level -1 and 1 parents"),
        ({"meta": replace(META, level=UNDIVIDED)}, "has columns of payloads"),
        (
            {"payloads": [{"a": 1, "o": None, "$rest": '{"a":"x"}'}, *GOOD[1:]]},
            "payload has a in a column and left over",
        ),
        ({"payloads": [{"a": 1, "o": None, "$rest": "5"}, *GOOD[1:]]}, "is no object"),
        (
            {"payloads": [{"a": 1, "o": {"b": "x", "$rest": '{"b":1}'}, "$rest": None}, *GOOD[1:]]},
            "payload.o has b in a column",
        ),
    ],
)
def test_what_must_not_be_is_found(blocks: LocalEventBlocks, what: dict[str, Any], problem: str) -> None:
    problems = blocks.verify([write(blocks, **what)])
    assert any(problem in found and "block x" in found for found in problems), problems


def test_a_catalog_that_says_something_else_is_found(blocks: LocalEventBlocks) -> None:
    meta = write(blocks)
    [problem] = blocks.verify([replace(meta, events=2)])
    assert "the catalog" in problem


def test_an_event_in_two_blocks_is_found(blocks: LocalEventBlocks) -> None:
    [problem] = blocks.verify([write(blocks), write(blocks, "y", streams=(2, 2, 3), listed=(2, 3), indexes=(1, 2, 1))])
    assert "event 1 of stream 2 is stored more than once" in problem


def test_a_damaged_or_missing_block_is_found(blocks: LocalEventBlocks, tmp_path: Path) -> None:
    meta, gone = write(blocks), write(blocks, "y", streams=(3, 4, 5), listed=(3, 4, 5))
    path = tmp_path / "events" / "x" / "events.parquet"
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)
    blocks.remove("y")
    damaged, missing = blocks.verify([meta, gone])
    assert "block x: events.parquet cannot be read" in damaged
    assert "block y" in missing


def test_a_member_that_is_left_over_though_the_footer_denies_it_is_found(
    blocks: LocalEventBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamgauge.store.events.block_writer.MixedMembers.add", lambda *_: None)
    [problem] = blocks.verify([write(blocks)])
    assert "payload has o left over, and the footer says that it has not" in problem
