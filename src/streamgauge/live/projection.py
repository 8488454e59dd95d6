"""Payloads read as far as some fields go: what else is in them is passed over, which takes a third of the time."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from streamgauge.live.fields import ABSENT, field_of
from streamgauge.model.event_source import Path
from streamgauge.wire.json_values import read_json

_REFUSED = re.compile(r'[\x00-\x1f"\\\x7f]')
"""In names that a decoder of msgspec does not find."""

_Tree = dict[str, "_Tree | None"]
"""Members by name; None for one that is wanted as it is."""


class Projection:
    """Reads the fields at these paths, each as `field_of` finds it."""

    def __init__(self, paths: Collection[Path]) -> None:
        """Raises ValueError where one path leads through the end of another, and for names with quotes and the like."""
        tree: _Tree = {}
        for path in paths:
            _plant(tree, path)
            if len(path) > 1:
                _plant(tree, (".".join(path),))
        getters: dict[Path, Callable[[Any], Any]] = {}
        struct = _struct(tree, (), "", getters)
        self._nothing = struct()
        self._decode = msgspec.json.Decoder(struct).decode
        self._getters = {path: getters[path] for path in paths}
        self._dotted = {path: getters[(".".join(path),)] for path in paths if len(path) > 1}

    def read(self, texts: Sequence[str]) -> Fields:
        """The fields of some payloads."""
        try:
            return Fields(self, list(map(self._decode, texts)), {})
        except msgspec.DecodeError:
            return self._read_each(texts)

    def _read_each(self, texts: Sequence[str]) -> Fields:
        """The same where one is no object, or has something else than an object where a path goes on."""
        objects: list[Any] = []
        wholes: dict[int, Any] = {}
        for at, text in enumerate(texts):
            try:
                objects.append(self._decode(text))
            except msgspec.DecodeError:
                objects.append(self._nothing)
                wholes[at] = read_json(text)
        return Fields(self, objects, wholes)

    def column(self, path: Path, objects: Sequence[Any]) -> list[Any]:
        """Of objects that were decoded."""
        values = list(map(self._getters[path], objects))
        if path in self._dotted:
            dotted = list(map(self._dotted[path], objects))
            if dotted.count(ABSENT) < len(dotted):
                values = [other if value is ABSENT else value for value, other in zip(values, dotted, strict=True)]
        return values


class Fields:
    """What was read of some payloads."""

    def __init__(self, projection: Projection, objects: Sequence[Any], wholes: Mapping[int, Any]) -> None:
        """wholes: the payloads, by their numbers, that could not be read but as a whole."""
        self._projection = projection
        self._objects = objects
        self._wholes = wholes
        self._columns: dict[Path, list[Any]] = {}

    def column(self, path: Path) -> list[Any]:
        """The field of each payload."""
        if path not in self._columns:
            values = self._columns[path] = self._projection.column(path, self._objects)
            for at, payload in self._wholes.items():
                values[at] = field_of(payload, path)
        return self._columns[path]


def _plant(tree: _Tree, path: Path) -> None:
    *above, last = path
    if any(_REFUSED.search(name) for name in path):
        raise ValueError("a name that is not found")
    for name in above:
        inner = tree.setdefault(name, {})
        if inner is None:
            raise ValueError("a path leads through another's end")
        tree = inner
    if tree.setdefault(last, None) is not None:
        raise ValueError("a path ends within another")


def _struct(tree: _Tree, path: Path, attribute: str, getters: dict[Path, Callable[[Any], Any]]) -> Any:
    """A class whose objects have the tree's members as attributes; `getters` gets what reads each from the root's."""
    fields: list[Any] = []
    for number, (name, inner) in enumerate(tree.items()):
        mine = f"m{number}"
        at = f"{attribute}.{mine}" if attribute else mine
        if inner is None:
            getters[(*path, name)] = attrgetter(at)
            fields.append((mine, Any, msgspec.field(default=ABSENT, name=name)))
        else:
            child = _struct(inner, (*path, name), at, getters)
            fields.append((mine, child, msgspec.field(default=child(), name=name)))
    return msgspec.defstruct("Fields", fields, frozen=True, gc=False)
