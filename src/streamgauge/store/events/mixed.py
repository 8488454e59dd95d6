"""Which members of payloads are in a column in some events and in the rest in others: where none is, a query about the
column needs no JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import msgspec
import pyarrow as pa

from streamgauge.model.event_source import Node, Path
from streamgauge.store.arrow import compute as pc
from streamgauge.store.events.shred import MAX_DIVIDED_BYTES
from streamgauge.store.events.texts import escaped, name_text
from streamgauge.store.events.tree import REST

_MAX_SOUGHT = 200
"""Names looked for with a pattern; where there are more, every rest is decoded."""

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class MixedMembers:
    """Collects them from the columns of payloads of one tree. For one thread."""

    def __init__(self, node: Node) -> None:
        self.paths: set[Path] = set()
        self._node = node

    def add(self, payloads: pa.StructArray) -> None:
        for path, node, rest in _rests(self._node, payloads, ()):
            names = {name for name in (*node.leaves, *node.children) if (*path, name) not in self.paths}
            if names:
                self.paths.update((*path, name) for name in members_left(rest, names))


def members_left(rest: pa.Array[Any], names: Collection[str]) -> set[str]:
    """Of these members, those that some of the rests may have with a value other than null."""
    found: set[str] = set()
    if not names:
        return found
    if len(names) <= _MAX_SOUGHT:
        rest = rest.filter(pc.fill_null(pc.match_substring_regex(rest, _pattern(names)), False))
    for text in rest.drop_null():
        found |= members_named(bytes(text.as_buffer()), names)
        if len(found) == len(names):
            break
    return found


def members_named(text: bytes, names: Collection[str]) -> set[str]:
    """The same of one rest. What cannot be decoded may have them all."""
    if not text.startswith(b"{"):
        return set()
    try:
        members = _members(text)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return set(names)
    undivided = len(text) > MAX_DIVIDED_BYTES  # as it came: of members with the same name any may be found
    return {name for name in members.keys() & set(names) if undivided or bytes(members[name]) != b"null"}


def _rests(node: Node, objects: pa.StructArray, path: Path) -> Iterator[tuple[Path, Node, pa.Array[Any]]]:
    """Of each node that has any."""
    rest = _member(objects, REST)
    if rest.null_count < len(rest):
        yield path, node, rest
    for name, child in node.children.items():
        inner = _member(objects, name)
        if inner.null_count < len(inner):
            yield from _rests(child, inner, (*path, name))


def _member(objects: pa.StructArray, name: str) -> Any:
    return pc.struct_field(objects, objects.type.get_field_index(name))


def _pattern(names: Collection[str]) -> str:
    """Finds rests that may name one of these members. Only texts that were not divided spell names with escapes."""
    sought = [escaped(name_text(name).removesuffix(":")) for name in names]
    escapes = r"\\u00[2-7]|\\/" if all(map(str.isascii, names)) else r"\\u|\\/"
    return "|".join([escapes, *sought])
