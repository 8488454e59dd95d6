"""JSON payloads to the columns of a node.

Most payloads go the quick way: a decoder that is compiled for the node turns a text into an object with one attribute
for each member, in a microsecond. It takes nothing that a column could not hold, so whatever is unusual about a payload
makes it refuse, and the payload goes the long way: level by level, each object split into the texts of its members.
Texts that are not sure to fit their column are sorted out by `texts`, a whole array at a time, in both ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

import msgspec
import numpy as np
import pyarrow as pa

from streamgauge.model.arrays import Int64s
from streamgauge.model.event_source import LeafType, Node
from streamgauge.store.arrow import lengths, take_keys
from streamgauge.store.events.assemble import spread
from streamgauge.store.events.texts import Part, Texts, leaf_of, left_over, name_text, text_member
from streamgauge.store.events.tree import (
    ARROW_TYPES,
    Profile,
    choose_node,
    profile_of,
    struct_type,
    usable,
)

MAX_DIVIDED_BYTES = 1 << 20
"""A larger payload is kept as it is: dividing it would take ten times its size in memory."""
SAMPLE_EVENTS = 2_048
SAMPLE_BYTES = 8 << 20
"""Payloads that are looked at to choose columns, which takes some 15 µs each."""

_CHUNK_EVENTS = 512
_LONG_CHUNK = 16_384
_CHUNK_BYTES = 8 << 20
"""Payloads decoded at a time. With 2,048 the objects outgrow the processor's cache, and all takes twice as long."""
_SURE_SHARE = 0.95
"""Of the values of a member, so many must be of its column's type for the decoder to insist on it."""
_KNOWN_SHARE = 0.001
_MAX_KNOWN = 256
"""Members without a column that the decoder knows all the same, as texts: those that so many payloads have."""

_SPARSE = 6
"""Where there are more columns than this for each member of a payload, the long way is the quicker one: it has no work
with what is absent."""

_INT64 = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
_SURE_TYPES: dict[LeafType, Any] = {LeafType.BOOL: bool, LeafType.INT: _INT64, LeafType.TEXT: str}
"""A double is never sure: its decoder does not tell how many digits there were."""

_UNDECODABLE = (msgspec.DecodeError, RecursionError, ValueError)

_split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def sample(payloads: pa.LargeBinaryArray, seed: int = 0) -> list[bytes]:
    """Some of the payloads, from all over. The same ones each time."""
    chosen: Int64s = np.flatnonzero(lengths(payloads) <= MAX_DIVIDED_BYTES)
    if len(chosen) > SAMPLE_EVENTS:
        chosen = np.random.default_rng(seed).choice(chosen, SAMPLE_EVENTS, replace=False)
    sizes = lengths(payloads)[chosen]
    enough = int(np.searchsorted(np.cumsum(sizes), SAMPLE_BYTES)) + 1
    return cast("list[bytes]", take_keys(payloads, np.sort(chosen[:enough])).to_pylist())


class Shredder:
    """Turns payloads into columns. For one thread.

    `like` are some payloads of the kind that will come: they decide how quick it is and, where no node is given, what
    gets a column. Any payload may come.
    """

    def __init__(self, like: Sequence[bytes], node: Node | None = None) -> None:
        profile = profile_of(like)
        self.node = choose_node(profile) if node is None else node
        self._level = _Level(self.node, profile, profile.values)
        self._decode = msgspec.json.Decoder(self._level.struct).decode
        self._sparse = self._level.width > _SPARSE * _members_of(profile) / max(profile.values, 1)

    def shred(self, payloads: pa.LargeBinaryArray) -> pa.StructArray:
        """The column of these payloads, which are valid JSON: of `struct_type(node)`, never null. Together they take
        less than 2 GiB."""
        if self._sparse:
            return divide(cast("list[bytes]", payloads.to_pylist()), self.node)
        found = _Found(self._level)
        places: list[Int64s] = []
        left: list[tuple[int, bytes]] = []
        for start, texts in _chunks(payloads):
            objects, refused = self._decode_some(texts)
            found.add(objects)
            kept = np.ones(len(texts), np.bool_)
            kept[refused] = False
            places.append(start + np.flatnonzero(kept))
            left += [(start + at, texts[at]) for at in refused]
        whole = found.finish()
        if not left:
            return whole
        divided: Any = pa.concat_arrays([whole, divide([text for _, text in left], self.node)])
        order = np.argsort(np.concatenate([*places, [at for at, _ in left]]))
        return cast("pa.StructArray", divided.take(pa.array(order)))

    def _decode_some(self, texts: list[bytes]) -> tuple[list[Any], list[int]]:
        """The objects of all payloads that the decoder takes, and the positions of the others."""
        decode = self._decode
        try:
            if max(map(len, texts)) <= MAX_DIVIDED_BYTES:
                return list(map(decode, texts)), []
        except _UNDECODABLE:
            pass
        objects, refused = [], []
        for at, text in enumerate(texts):
            try:
                objects.append(decode(_of_size(text)))
            except _UNDECODABLE:
                refused.append(at)
        return objects, refused


