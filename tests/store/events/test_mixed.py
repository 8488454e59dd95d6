"""What a block says of members that are in a column here and in the rest there is what its rests have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.model.event_source import Node
from streamgauge.model.event_source import Path as MemberPath
from streamgauge.store import failpoints
from streamgauge.store.events.blocks import LocalEventBlocks
from streamgauge.store.events.format import decode_mixed, encode_meta
from streamgauge.store.events.mixed import members_named
from streamgauge.store.events.ports import EventBlockMeta
from streamgauge.store.events.shred import MAX_DIVIDED_BYTES
from streamgauge.testing.thorough import examples

from .test_blocks import event_flush

NAMES = st.sampled_from(["a", "b", "c.d", "e/f", "ü", "(g"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["x", '"a":1', "\\u0061"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
DEEP = "[" * 5_000 + "]" * 5_000


def node_of(*texts: str) -> Node:
    with TemporaryDirectory() as folder, failpoints.armed("fs.sync", lambda: None):
        blocks = LocalEventBlocks(Path(folder))
        meta = blocks.write(event_flush(texts))
        assert blocks.verify([meta]) == []
        with blocks.open(meta.id) as reader:
            return reader.node


def mixed_in(node: Node, path: MemberPath = ()) -> Iterator[MemberPath]:
    assert node.mixed is not None
    yield from ((*path, name) for name in node.mixed)
    for name, child in node.children.items():
        yield from mixed_in(child, (*path, name))


def left_in(objects: Any, node: Node, path: MemberPath = ()) -> Iterator[MemberPath]:
    """The same, out of the columns as Python has them."""
    for each in filter(None, objects):
        left = json.loads(each["$rest"] or "{}")
        if isinstance(left, dict):
            columns = node.leaves.keys() | node.children.keys()
            yield from ((*path, name) for name, value in left.items() if name in columns and value is not None)
    for name, child in node.children.items():
        yield from left_in([each[name] for each in objects if each], child, (*path, name))


@settings(max_examples=examples(50), deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=12))
def test_exactly_what_rests_have_is_mixed(payloads: list[object]) -> None:
    with TemporaryDirectory() as folder, failpoints.armed("fs.sync", lambda: None):
        blocks = LocalEventBlocks(Path(folder))
        meta = blocks.write(event_flush([json.dumps(payload, ensure_ascii=False) for payload in payloads]))
        with blocks.open(meta.id) as reader:
            columns = reader.row_group(0).payloads.to_pylist()
            assert set(mixed_in(reader.node)) == set(left_in(columns, reader.node))


def test_a_payload_that_was_not_divided_may_have_every_member() -> None:
    plain = ['{"a":1,"b":{"c":2}}'] * 10
    assert set(mixed_in(node_of(*plain))) == set()
    assert set(mixed_in(node_of(*plain, f'{{"z":{DEEP}}}'))) == set()
    assert set(mixed_in(node_of(*plain, f'{{"a":2,"z":{DEEP}}}'))) == {("a",), ("b",)}
    large = '{"\\u0061":null,"z":"%s"}' % ("x" * MAX_DIVIDED_BYTES)
    assert set(mixed_in(node_of(*plain, large))) == {("a",)}


def test_what_cannot_be_told_is_said_to_be_there() -> None:
    assert members_named(b'{"a":1,"b":null,"c":[2]}', {"a", "b", "d"}) == {"a"}
    assert members_named(b'["a"]', {"a"}) == set()
    assert members_named(b'{"z":"\\ud800"', {"a", "b"}) == {"a", "b"}


@pytest.mark.parametrize("mixed", [frozenset(), frozenset({("a",), ("b", "c.d")}), None])
def test_the_footer_says_it(mixed: frozenset[MemberPath] | None) -> None:
    meta = EventBlockMeta("x", 1, 2, 0, 0, 0, 0, 0, 0, 0, 0)
    assert decode_mixed(encode_meta(meta, mixed).encode()) == mixed
