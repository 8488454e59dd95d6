"""Which members of payloads get columns: those that a sample has often enough, in the type of most of their values."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pyarrow as pa

from streamgauge.model.event_source import LeafType, Node, Path

REST = "$rest"
"""The column of a node with what is in none of its others."""

COMMON_SHARE = 0.01
"""A member has a column if so many of the payloads have it, as values of the column's type. A column costs about 100
bytes in each row group, and being read whole when one value is wanted."""
MAX_COLUMNS = 1_000
"""Columns of payloads at most. The footer tells of each in each row group, and is read with every block."""
MAX_DEPTH = 16
"""Levels of objects that are divided; what is deeper stays text."""
MAX_NAME_BYTES = 255

INT64 = range(-(1 << 63), 1 << 63)

ARROW_TYPES: Mapping[LeafType, pa.DataType] = {
    LeafType.BOOL: pa.bool_(),
    LeafType.INT: pa.int64(),
    LeafType.DOUBLE: pa.float64(),
    LeafType.TEXT: pa.string(),
}

_REFUSED = re.compile(r'[\x00-\x1f"\\\x7f]')


@dataclass(slots=True)
class Profile:
    """How often values of each kind stand at one place of some payloads."""

    values: int = 0
    ints: int = 0  # that are int64
    small_ints: int = 0  # of these, those that a double holds exactly
    doubles: int = 0
    texts: int = 0
    bools: int = 0
    objects: int = 0
    members: dict[str, Profile] = field(default_factory=dict)

    def add(self, value: Any, depth: int = 0) -> None:
        """Count a decoded value and, down to MAX_DEPTH, what is in it."""
        self.values += 1
        kind = type(value)
        if kind is str:
            self.texts += 1
        elif kind is int:
            self.ints += value in INT64
            self.small_ints += -(1 << 53) <= value <= 1 << 53
        elif kind is dict:
            self.objects += 1
            if depth < MAX_DEPTH:
                for name, member in value.items():
                    self.member(name).add(member, depth + 1)
        elif kind is float:
            self.doubles += 1
        elif kind is bool:
            self.bools += 1

    def include(self, other: Profile, times: float) -> None:
        """Count as often what another profile has counted."""
        self.values += round(times * other.values)
        self.ints += round(times * other.ints)
        self.small_ints += round(times * other.small_ints)
        self.doubles += round(times * other.doubles)
        self.texts += round(times * other.texts)
        self.bools += round(times * other.bools)
        self.objects += round(times * other.objects)
        for name, member in other.members.items():
            self.member(name).include(member, times)

    def member(self, name: str) -> Profile:
        found = self.members.get(name)
        if found is None:
            found = self.members[name] = Profile()
        return found

    def leaf(self) -> tuple[LeafType, int]:
        """The scalar type that holds most values, and how many it holds.

        Where some numbers have decimals and others do not, doubles hold both. Where one in a hundred at most has, they
        would only make a mess of integers."""
        number = LeafType.INT, self.ints
        if self.doubles - (self.ints - self.small_ints) > COMMON_SHARE * (self.ints + self.doubles):
            number = LeafType.DOUBLE, self.small_ints + self.doubles
        return max(number, (LeafType.TEXT, self.texts), (LeafType.BOOL, self.bools), key=lambda choice: choice[1])


def profile_of(payloads: Iterable[bytes]) -> Profile:
    """Of JSON texts; those that cannot be decoded are left out, as they will have no columns."""
    profile = Profile()
    for payload in payloads:
        try:
            value = msgspec.json.decode(payload)
        except (msgspec.DecodeError, RecursionError, ValueError):
            continue
        profile.add(value)
    return profile


def usable(name: str) -> bool:
    """Whether a member's name can be a column's: in Parquet, in DuckDB, and in a decoder of ours."""
    return (
        0 < len(name.encode(errors="surrogatepass")) <= MAX_NAME_BYTES
        and _REFUSED.search(name) is None
        and name.lower() != REST
    )


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A column to be: of a leaf, or of an object (its rest), `count` of whose values are in the payloads."""

    path: Path
    type: LeafType | None
    count: int


