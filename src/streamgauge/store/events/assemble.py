"""Columns of payloads back to JSON texts."""

from __future__ import annotations

from functools import reduce
from typing import cast

import pyarrow as pa

from streamgauge.store.arrow import compute as pc
from streamgauge.store.events.texts import Texts, inside, member_of, member_texts, objects_of, some_objects_of
from streamgauge.store.events.tree import REST


def payload_texts(payloads: pa.StructArray) -> Texts:
    """The payloads as JSON, equal in meaning to what came: the order of members, the blanks and the spelling of numbers
    and texts may differ. `payloads` is of a `struct_type`, and their texts take less than 2 GiB."""
    members: list[Texts] = []
    rest: Texts | None = None
    for number, column in enumerate(payloads.type):
        values = pc.struct_field(payloads, number)
        if isinstance(column.type, pa.StructType):
            if values.null_count < len(values):
                members.append(member_of(column.name, payload_texts(values)))
        elif column.name == REST:
            rest = values
        elif values.null_count < len(values):
            members.append(member_texts(column.name, values))
    return _only(payloads, _objects(members, rest, len(payloads)))


def with_rest(members: list[Texts], rest: Texts) -> Texts:
    """What is left of objects, null where nothing is: parts of them, and what was left before."""
    if not members:
        return rest
    some = some_objects_of(members, len(rest))
    if rest.null_count == len(rest):
        return some
    return cast("Texts", pc.if_else(pc.is_null(some), rest, _objects(members, rest, len(rest))))


def _objects(members: list[Texts], rest: Texts | None, rows: int) -> Texts:
    if rest is None or rest.null_count == rows:
        return objects_of(members, rows)[0]
    whole = cast("Texts", pc.fill_null(rest, "{}"))
    if not members:
        return whole
    more = pc.if_else(pc.is_null(rest), "", pc.binary_join_element_wise(",", inside(whole), ""))
    both, _ = objects_of([*members, more], rows)
    # Without any column the rest is all there is: it need not be an object.
    divided = reduce(pc.or_, (pc.is_valid(texts) for texts in members))
    return cast("Texts", pc.if_else(divided, both, whole))


def _only(payloads: pa.StructArray, texts: Texts) -> Texts:
    """Null where there is no object."""
    if payloads.null_count == 0:
        return texts
    return cast("Texts", pc.if_else(pc.is_valid(payloads), texts, pa.scalar(None, pa.string())))
