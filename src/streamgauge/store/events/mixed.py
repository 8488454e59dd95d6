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

_AT_ONCE = 256
"""Rests that are decoded before those are left out that have none but members that were found in them."""

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
    sought = set(names)
    rest = rest.drop_null()
    while sought and len(rest):
        if len(sought) <= _MAX_SOUGHT:
            rest = rest.filter(pc.match_substring_regex(rest, _pattern(sought)))
        found: set[str] = set()
        while not found and len(rest):
            found = _named_in_any(rest[:_AT_ONCE], sought)
            rest = rest[_AT_ONCE:]
        sought -= found
    return set(names) - sought


def _named_in_any(rest: pa.Array[Any], names: Collection[str]) -> set[str]:
    return {name for text in rest for name in members_named(bytes(text.as_buffer()), names)}


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
