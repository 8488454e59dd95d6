"""Merging blocks of events changes where they are, and nothing else, whatever their payloads are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.errors import Corrupt, StorageError
from streamgauge.model.event_source import LeafType, Node
from streamgauge.model.events import Stream
from streamgauge.store import failpoints
from streamgauge.store.events.assemble import payload_texts
from streamgauge.store.events.block_reader import EventBlockReader
from streamgauge.store.events.blocks import LocalEventBlocks
from streamgauge.store.events.convert import Converter
from streamgauge.store.events.merge import merge_blocks
from streamgauge.store.events.ports import UNDIVIDED, EventBlockMeta, EventFlush, EventRows
from streamgauge.store.events.shred import Shredder, sample
from streamgauge.testing.json_texts import VALUES, meaning
from streamgauge.testing.thorough import examples

START = 1_790_000_000_000_000_000

Event = tuple[int, int, str]  # stream, index, payload


def write(blocks: LocalEventBlocks, events: Sequence[Event], commit: int = 1, **more: object) -> EventBlockMeta:
    rows = EventRows(
        streams=np.array([event[0] for event in events], np.int64),
        indexes=np.array([event[1] for event in events], np.int64),
        times=np.array([time_of(event) for event in events], np.int64),
        payloads=pa.array([event[2].encode() for event in events], pa.large_binary()),
    )
    streams = [Stream(number, START, "http", "{}") for number in {event[0] for event in events}]
    return blocks.write(EventFlush(commit, commit, rows, streams), **more)  # type: ignore[arg-type]


def time_of(event: Event) -> int:
    return START + 1000 * event[0] + event[1]


def events_in(reader: EventBlockReader) -> list[Event]:
    found: list[Event] = []
    for group in range(len(reader.group_rows)):
        rows = reader.row_group(group)
        texts = payload_texts(rows.payloads).to_pylist()
        events = list(zip(rows.streams.tolist(), rows.indexes.tolist(), map(str, texts), strict=True))
        assert rows.times.tolist() == [time_of(event) for event in events]
        found += events
    return found


def merged(blocks: LocalEventBlocks, inputs: Sequence[EventBlockMeta], **how: object) -> tuple[Node, list[Event]]:
    meta = merge_blocks(blocks, inputs, **how)  # type: ignore[arg-type]
    assert meta is not None
    assert meta in blocks.scan()[0]
    with blocks.open(meta.id) as reader:
        return reader.node, events_in(reader)


@pytest.fixture
def blocks(tmp_path: Path) -> LocalEventBlocks:
    blocks = LocalEventBlocks(tmp_path)
    blocks.scan()
    return blocks


@settings(max_examples=examples(50), deadline=None)
@given(st.lists(st.lists(VALUES, min_size=1, max_size=6), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_events_are_the_same_after_a_merge(parts: list[list[str]], random: object) -> None:
    events: list[Event] = []
    with TemporaryDirectory() as folder, failpoints.armed("fs.sync", lambda: None):
        blocks = LocalEventBlocks(Path(folder))
        metas, masks = [], {}
        for number, texts in enumerate(parts):
            mine = [(1 + at % 2, 1 + number + 10 * at, text) for at, text in enumerate(texts)]
            meta = write(blocks, mine, number, level=random.choice((0, UNDIVIDED)))  # type: ignore[attr-defined]
            metas.append(meta)
            masks[meta.id] = np.array([random.random() < 0.2 for _ in mine], np.bool_)  # type: ignore[attr-defined]
            events += [event for event, out in zip(sorted(mine), masks[meta.id], strict=True) if not out]
        if not events:
            assert merge_blocks(blocks, metas, masks) is None
            return
        _, found = merged(blocks, metas, omit=masks)
    assert [event[:2] for event in found] == [event[:2] for event in sorted(events)]
    for event, expected in zip(found, sorted(events), strict=True):
        assert meaning(event[2]) == meaning(expected[2])


@settings(max_examples=examples(80), deadline=None)
@given(st.lists(VALUES, max_size=8), st.lists(VALUES, max_size=8))
def test_columns_of_any_tree_become_those_of_any_other(texts: list[str], others: list[str]) -> None:
    both = [pa.array([text.encode() for text in some], pa.large_binary()) for some in (texts, others)]
    source, target = (Shredder(sample(some)) for some in both)
    column = Converter(source.node, target.node).convert(source.shred(both[0]))
    column.validate(full=True)
    assert column.type == target.shred(both[1]).type
    assert [meaning(str(text)) for text in payload_texts(column).to_pylist()] == [meaning(text) for text in texts]


def test_what_was_text_in_one_block_and_a_column_in_another_becomes_a_column(blocks: LocalEventBlocks) -> None:
    few = [f'{{"n":{n}}}' for n in range(400)] + ['{"n":"x","level":"rare","http":{"status":500,"z":[1]}}']
    many = ['{"level":"INFO","http":{"status":200},"n":1}'] * 1000
    first = write(blocks, [(1, 1 + at, text) for at, text in enumerate(few)])
    second = write(blocks, [(2, 1 + at, text) for at, text in enumerate(many)])
    with blocks.open(first.id) as reader:
        assert reader.node == Node({"n": LeafType.INT}, mixed={"n"})
    meta = merge_blocks(blocks, [first, second])
    assert meta is not None
    with blocks.open(meta.id) as reader:
        assert reader.node.children == {"http": Node({"status": LeafType.INT}, mixed=frozenset())}
        assert reader.node.mixed == {"n"}
        row = reader.row_group(0).payloads[400].as_py()
    assert row == {
        "n": None, "level": "rare", "http": {"status": 500, "$rest": '{"z":[1]}'}, "$rest": '{"n":"x"}',
    }  # fmt: skip


def test_a_block_that_was_not_divided_gets_columns_when_it_is_written_anew(blocks: LocalEventBlocks) -> None:
    first = [(1, n, f'{{"a":{n},"b":"x"}}') for n in range(1, 51)]
    second = [(1, n, f'{{"c":{{"d":{n}}},"b":7}}') for n in range(51, 101)]
    inputs = [write(blocks, first, 1, level=UNDIVIDED), write(blocks, second, 2, level=UNDIVIDED)]
    with blocks.open(inputs[0].id) as reader:
        assert reader.node == Node(mixed=frozenset())
        assert events_in(reader) == first
    alone = merge_blocks(blocks, inputs[:1])
    assert alone is not None
    assert alone.level == 1
    with blocks.open(alone.id) as reader:
        assert reader.node.leaves == {"a": LeafType.INT, "b": LeafType.TEXT}
        assert events_in(reader) == first
    node, events = merged(blocks, [write(blocks, first, 1), inputs[1]])
    assert (node.leaves["a"], set(node.children)) == (LeafType.INT, {"c"})
    assert [event[:2] for event in events] == [(1, n) for n in range(1, 101)]
    assert [meaning(event[2]) for event in events] == [meaning(event[2]) for event in first + second]


def test_of_two_types_that_with_more_values_wins(blocks: LocalEventBlocks) -> None:
    inputs = [
        write(blocks, [(1, 1 + n, f'{{"v":{n},"w":{{"x":1}},"d":{n}}}') for n in range(50)]),
        write(blocks, [(2, 1 + n, f'{{"v":"{n}","w":"text","d":{n}.5}}') for n in range(70)]),
    ]
    node, events = merged(blocks, inputs)
    assert node.leaves == {"v": LeafType.TEXT, "w": LeafType.TEXT, "d": LeafType.DOUBLE}
    assert json.loads(events[3][2]) == {"v": 3, "w": {"x": 1}, "d": 3}


def test_the_merged_block_says_what_it_replaces(blocks: LocalEventBlocks) -> None:
    inputs = [
        write(blocks, [(1, 1, "{}"), (1, 2, "{}")], 3, pruned=("a", "b")),
        write(blocks, [(2, 7, "{}"), (3, 1, "{}")], 5, level=4, pruned=("b", "c")),
    ]
    meta = merge_blocks(blocks, inputs, {inputs[1].id: np.array([True, False])}, pruned=["z"])
    assert meta is not None
    assert (meta.first_commit, meta.last_commit, meta.level) == (3, 5, 5)
    assert (meta.parents, meta.pruned) == ((inputs[0].id, inputs[1].id), ("b", "z"))
    assert (meta.events, meta.min_stream, meta.max_stream, meta.min_time, meta.max_time) == (
        3, 1, 3, START + 1001, START + 3001,
    )  # fmt: skip
    with blocks.open(meta.id) as reader:
        assert [stream.id for stream in reader.streams()] == [1, 3], "all events of stream 2 are gone, and so is it"


def test_streams_without_events_stay_in_a_merge(blocks: LocalEventBlocks) -> None:
    none = np.empty(0, np.int64)
    flush = EventFlush(
        1, 1, EventRows(none, none, none, pa.array([], pa.large_binary())), [Stream(5, START, "http", "{}")]
    )
    inputs = [blocks.write(flush), write(blocks, [(1, 1, "{}")])]
    meta = merge_blocks(blocks, inputs, {inputs[1].id: np.array([True])})
    assert meta is not None
    assert (meta.events, meta.streams) == (0, 1)
    assert merge_blocks(blocks, [inputs[1]], {inputs[1].id: np.array([True])}) is None


def test_rows_of_many_groups_are_interleaved(blocks: LocalEventBlocks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamgauge.store.events.block_writer.MAX_ROW_GROUP", 7)
    events = [(1 + n % 3, 1 + n, f'{{"n":{n}}}') for n in range(100)]
    inputs = [write(blocks, events[part::3]) for part in (2, 0, 1)]
    node, found = merged(blocks, inputs)
    assert found == sorted(events)
    assert node == Node({"n": LeafType.INT}, rest=False, mixed=frozenset())


def test_row_groups_of_large_payloads_stay_small(blocks: LocalEventBlocks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though what is the same in all of them takes little in the file."""
    monkeypatch.setattr("streamgauge.store.events.block_writer.MAX_ROW_GROUP_BYTES", 50_000)
    trace = json.dumps({"trace": "at line\n" * 500})
    inputs = [write(blocks, [(stream, 1 + n, trace) for n in range(40)]) for stream in (1, 2)]
    meta = merge_blocks(blocks, inputs)
    assert meta is not None
    with blocks.open(meta.id) as reader:
        assert reader.group_rows.max() <= 12
        assert reader.rows == 80


