"""JSON payloads to the columns of a node.

Most payloads go the quick way: a decoder that is compiled for the node turns a text into an object with one attribute
for each member, in a microsecond. It takes nothing that a column could not hold, so whatever is unusual about a payload
makes it refuse, and the payload goes the long way: level by level, each object split into the texts of its members.
Texts that are not sure to fit their column are sorted out by `texts`, a whole array at a time, in both ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

import msgspec
import numpy as np
import pyarrow as pa

from streamgauge.model.arrays import Bools, Int64s
from streamgauge.model.event_source import LeafType, Node
from streamgauge.store.arrow import compute as pc
from streamgauge.store.arrow import lengths, take_keys
from streamgauge.store.events.texts import Texts, leaf_of, member_of, name_text, some_objects_of
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
_CHUNK_BYTES = 8 << 20
"""Payloads decoded at a time. With 2,048 the objects outgrow the processor's cache, and all takes twice as long."""
_SURE_SHARE = 0.95
"""Of the values of a member, so many must be of its column's type for the decoder to insist on it."""
_KNOWN_SHARE = 0.001
_MAX_KNOWN = 256
"""Members without a column that the decoder knows all the same, as texts: those that so many payloads have."""

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

    def shred(self, payloads: pa.LargeBinaryArray) -> pa.StructArray:
        """The column of these payloads, which are valid JSON: of `struct_type(node)`, never null. Together they take
        less than 2 GiB."""
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
        rests: list[Texts] = []
        for number, member in enumerate(self._level.members):
            values, rest = self._column(number, member)
            if values is not None:
                made[member.name] = values
            if rest is not None and rest.null_count < len(rest):
                rests.append(member_of(member.name, rest))
        return struct_of(node, made, some_objects_of(rests, self._rows))

    def _column(self, number: int, member: _Member) -> tuple[pa.Array[Any] | None, Texts | None]:
        """The column of a member, if it has one, and what of the values goes to the rest."""
        node, objects = self._level.node, self._objects[number]
        if objects:
            return _expand(objects.finish(), np.array(self._present[number], np.bool_)), None
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


def _expand(some: pa.StructArray, present: Bools) -> pa.StructArray:
    """With nulls in the rows that are not present."""
    if len(some) == len(present):
        return some
    places = pa.array(np.cumsum(present) - 1, mask=~present)
    return cast("pa.StructArray", pc.take(some, places))


def struct_of(
    node: Node, columns: dict[str, pa.Array[Any]], rest: Texts, absent: pa.BooleanArray | None = None
) -> pa.StructArray:
    """The column of a node. `absent` marks rows without such an object."""
    arrays = [columns[name] for name in (*node.leaves, *node.children)]
    return pa.StructArray.from_arrays([*arrays, rest], fields=list(struct_type(node)), mask=absent)


# ---- the long way ---------------------------------------------------------------------------------------------------


def divide(texts: Sequence[bytes], node: Node) -> pa.StructArray:
    """The columns of JSON texts, of which those that are no objects, or cannot be decoded, become rests as they are."""
    split = [_members(text) for text in texts]
    made: dict[str, pa.Array[Any]] = {}
    left: list[list[str]] = [[] for _ in texts]
    for name in (*node.leaves, *node.children):
        raws = [members.pop(name, None) for members in split]
        if name in node.leaves:
            made[name], rest = leaf_of(_texts(raws), node.leaves[name])
        else:
            made[name], rest = _objects_of(raws, node.children[name])
        for at in np.flatnonzero(rest.is_valid()).tolist():
            left[at].append(name_text(name) + rest[at].as_py())
    rests = [_rest_of(text, members, parts) for text, members, parts in zip(texts, split, left, strict=True)]
    return struct_of(node, made, pa.array(rests, pa.string()))


def _of_size(text: bytes) -> bytes:
    if len(text) > MAX_DIVIDED_BYTES:
        raise ValueError("too large to be divided")
    return text


class _NoObject(dict[str, Any]):
    """In the place of the members of what has none."""


def _members(text: bytes) -> dict[str, Any]:
    try:
        return _split(_of_size(text))
    except _UNDECODABLE:
        return _NoObject()


def _rest_of(text: bytes, members: dict[str, Any], parts: list[str]) -> str | None:
    if isinstance(members, _NoObject):
        return text.decode()
    parts += [name_text(name) + bytes(raw).decode() for name, raw in members.items()]
    return f"{{{','.join(parts)}}}" if parts else None


def _objects_of(raws: Sequence[Any], node: Node) -> tuple[pa.Array[Any], Texts]:
    """The columns of what is an object, and the texts of what is not."""
    texts = [None if raw is None else bytes(raw) for raw in raws]
    present = np.array([text is not None and text.startswith(b"{") for text in texts], np.bool_)
    objects = divide([text for text in texts if text is not None and text.startswith(b"{")], node)
    others = [None if is_object else text for text, is_object in zip(texts, present.tolist(), strict=True)]
    return _expand(objects, present), _texts(others)


def _texts(values: Sequence[Any]) -> Texts:
    return cast("Texts", _raw_array(values).cast(pa.string()))
