"""Operations on label frames: laying them under each other, ordering, replacing a column. None loops over rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.model.arrays import Bools, Floats, Int32s, Int64s
from streamgauge.model.frame import ABSENT, LabelColumn, LabelFrame

METRIC_NAME = "__name__"
METADATA = (METRIC_NAME, "__type__", "__unit__")
"""Labels that say what the values are: they go together when the values become something else."""

UInt64s = npt.NDArray[np.uint64]


def no_column(rows: int) -> LabelColumn:
    return LabelColumn(np.full(rows, ABSENT, np.int32), pa.array([], pa.string()))


def constant_column(rows: int, text: str) -> LabelColumn:
    """The same value in every row; "" makes the label absent."""
    return LabelColumn(np.zeros(rows, np.int32), pa.array([text], pa.string())) if text else no_column(rows)


def column_of(frame: LabelFrame, name: str) -> LabelColumn:
    """The column of a label, all absent where the frame has none."""
    column = frame.columns.get(name)
    return no_column(len(frame)) if column is None else column


def with_columns(frame: LabelFrame, columns: Mapping[str, LabelColumn]) -> LabelFrame:
    """The frame with these columns set or replaced."""
    return LabelFrame(len(frame), {**frame.columns, **columns})


def constant_frame(labels: Mapping[str, str]) -> LabelFrame:
    """One row with these labels."""
    return LabelFrame.of([labels])


def encode(texts: pa.StringArray) -> LabelColumn:
    """A column from one text a row; "" means that the label is absent."""
    values = pc.unique(texts)
    codes = pc.index_in(texts, value_set=values).to_numpy(zero_copy_only=False).astype(np.int32)
    return dropping_empty(LabelColumn(codes, values))


def dropping_empty(column: LabelColumn) -> LabelColumn:
    """The column without "" in its dictionary: those rows have no such label."""
    empty = pc.index(column.values, "").as_py()
    if empty < 0:
        return column
    moved = np.arange(len(column.values), dtype=np.int32)
    moved[empty] = ABSENT
    moved[empty + 1 :] -= 1
    values = column.values.filter(pc.not_equal(column.values, pa.scalar("", pa.string())))
    return recode(column.codes, moved, values)


def recode(codes: Int32s, mapping: Int32s, values: pa.StringArray) -> LabelColumn:
    """A column whose code c becomes mapping[c]; ABSENT stays."""
    extended = np.append(mapping, np.int32(ABSENT)).astype(np.int32)
    return LabelColumn(extended[codes], values)


def compact(column: LabelColumn) -> LabelColumn:
    """The column with only the values that are used, where that is much fewer than it has."""
    if len(column.values) <= 2 * len(column.codes) + 64:
        return column
    used, codes = np.unique(column.codes, return_inverse=True)
    absent = bool(len(used)) and used[0] == ABSENT
    values = column.values.take(used[1:] if absent else used)
    return LabelColumn((codes - absent).astype(np.int32), values)


def concat(frames: Sequence[LabelFrame]) -> LabelFrame:
    """The rows of all frames, in order, over common dictionaries."""
    if len(frames) == 1:
        return frames[0]
    names = dict.fromkeys(name for frame in frames for name in frame.columns)
    columns = {name: _concat_columns([column_of(frame, name) for frame in frames]) for name in names}
    return LabelFrame(sum(map(len, frames)), columns)


def _concat_columns(columns: Sequence[LabelColumn]) -> LabelColumn:
    filled = [column for column in columns if len(column.values)]
    if not filled:
        return no_column(sum(len(column.codes) for column in columns))
    if all(column.values is filled[0].values for column in filled):
        return LabelColumn(np.concatenate([column.codes for column in columns]), filled[0].values)
    columns = [compact(column) for column in columns]
    values = pc.unique(pa.concat_arrays([column.values for column in columns]))
    codes = []
    for column in columns:
        mapping = pc.index_in(column.values, value_set=values).to_numpy(zero_copy_only=False)
        codes.append(recode(column.codes, mapping.astype(np.int32), values).codes)
    return LabelColumn(np.concatenate(codes), values)


def drop_names(frame: LabelFrame, rows: Bools) -> LabelFrame:
    """The frame with no metric name, type and unit in the given rows."""
    named = {name: frame.columns[name] for name in METADATA if name in frame.columns}
    codes = {name: np.where(rows, np.int32(ABSENT), column.codes) for name, column in named.items()}
    return with_columns(frame, {name: LabelColumn(codes[name], column.values) for name, column in named.items()})


def ranks(values: pa.StringArray) -> Int64s:
    """For each value its place in byte order."""
    order = pc.sort_indices(values).to_numpy()
    rank = np.empty(len(values), np.int64)
    rank[order] = np.arange(len(values))
    return rank


def order(frame: LabelFrame) -> Int64s:
    """The rows in Prometheus' order of label sets: by the first label in which they differ, in order of the names.

    A label set that another one continues comes first; a set that lacks a label which the other has, but has a later
    one, comes after it.
    """
    if not frame.columns or len(frame) < 2:
        return np.arange(len(frame))
    names = sorted((name for name in frame.columns), key=lambda name: name.encode())
    columns = {name: compact(frame.columns[name]) for name in names}
    has_later = np.zeros(len(frame), np.bool_)
    keys: list[tuple[Int64s, int]] = []  # least significant first
    for name in reversed(names):
        column = columns[name]
        absent = column.codes == ABSENT
        width = len(column.values) + 2
        rank = np.append(ranks(column.values) + 1, 0)[column.codes]
        keys.append((np.where(absent & has_later, width - 1, rank), width))
        has_later |= ~absent
    key, radix = np.zeros(len(frame), np.int64), 1
    for digits, width in reversed(keys):
        if radix > (1 << 62) // width:
            distinct, key = np.unique(key, return_inverse=True)
            radix = len(distinct)
        key = key * width + digits
        radix *= width
    return np.argsort(key, kind="stable")


def describe(frame: LabelFrame, row: int) -> str:
    """One series as text: `name{label="value", …}`."""
    labels = frame.labels(row)
    name = labels.pop(METRIC_NAME, "")
    inner = ", ".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{inner}}}" if inner or not name else name


def fractions(frame: LabelFrame) -> Floats:
    """For each label set a number in [0, 1), evenly spread and the same in every query, process and order of labels."""
    total = np.zeros(len(frame), np.uint64)
    for name, column in frame.columns.items():
        column = compact(column)
        of_value = np.array([_hash(name, str(value)) for value in column.values.to_pylist()] + [0], np.uint64)
        total += of_value[column.codes]  # the last one is of ABSENT
    return (_mixed(total) >> np.uint64(11)).astype(np.float64) / (1 << 53)


def _hash(name: str, value: str) -> int:
    digest = hashlib.blake2b(value.encode(), digest_size=8, key=name.encode()[:64]).digest()
    return int.from_bytes(digest, "little")


def _mixed(x: UInt64s) -> UInt64s:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): each bit going in changes half of those coming out."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
