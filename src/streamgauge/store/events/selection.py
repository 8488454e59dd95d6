"""Which rows have wanted texts. Of a column in a dictionary only the dictionary's texts are compared."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa

from streamgauge.model.arrays import Bools, Int64s
from streamgauge.store.arrow import booleans
from streamgauge.store.arrow import compute as pc

FEW = 0.3
"""Of the rows. More are not worth picking out."""
_FEW_TEXTS = 4


def rows_with(columns: Sequence[pa.Array[Any]], texts: Sequence[Collection[str]]) -> Int64s:
    """The rows in which each column, of texts, has one of its own texts."""
    masks = [_with(column, pa.array(sorted(some), pa.string())) for column, some in zip(columns, texts, strict=True)]
    return np.flatnonzero(np.logical_and.reduce(masks))


def _with(column: pa.Array[Any], wanted: pa.StringArray) -> Bools:
    if not isinstance(column, pa.DictionaryArray):
        return booleans(pc.is_in(column, value_set=wanted))
    found = booleans(pc.is_in(column.dictionary, value_set=wanted))
    codes = (pc.fill_null(column.indices, len(found)) if column.null_count else column.indices).to_numpy()
    if np.count_nonzero(found) > _FEW_TEXTS:
        return cast("Bools", np.append(found, False).take(codes))
    mask = np.zeros(len(codes), np.bool_)
    for code in np.flatnonzero(found).tolist():
        mask |= codes == code
    return mask