def choose_node(profile: Profile, share: float = COMMON_SHARE) -> Node:
    """The tree for payloads like these. A column needs values in this share of them."""
    least = max(share * profile.values, 1)
    found = sorted(_candidates(profile, (), least), key=lambda candidate: -candidate.count)
    draft = _Draft()
    for candidate in found[:MAX_COLUMNS]:  # an object is never behind its members, as it has the higher count
        draft.add(candidate)
    return draft.node(profile)


def _candidates(profile: Profile, path: Path, least: float) -> Iterator[_Candidate]:
    if len(path) == MAX_DEPTH:
        return
    for name, member in profile.members.items():
        if not usable(name):
            continue
        type_, count = member.leaf()
        if member.objects >= max(count, least):
            yield _Candidate((*path, name), None, member.objects)
            yield from _candidates(member, (*path, name), least)
        elif count >= least:
            yield _Candidate((*path, name), type_, count)


@dataclass(slots=True)
class _Draft:
    """A node that is being put together."""

    leaves: dict[str, LeafType] = field(default_factory=dict)
    children: dict[str, _Draft] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)  # names in lower case: DuckDB knows no other difference

    def add(self, candidate: _Candidate) -> None:
        node: _Draft | None = self
        *above, name = candidate.path
        for step in above:
            node = node.children.get(step) if node else None
        if node is None or name.lower() in node.taken:
            return
        node.taken.add(name.lower())
        if candidate.type is None:
            node.children[name] = _Draft()
        else:
            node.leaves[name] = candidate.type

    def node(self, profile: Profile) -> Node:
        """With the columns in the order in which the payloads have them."""
        order = [name for name in profile.members if name in self.leaves or name in self.children]
        return Node(
            leaves={name: self.leaves[name] for name in order if name in self.leaves},
            children={name: self.children[name].node(profile.members[name]) for name in order if name in self.children},
        )


# ---- as an Arrow type -----------------------------------------------------------------------------------------------


def struct_type(node: Node) -> pa.StructType:
    """The type of the column of an object: its leaves, its objects, its rest."""
    fields: list[pa.Field[Any]] = [pa.field(name, ARROW_TYPES[leaf]) for name, leaf in node.leaves.items()]
    fields += [pa.field(name, struct_type(child)) for name, child in node.children.items()]
    return pa.struct([*fields, pa.field(REST, pa.string())])


def node_of(type_: pa.StructType) -> Node:
    """The opposite of `struct_type`. Raises ValueError for a type that it does not make."""
    leaves: dict[str, LeafType] = {}
    children: dict[str, Node] = {}
    rest = False
    for column in type_:
        if isinstance(column.type, pa.StructType):
            children[column.name] = node_of(column.type)
        elif column.name == REST:
            rest = True
        else:
            leaves[column.name] = _leaf_type(column.type)
    return Node(leaves, children, rest)


def with_mixed(node: Node, mixed: Collection[Path]) -> Node:
    """The same tree, of whose members with a column only those at these paths are in a rest, too."""
    return _with_mixed(node, frozenset(mixed), ())


def _with_mixed(node: Node, mixed: frozenset[Path], at: Path) -> Node:
    members = (*node.leaves, *node.children)
    return Node(
        node.leaves,
        {name: _with_mixed(child, mixed, (*at, name)) for name, child in node.children.items()},
        node.rest,
        frozenset(name for name in members if (*at, name) in mixed),
    )


def _leaf_type(type_: pa.DataType) -> LeafType:
    for leaf, arrow_type in ARROW_TYPES.items():
        if type_ == arrow_type:
            return leaf
    raise ValueError(f"it has a column of type {type_}")