def test_a_damaged_block_is_not_merged(blocks: LocalEventBlocks, tmp_path: Path) -> None:
    inputs = [write(blocks, [(1, 1, '{"a":1}')]), write(blocks, [(2, 1, '{"a":2}')])]
    path = tmp_path / "events" / inputs[0].id / "events.parquet"
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    with pytest.raises(Corrupt, match=f"block {inputs[0].id}"):
        merge_blocks(blocks, inputs)
    assert blocks.names() == sorted(meta.id for meta in inputs)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_full_disk_leaves_no_merged_block(blocks: LocalEventBlocks, tmp_path: Path) -> None:
    inputs = [write(blocks, [(1, 1, '{"a":1}')]), write(blocks, [(2, 1, '{"a":2}')])]
    with failpoints.armed("fs.write", "enospc", first=3, last=9), pytest.raises(StorageError):
        merge_blocks(blocks, inputs)
    assert blocks.names() == sorted(meta.id for meta in inputs)
    assert list((tmp_path / "tmp").iterdir()) == []


CHILD = """
import sys
from pathlib import Path
from streamgauge.store import failpoints
from streamgauge.store.events.blocks import LocalEventBlocks
from streamgauge.store.events.merge import merge_blocks
failpoints.arm_from_environment()
blocks = LocalEventBlocks(Path(sys.argv[1]))
merge_blocks(blocks, blocks.scan()[0])
"""


@pytest.mark.parametrize(
    ("point", "survives"), [("block.before_rename=kill", False), ("events.merge.after_write=kill", True)]
)
def test_a_merge_that_is_killed_leaves_its_inputs(
    blocks: LocalEventBlocks, tmp_path: Path, point: str, survives: bool
) -> None:
    inputs = [write(blocks, [(1, 1, '{"a":1}')]), write(blocks, [(2, 1, '{"a":2}')])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), failpoints.VARIABLE: point}
    assert subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], env=environment).returncode != 0
    found, damaged = blocks.scan()
    assert len(found) == 2 + survives
    assert {meta.id for meta in inputs} <= {meta.id for meta in found}
    assert damaged == []