def _chunks(payloads: pa.LargeBinaryArray) -> Iterator[tuple[int, list[bytes]]]:
    ends = np.cumsum(lengths(payloads))
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, before + _CHUNK_BYTES, "right")), start + 1)
        stop = min(stop, start + _CHUNK_EVENTS)
        yield start, cast("list[bytes]", payloads[start:stop].to_pylist())
        start = stop


# ---- the quick way --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Member:
    """What the decoder makes of a member: an object of `level`, a value for a column of `sure`, or else its text."""

    name: str
    sure: LeafType | None = None
    level: _Level | None = None

    @property
    def decoded_type(self) -> Any:
        if self.level:
            return self.level.struct
        return _SURE_TYPES[self.sure] if self.sure else msgspec.Raw

    @property
    def found_type(self) -> pa.DataType:
        return ARROW_TYPES[self.sure] if self.sure else pa.binary()


class _Level:
    """A node, and a class whose objects have its members as attributes. `total` is the number of payloads in the
    profile."""

    def __init__(self, node: Node, profile: Profile, total: int) -> None:
        self.node = node
        self.members = [*_leaves(node, profile), *_children(node, profile, total), *_known(node, profile, total)]
        fields: list[Any] = [
            (f"m{number}", member.decoded_type, msgspec.field(default=None, name=member.name))
            for number, member in enumerate(self.members)
        ]
        self.struct = msgspec.defstruct("Payload", fields, forbid_unknown_fields=True, gc=False)

    @property
    def width(self) -> int:
        """Attributes, also those of inner objects."""
        return sum(member.level.width if member.level else 1 for member in self.members)


def _members_of(profile: Profile) -> int:
    """How many members all payloads of a profile have."""
    return sum(max(_members_of(member), member.values) for member in profile.members.values())


class _Found:
    """What the decoder found for a level. Absent members are None in it, or null."""

    def __init__(self, level: _Level) -> None:
        self._level = level
        self._rows = 0
        self._arrays: list[list[pa.Array[Any]]] = [[] for _ in level.members]  # of values
        self._present: list[list[bool]] = [[] for _ in level.members]  # whether a row has an object
        self._objects = [_Found(member.level) if member.level else None for member in level.members]

    def add(self, decoded: Sequence[Any]) -> None:
        self._rows += len(decoded)
        columns: Any = zip(*map(msgspec.structs.astuple, decoded), strict=True)
        for number, (member, values) in enumerate(zip(self._level.members, columns, strict=bool(decoded))):
            objects = self._objects[number]
            if objects:
                some = [value for value in values if value is not None]
                self._present[number] += [value is not None for value in values]
                objects.add(some)
            elif member.sure:
                self._arrays[number].append(pa.array(values, member.found_type))
            else:
                self._arrays[number].append(_raw_array(values))

    def finish(self) -> pa.StructArray:
        """The columns of the node: what may not fit is looked at now, in arrays that are worth it."""
        node = self._level.node
        made: dict[str, pa.Array[Any]] = {}
        rests: list[Part] = []
        for number, member in enumerate(self._level.members):
            values, rest = self._column(number, member)
            if values is not None:
                made[member.name] = values
            if rest is not None and rest.null_count < len(rest):
                rests.append(text_member(member.name, rest))
        return struct_of(node, made, left_over(rests, None, self._rows))

    def _column(self, number: int, member: _Member) -> tuple[pa.Array[Any] | None, Texts | None]:
        """The column of a member, if it has one, and what of the values goes to the rest."""
        node, objects = self._level.node, self._objects[number]
        if objects:
            rows = np.flatnonzero(np.array(self._present[number], np.bool_))
            some = objects.finish()
            return some if len(some) == self._rows else spread(some, rows, self._rows), None
        values: Any = pa.concat_arrays([*self._arrays[number], pa.array([], member.found_type)])
        if member.sure:
            return values, None
        if member.name in node.leaves:
            return leaf_of(values.cast(pa.string()), node.leaves[member.name])
        if member.name in node.children:
            return _objects_of(values.to_pylist(), node.children[member.name])
        return None, values.cast(pa.string())


def _leaves(node: Node, profile: Profile) -> Iterator[_Member]:
    for name, leaf in node.leaves.items():
        found = profile.members.get(name, Profile())
        fit = {LeafType.BOOL: found.bools, LeafType.INT: found.ints, LeafType.TEXT: found.texts}
        sure = leaf in fit and fit[leaf] >= _SURE_SHARE * found.values
        yield _Member(name, sure=leaf if sure else None)


def _children(node: Node, profile: Profile, total: int) -> Iterator[_Member]:
    for name, child in node.children.items():
        found = profile.members.get(name, Profile())
        sure = found.objects >= _SURE_SHARE * found.values
        yield _Member(name, level=_Level(child, found, total) if sure else None)


def _known(node: Node, profile: Profile, total: int) -> list[_Member]:
    found = [
        (member.values, name)
        for name, member in profile.members.items()
        if usable(name) and not (name in node.leaves or name in node.children or member.values < _KNOWN_SHARE * total)
    ]
    return [_Member(name) for _, name in sorted(found, reverse=True)[:_MAX_KNOWN]]


