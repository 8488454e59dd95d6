"""Columns of payloads back to JSON texts."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pyarrow as pa

from streamgauge.model.arrays import Int64s
from streamgauge.store.arrow import compute as pc
from streamgauge.store.events.texts import Part, Texts, leaf_member, objects_of, some_of, text_member
from streamgauge.store.events.tree import REST


def payload_texts(payloads: pa.StructArray) -> Texts:
    """The payloads as JSON, equal in meaning to what came: the order of members, the blanks and the spelling of numbers
    and texts may differ. Null where a payload is. `payloads` is of a `struct_type`; their texts take less than 2 GiB.

    What it takes depends on how many members there are, not on how many columns."""
    if payloads.null_count:
        some, rows = some_of(payloads)
        return cast("Texts", spread(payload_texts(cast("pa.StructArray", some)), rows, len(payloads)))
    members: list[Part] = []
    rest: Texts | None = None
    for number, column in enumerate(payloads.type):
        values: Any = pc.struct_field(payloads, number)
        if values.null_count == len(values):
            continue
        if column.name == REST:
            rest = values
        elif isinstance(column.type, pa.StructType):
            objects, at = some_of(values)
            inner = text_member(column.name, payload_texts(cast("pa.StructArray", objects)))
            members.append(Part(inner.texts, at))
        else:
            members.append(leaf_member(column.name, values))
    return objects_of(members, rest, len(payloads))


def spread(some: Any, rows: Int64s, count: int) -> Any:
    """An array of `count` rows that has these values in these rows, and nulls in the others."""
    places, absent = np.zeros(count, np.int64), np.ones(count, np.bool_)
    places[rows], absent[rows] = np.arange(len(rows)), False
    return some.take(pa.array(places, mask=absent))
