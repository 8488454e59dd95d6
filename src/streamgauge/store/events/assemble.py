"""Columns of payloads back to JSON texts."""

from __future__ import annotations

from typing import cast

import pyarrow as pa

from streamgauge.store.arrow import compute as pc
from streamgauge.store.events.texts import Texts, braces, inside, join_members, member_of, texts_of
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
            members.append(member_of(column.name, texts_of(values)))
    return _only(payloads, _objects(members, rest, len(payloads)))


def _objects(members: list[Texts], rest: Texts | None, rows: int) -> Texts:
    if rest is not None and not members:
        return cast("Texts", pc.fill_null(rest, "{}"))
    if not members:
        return pa.array(["{}"] * rows, pa.string())
    columns = join_members(members)
    if rest is None or rest.null_count == rows:
        return braces(columns)
    inner = inside(pc.fill_null(rest, "{}"))
    both = join_members([columns, pc.if_else(pc.is_null(rest), "", pc.binary_join_element_wise(",", inner, ""))])
    # Without any column the rest is all there is: it need not be an object.
    return cast("Texts", pc.if_else(pc.equal(columns, ""), pc.fill_null(rest, "{}"), braces(both)))


def _only(payloads: pa.StructArray, texts: Texts) -> Texts:
    """Null where there is no object."""
    if payloads.null_count == 0:
        return texts
    return cast("Texts", pc.if_else(pc.is_valid(payloads), texts, pa.scalar(None, pa.string())))