def _raw_array(values: Sequence[Any]) -> pa.BinaryArray:
    return pa.array([None if raw is None else bytes(raw) for raw in values], pa.binary())


def struct_of(
    node: Node, columns: dict[str, pa.Array[Any]], rest: Texts, absent: pa.BooleanArray | None = None
) -> pa.StructArray:
    """The column of a node. `absent` marks rows without such an object."""
    arrays = [columns[name] for name in (*node.leaves, *node.children)]
    return pa.StructArray.from_arrays([*arrays, rest], fields=list(struct_type(node)), mask=absent)


# ---- the long way ---------------------------------------------------------------------------------------------------


def divide(texts: Sequence[bytes], node: Node) -> pa.StructArray:
    """The columns of JSON texts, of which those that are no objects, or cannot be decoded, become rests as they are.

    What it takes depends on how many members there are, hardly on how many columns."""
    parts = [_divide_some(texts[start : start + _LONG_CHUNK], node) for start in range(0, len(texts), _LONG_CHUNK)]
    return cast("pa.StructArray", pa.concat_arrays([*parts, pa.array([], struct_type(node))]))


@dataclass(frozen=True, slots=True)
class _Values:
    """The texts of a member, and the rows that have it."""

    rows: list[int] = field(default_factory=list)
    raws: list[bytes] = field(default_factory=list)


class _Rests:
    """What is in no column, row by row."""

    def __init__(self, rows: int) -> None:
        self._members: list[list[bytes] | None] = [None] * rows
        self._whole: dict[int, bytes] = {}

    def keep(self, row: int, text: bytes) -> None:
        self._whole[row] = text

    def add(self, row: int, name: str, value: bytes) -> None:
        members = self._members[row]
        if members is None:
            members = self._members[row] = []
        members.append(name_text(name).encode() + value)

    def add_texts(self, rows: Int64s, name: str, texts: Texts) -> None:
        for row, text in zip(rows.tolist(), texts.to_pylist(), strict=True):
            if text is not None:
                self.add(row, name, text.encode())

    def column(self) -> Texts:
        texts = [None if members is None else b"{%b}" % b",".join(members) for members in self._members]
        for row, text in self._whole.items():
            texts[row] = text
        return _texts(texts)


def _divide_some(texts: Sequence[bytes], node: Node) -> pa.StructArray:
    found = {name: _Values() for name in (*node.leaves, *node.children)}
    rests = _Rests(len(texts))
    for row, text in enumerate(texts):
        try:
            members = _split(_of_size(text))
        except _UNDECODABLE:
            rests.keep(row, text)
            continue
        for name, raw in members.items():
            values = found.get(name)
            if values is None:
                rests.add(row, name, bytes(raw))
            else:
                values.rows.append(row)
                values.raws.append(bytes(raw))
    made = {name: _child_column(name, child, found[name], rests, len(texts)) for name, child in node.children.items()}
    for leaf in LeafType:
        names = [name for name in node.leaves if node.leaves[name] == leaf]
        made |= _leaf_columns(names, leaf, found, rests, len(texts))
    return struct_of(node, made, rests.column())


def _leaf_columns(
    names: Sequence[str], leaf: LeafType, found: Mapping[str, _Values], rests: _Rests, rows: int
) -> dict[str, pa.Array[Any]]:
    """All columns of one type, which are looked at as one."""
    made: dict[str, pa.Array[Any]] = {}
    values, left = leaf_of(_texts([raw for name in names for raw in found[name].raws]), leaf)
    start = 0
    for name in names:
        at = np.array(found[name].rows, np.int64)
        mine = slice(start, start + len(at))
        made[name] = spread(values[mine], at, rows)
        rests.add_texts(at, name, left[mine])
        start = mine.stop
    return made


def _child_column(name: str, child: Node, values: _Values, rests: _Rests, rows: int) -> pa.Array[Any]:
    at = np.array(values.rows, np.int64)
    column, left = _objects_of(values.raws, child)
    rests.add_texts(at, name, left)
    return cast("pa.Array[Any]", spread(column, at, rows))


def _of_size(text: bytes) -> bytes:
    if len(text) > MAX_DIVIDED_BYTES:
        raise ValueError("too large to be divided")
    return text


def _objects_of(texts: Sequence[bytes | None], node: Node) -> tuple[pa.Array[Any], Texts]:
    """The columns of what is an object, and the texts of what is not."""
    objects = [(row, text) for row, text in enumerate(texts) if text is not None and text.startswith(b"{")]
    others = [None if text is None or text.startswith(b"{") else text for text in texts]
    rows = np.array([row for row, _ in objects], np.int64)
    return spread(divide([text for _, text in objects], node), rows, len(texts)), _texts(others)


def _texts(values: Sequence[bytes | None]) -> Texts:
    return cast("Texts", pa.array(values, pa.binary()).cast(pa.string()))
