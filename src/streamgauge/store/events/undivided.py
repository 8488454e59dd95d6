"""Blocks that a flush had no time to divide: whole payloads as they came, until they are merged or written anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pyarrow as pa

from streamgauge.model.event_source import Node
from streamgauge.store.arrow import compute as pc
from streamgauge.store.events.block_reader import EventBlockReader
from streamgauge.store.events.shred import Shredder, sample, struct_of
from streamgauge.store.events.tree import REST, Profile, profile_of


def undivided(payloads: pa.LargeBinaryArray) -> pa.StructArray:
    """The column of these payloads for a node without members. They take less than 2 GiB."""
    return struct_of(Node(), {}, cast("Any", payloads.cast(pa.string())))


class Divider:
    """From payloads of an undivided block to those of a node."""

    def __init__(self, like: Sequence[bytes], node: Node) -> None:
        self._shredder = Shredder(like, node)

    def convert(self, payloads: pa.StructArray) -> pa.StructArray:
        return self._shredder.shred(_texts(payloads))


def some_of(reader: EventBlockReader) -> list[bytes]:
    """Payloads from all row groups of an undivided block."""
    return [
        text for group in range(len(reader.group_rows)) for text in sample(_texts(reader.row_group(group).payloads))
    ]


def count(like: Sequence[bytes], rows: int, profile: Profile) -> None:
    """Add to the profile what `rows` payloads that are like these have."""
    profile.include(profile_of(like), rows / max(len(like), 1))


def _texts(payloads: pa.StructArray) -> pa.LargeBinaryArray:
    number = payloads.type.get_field_index(REST)
    return cast("pa.LargeBinaryArray", pc.struct_field(payloads, number).cast(pa.large_binary()))
